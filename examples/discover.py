"""Which textbook laws are found from 200 rows: by ``fit``, by gplearn, and by two regressors.

    python examples/discover.py                  all of it; two hours on two cores
    python examples/discover.py --seconds 15     half an hour
    python examples/discover.py --laws lens,work --methods fit,gplearn

It saves each law as it is done, and goes on where it was interrupted; ``python -m nalu_kernels
report`` then writes its section of RESULTS.md. An interruption waits for the tables under way. It
needs the extra ``discover``. The code is nalu_kernels/experiments/discover.py, the laws are in
laws.py beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nalu_kernels.experiments import load, runner
from nalu_kernels.experiments.refusal import Refusal, folder_name


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 2 for a request that cannot be met, 130 where it was interrupted."""
    experiment = load("discover")
    parser = argparse.ArgumentParser(description=f"Measures {experiment.title}.")
    parser.add_argument(
        "--seconds",
        type=_at_least_one,
        metavar="S",
        default=experiment.full.steps,
        help="for each method and table (default: %(default)s)",
    )
    for option, alias, names in (
        ("--laws", "tasks", experiment.tasks),
        ("--methods", "models", experiment.models),
    ):
        parser.add_argument(
            option,
            f"--{alias}",
            dest=alias,
            nargs="+",
            action="extend",
            metavar="NAME",
            help=f"only these, with commas between: {', '.join(names)}".replace("%", "%%"),
        )
    parser.add_argument(
        "--out", type=folder_name, metavar="DIR", help="folder for what it saves (results/discover)"
    )
    parser.add_argument(
        "--jobs", type=_at_least_one, metavar="N", help="laws at once (default: one for each core)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left")
    options = parser.parse_args(argv)
    try:
        runner.run(
            experiment,
            steps=options.seconds,
            out=options.out,
            jobs=options.jobs,
            fresh=options.fresh,
            narrowed={"models": options.models, "tasks": options.tasks},
        )
    except Refusal as error:
        print(f"discover.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what had finished is saved; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
