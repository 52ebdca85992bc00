"""``python -m nalu_kernels``: the experiments, each a subcommand, and ``fit``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_PROG = "python -m nalu_kernels"
_SHARED = ("full", "device", "jobs", "fresh")  # of every experiment and of all in turn
# All but the axes and an experiment's own options.
_NOT_ITS_OWN = ("command", "out", "seeds", "steps", *_SHARED)


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and leaving, so that an error is one line."""

    def error(self, message: str) -> NoReturn:
        from .experiments.refusal import Refusal

        raise Refusal(message)


def _at_least_one(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    # Imported only now: who imports this module does not want the experiments yet.
    from .experiments import NAMES, load
    from .experiments.refusal import folder_name

    parser = _Parser(
        prog=_PROG,
        description="Neural arithmetic layers, from NAC and NALU (Trask et al. 2018) to NMU, "
        "iNALU and NMRU: the experiments of the literature, and formulas of tables.",
        epilog="python -m nalu_kernels COMMAND --help has a command's options.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in NAMES:
        experiment = load(name)
        command = commands.add_parser(
            name,
            help=experiment.title,
            description=f"{experiment.title[0].upper()}{experiment.title[1:]}. "
            f"Source: {experiment.source}. Prints a table, saves results.json and plot.png; "
            "interrupted, the same command goes on.",
        )
        small, full = experiment.small, experiment.full
        _common(command, out=f"results/{name}, with --full results/{name}-full")
        command.add_argument(
            "--seeds",
            type=_at_least_one,
            metavar="N",
            help=f"train each model N times (default: {small.seeds}, with --full {full.seeds})",
        )
        command.add_argument(
            "--steps",
            type=_at_least_one,
            metavar="N",
            help=f"training steps (default: {small.steps:,}, with --full {full.steps:,})",
        )
        _axes(command, experiment.axes(), experiment.yardstick)
        experiment.add_options(command)
    everything = commands.add_parser("all", help="every experiment in turn")
    _common(everything, out="results; each experiment gets a folder in it")
    report = commands.add_parser(
        "report",
        help="a page of what experiments measured, beside published figures",
        description="Writes RESULTS.md, and results/ with the numbers and plots it shows.",
    )
    report.add_argument(
        "folder",
        nargs="?",
        type=folder_name,
        default="results",
        help="the runs' folder (default: results)",
    )
    report.add_argument(
        "--out",
        type=folder_name,
        default="report",
        metavar="DIR",
        help="where to write (default: report)",
    )
    _add_fit(commands)
    return parser


def _add_fit(commands: Any) -> None:
    from .experiments.refusal import folder_name

    fit = commands.add_parser(
        "fit",
        help="a formula of your own numbers, checked",
        description="Searches a formula of a table's column in its other columns, and checks it on "
        "rows that the search has not seen. Prints the models that were checked, and saves "
        "formula.json, model.safetensors and plot.png. Ctrl-C ends the search early.",
    )
    fit.add_argument("table", metavar="TABLE", help="a CSV, TSV or Parquet file")
    fit.add_argument("--target", required=True, metavar="COLUMN", help="the column to be found")
    fit.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="those to find it from (default: all others that are of numbers)",
    )
    fit.add_argument(
        "--seconds", type=_positive, default=60.0, metavar="S", help="at most (default: 60)"
    )
    fit.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the rows and the search (default: 0)"
    )
    fit.add_argument(
        "--out",
        type=folder_name,
        metavar="DIR",
        help="folder for what it saves (default: results/fit/ and the table's name)",
    )


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:12]) >= 2**31 or len(text) > 10:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2**31, got {text!r}")
    return int(text)


def _common(command: argparse.ArgumentParser, *, out: str) -> None:
    from .experiments.refusal import folder_name

    command.add_argument(
        "--full",
        action="store_true",
        help="the published size where it is known, else a large one; may take days",
    )
    command.add_argument(
        "--device", default="cpu", help="where to train: cpu, cuda, cuda:1 (default: cpu)"
    )
    command.add_argument(
        "--out", type=folder_name, metavar="DIR", help=f"folder for what it saves (default: {out})"
    )
    command.add_argument(
        "--jobs",
        type=_at_least_one,
        metavar="N",
        help="networks trained at once (default: one for each CPU core, on other devices 1)",
    )
    command.add_argument(
        "--fresh", action="store_true", help="forget what an earlier run left in the folder"
    )


def _axes(
    command: argparse.ArgumentParser, axes: dict[str, tuple[str, ...]], yardstick: str | None
) -> None:
    """An option for each of AXES: one that the experiment lacks is refused, with its name."""
    from .experiments.experiment import AXES

    for axis in AXES:
        text = argparse.SUPPRESS
        if axis in axes:
            always = f" ({yardstick} always runs too)" if yardstick and axis == "models" else ""
            text = f"only these, with commas between{always}: {', '.join(axes[axis])}"
        command.add_argument(f"--{axis}", nargs="+", action="extend", metavar="NAME", help=text)


def _run(options: argparse.Namespace) -> None:
    if options.command == "fit":
        from .fit import command

        command.run(options)
        return
    from .experiments import NAMES, load, runner, summary
    from .experiments.experiment import AXES

    if options.command == "report":
        summary.write(options.folder, options.out)
        return
    common: dict[str, Any] = {key: getattr(options, key) for key in _SHARED}
    if options.command == "all":
        for name in NAMES:
            runner.run(load(name), out=f"{options.out or 'results'}/{name}", **common)
            print()
        return
    runner.run(
        load(options.command),
        out=options.out,
        seeds=options.seeds,
        steps=options.steps,
        narrowed={axis: getattr(options, axis) for axis in AXES},
        options={
            key: value for key, value in vars(options).items() if key not in (*_NOT_ITS_OWN, *AXES)
        },
        **common,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code: 2 for a request that cannot be met, 130 where it
    was interrupted, 1 where what it prints cannot be written, 141 where nobody reads it."""
    from .experiments.streams import Unwritable, checked

    with checked():
        try:
            try:
                return _answer(argv)
            finally:
                sys.stdout.flush()
        except Unwritable as error:
            if not error.quiet:
                print(f"{_PROG}: error: {error}", file=sys.stderr)
            return error.status


def _answer(argv: Sequence[str] | None) -> int:
    from .experiments.refusal import Refusal

    options = None
    try:
        parser = _parser()
        options = parser.parse_args(argv)
        if options.command is None:
            parser.print_help()
            return 0
        _run(options)
    except Refusal as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        left = "what had finished is saved; run it again, without --fresh, to go on"
        if options is None or options.command == "fit":
            left = "nothing had been found yet"
        print(f"\ninterrupted: {left}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
