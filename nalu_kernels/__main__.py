"""``python -m nalu_kernels``: the experiments, each a subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and leaving, so that an error is one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _at_least_one(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m nalu_kernels",
        description="NAC and NALU layers (Trask et al. 2018): the experiments.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    about = "what networks compute outside their training range: y = x, arithmetic, digit sums"
    extrapolate = commands.add_parser(
        "extrapolate",
        help=about,
        description=about[0].upper() + about[1:] + ". Prints tables, saves a plot and the numbers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    extrapolate.add_argument("--device", default="cpu", help="where to train: cpu, cuda, cuda:1")
    extrapolate.add_argument(
        "--seeds", type=_at_least_one, default=5, metavar="N", help="train each model N times"
    )
    extrapolate.add_argument(
        "--steps",
        type=_at_least_one,
        default=1200,
        metavar="N",
        help="training steps of each model of the arithmetic tasks; those of y = x train for two "
        "thirds as many, the digit sums for one third",
    )
    extrapolate.add_argument(
        "--out", default="results/extrapolate", metavar="DIR", help="folder for the PNG and JSON"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code: 2 for a request that cannot be met."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
        if options.command is None:
            parser.print_help()
            return 0
        # Imported only now: the experiments need the optional packages, the help does not.
        from .experiments import extrapolate

        extrapolate.main(options.device, options.seeds, options.steps, options.out)
    except ValueError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the parts that had finished are saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
