"""What benchmarks that are commands have in common: options, and the results that they write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import machine

Results = dict[str, Any]


def parser(name: str, about: str | None, of: str, results: str) -> argparse.ArgumentParser:
    """With the options that all have: seconds ``of`` what, and what is said of ``--results``."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--seconds", type=float, default=2.0, help=f"of {of}")
    made.add_argument("--results", type=Path, help=results)
    return made


def begin(threads: int) -> Results:
    """On so many threads, and what there is to know of the machine before it is kept busy."""
    torch.set_num_threads(threads)
    return {"machine": {**machine.describe(), "load_before": machine.load()}}


def finish(results: Results, text: Callable[[Results], str], path: Path | None) -> None:
    """Prints them, and writes them if they are to be kept."""
    print(text(results))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
