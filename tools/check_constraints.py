"""``make constraints``: does constraints.txt resolve on every Python that pyproject.toml claims?

pip itself resolves, for this machine's platform, all that the project requires: its dependencies,
every extra and what builds it. Nothing is installed. Of each wheel only the metadata is fetched,
where the index serves parts of files, so that torch with its CUDA costs no gigabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import claimed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONSTRAINTS = claimed.PYPROJECT.with_name("constraints.txt")
# pip resolves for another Python from wheels alone. These publish none; theirs serve every Python.
WITHOUT_WHEELS = ("docopt",)
# --python-version chooses wheels, but pip evaluates environment markers for the Python it runs on.
PIP_AS = """
import runpy, sys
from pip._vendor.packaging import markers

here, version = markers.default_environment, sys.argv.pop(1)
markers.default_environment = lambda: {
    **here(), "python_version": version, "python_full_version": f"{version}.0"
}
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# pip's words when no connection comes about; what follows from it reads like a missing release.
UNREACHABLE = "after connection broken by"


def requirements() -> list[str]:
    """All of pyproject.toml's; an extra that names the project itself adds none."""
    content = tomllib.loads(claimed.PYPROJECT.read_text())
    project = content["project"]
    lists = [
        content["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
    ]
    return [line for lines in lists for line in lines if not line.startswith(project["name"])]


def pip(*arguments: str) -> None:
    """Runs pip; raises ``SystemExit`` with the reason if it fails."""
    command = [sys.executable, *arguments, "--retries", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        if UNREACHABLE in done.stderr:
            raise SystemExit("constraints.txt is not checked: pip cannot reach its package index")
        raise SystemExit(done.stdout + done.stderr)


def resolve(python: str, wanted: list[str], constraints: Path, wheels: Path) -> dict[str, str]:
    """The version of each package that pip would install on ``python``, such as "3.10", with the
    folder ``wheels`` besides its index.

    Raises ``SystemExit`` with pip's reasons if there is no solution."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        pip(
            *("-c", PIP_AS, python, "install", "--dry-run", "--ignore-installed"),
            *("--python-version", python, "--only-binary", ":all:", "--target", scratch),
            *("--use-feature", "fast-deps", "--find-links", str(wheels)),
            *("--report", str(report), "-c", str(constraints), *wanted),
        )
        packages = [found["metadata"] for found in json.loads(report.read_text())["install"]]
    return {package["name"]: package["version"] for package in packages}


def main() -> None:
    wanted = requirements()
    faults = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        pip("-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, *WITHOUT_WHEELS)
        # pip mostly waits for its index.
        found = {
            python: threads.submit(resolve, python, wanted, CONSTRAINTS, Path(folder))
            for python in claimed.pythons()
        }
        for python, future in found.items():
            try:
                print(f"Python {python}: {len(future.result())} packages resolve", flush=True)
            except SystemExit as fault:
                print(f"Python {python}: constraints.txt does not resolve\n{fault}", flush=True)
                faults.append(python)
    if faults:
        raise SystemExit(f"constraints.txt does not resolve on Python {', '.join(faults)}")


if __name__ == "__main__":
    main()
