"""The GPU's results as tables: for the terminal, for docs/speed.md, and in short for the README."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import markdown
from ..cases import BACKWARD, FORWARD, shape_name
from ..contenders import EAGER
from .cases import HIGHEST, PRECISIONS
from .providers import PRODUCTS, RIVALS
from .sweeps import GRAPH

Results = dict[str, Any]
Row = dict[str, Any]
NOT_YET = "**On a GPU nothing has been measured yet**: none was available."


def _microseconds(row: Row, name: str, clock: str) -> str:
    found = row["providers"].get(name, {}).get(clock)
    if found is None:
        return "–"
    median: float = found["median_us"]
    return f"{median:,.1f}" if median < 100 else f"{median:,.0f}"


def _times(row: Row, backend: str, clock: str, rival: str) -> str:
    found = row["times_faster"][backend][clock].get(rival)
    return "–" if found is None else f"{found:.2f}"


def _megabytes(row: Row, name: str) -> str:
    found = row["providers"].get(name, {}).get("peak_bytes")
    return "–" if found is None else f"{found / 2**20:,.1f}"


def _error(row: Row, name: str) -> str:
    errors = row["providers"].get(name, {}).get("errors")
    return f"{max(errors.values()):.1e}" if errors else "–"


def _number(row: Row, name: str, what: str) -> str:
    found = row["providers"].get(name, {}).get(what)
    return "–" if found is None else f"{found:.2f}"


def _rows(results: Results, what: str, precision: str) -> Iterator[tuple[Row, str]]:
    """Each case with each back end."""
    for row in results["cases"].values():
        if (row["what"], row["precision"]) == (what, precision):
            for backend in row["times_faster"]:
                yield row, backend


def progress(unit_id: str, row: Row) -> str:
    """A line for a unit that has just been measured."""
    words = [unit_id]
    for backend in row["times_faster"]:
        words.append(
            f"{backend} {_microseconds(row, backend, 'wall')} µs, on the device "
            f"{_microseconds(row, backend, 'device')} µs;"
        )
        for rival in RIVALS:
            if rival in row["providers"]:
                wall, device = (_times(row, backend, at, rival) for at in ("wall", "device"))
                words.append(f"÷ {rival} {wall}, {device};")
    return " ".join(words)


def _missed(results: Results) -> list[str]:
    return [
        f"{shape_name(tuple(row['shape']))} on {backend}: {one['what']} {one['found']:.2f}, "
        f"wanted {one['wanted']:g}"
        for row in results["cases"].values()
        for backend, found in row["times_faster"].items()
        for one in found.get("wanted", [])
        if one["met"] is False
    ]


def _verdict(results: Results) -> str:
    missed = _missed(results)
    judged = [
        one["met"]
        for row in results["cases"].values()
        for found in row["times_faster"].values()
        for one in found.get("wanted", [])
    ]
    met = f"{judged.count(True)} of {len(judged)} wanted figures are met"
    unknown = judged.count(None)
    return (
        met
        + (f", {unknown} could not be measured" if unknown else "")
        + (f". Missed: {'; '.join(missed)}." if missed else ".")
    )


def _machine(results: Results) -> str:
    machine = results["machine"]
    gpu = machine.get("gpu", machine["processor"])
    toolkit = f"CUDA {machine['cuda']}, " if machine.get("cuda") else ""
    return (
        f"{gpu}, {toolkit}torch {machine['torch']}, Triton {machine['triton']}, "
        f"nalu_kernels {machine['nalu_kernels']}"
    )


def _gates(results: Results) -> str:
    """What the tests and the sanitizer said."""
    parity, sanitizer = (results["steps"].get(step) for step in ("parity", "sanitizer"))
    words = ["Tests on the device: not run."]
    if parity is not None:
        words = [
            f"Tests on the device: {parity['passed']} passed, {len(parity['failing'])} failed, "
            f"{parity['skipped']} skipped, {parity['not_run']} not run."
        ]
    if sanitizer is None or sanitizer["tool"] is None:
        return " ".join([*words, "compute-sanitizer: not run."])
    for tool in ("memcheck", "racecheck"):
        wrong, late = (len(sanitizer[tool][what]) for what in ("wrong", "not_run"))
        verdict = "clean" if any(sanitizer[tool]["summaries"]) else "no verdict"
        verdict = f"{wrong} failed" if wrong else verdict
        words.append(f"compute-sanitizer {tool}: {verdict}{f', {late} not run' if late else ''}.")
    return " ".join(words)


def _choice(results: Results) -> str:
    """Where another back end is faster than the one that users get unasked: the first."""
    compared, slower = 0, []
    for row in results["cases"].values():
        walls = {
            name: row["providers"][name]["wall"]["median_us"]
            for name in row["times_faster"]
            if row["providers"][name].get("wall")
        }
        for name in list(walls)[1:]:
            chosen = next(iter(walls))
            compared += 1
            if walls[name] < walls[chosen]:
                case = f"{shape_name(tuple(row['shape']))} {row['what']} {row['precision']}"
                part = walls[name] / walls[chosen]
                slower.append(f"{case} ({name} takes {part:.2f} of {chosen}'s time)")
    if not compared:
        return "The choice of a back end: there was none."
    found = "; ".join(slower) if slower else "nowhere"
    return f"The back end chosen is not the fastest, by wall time, at: {found}."


def _wall_table(results: Results) -> list[list[str]]:
    head = ["B×I→O", "back end", "µs", "eager", "torch.compile", "max-autotune"]
    rows = [[*head, "times faster than eager", "than torch.compile", "than max-autotune"]]
    for row, backend in _rows(results, BACKWARD, HIGHEST):
        rows.append(
            [
                shape_name(tuple(row["shape"])),
                backend,
                *(_microseconds(row, name, "wall") for name in (backend, *RIVALS)),
                *(_times(row, backend, "wall", rival) for rival in RIVALS),
            ]
        )
    return rows


def _device_table(results: Results) -> list[list[str]]:
    head = ["B×I→O", "back end", "µs", "eager", "torch.compile", "max-autotune", PRODUCTS]
    head += [f"time ÷ {PRODUCTS}'s", "time ÷ roofline's", "TFLOP/s"]
    rows = [[*head, "peak MB (eager)", "largest error (eager)"]]
    for row, backend in _rows(results, BACKWARD, HIGHEST):
        rows.append(
            [
                shape_name(tuple(row["shape"])),
                backend,
                *(_microseconds(row, name, "device") for name in (backend, *RIVALS, PRODUCTS)),
                _number(row, backend, "of_floor"),
                _number(row, backend, "of_roofline"),
                _number(row, backend, "tflops"),
                f"{_megabytes(row, backend)} ({_megabytes(row, EAGER)})",
                f"{_error(row, backend)} ({_error(row, EAGER)})",
            ]
        )
    return rows


def _other_table(results: Results) -> list[list[str]]:
    """Times faster than eager, by wall time and on the device, of everything else."""
    columns = [(BACKWARD, one) for one in PRECISIONS if one != HIGHEST]
    columns += [(FORWARD, one) for one in PRECISIONS]
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for column in columns:
        for row, backend in _rows(results, *column):
            wall, device = (_times(row, backend, at, EAGER) for at in ("wall", "device"))
            line = cells.setdefault((shape_name(tuple(row["shape"])), backend), {})
            line[column] = f"{wall} ({device})"
    head = ["B×I→O", "back end"]
    head += [f"{'fwd+bwd' if what == BACKWARD else 'fwd'} {name}" for what, name in columns]
    return [
        head,
        *([*key, *(line.get(one, "–") for one in columns)] for key, line in cells.items()),
    ]


def _accuracy_table(results: Results) -> list[list[str]]:
    return [
        ["task", "precision", "", "output", "gradients"],
        *(
            [row["task"], row["precision"], row["contender"]]
            + [f"{row[what]:.1e}" for what in ("output", "gradients")]
            for row in results["accuracy"]
        ),
    ]


def _sweeps_table(results: Results) -> list[list[str]]:
    found = results.get("sweeps", [])
    names = [name for row in found for name in row["steps_per_s"] if name != GRAPH]
    backends = list(dict.fromkeys(names))
    table = [["network, batch of 128", "runs", *backends, GRAPH]]
    table[0] += [f"{name}, times faster" for name in backends]
    for row in found:
        rates = row["steps_per_s"]
        cells = [f"{rates[name]:,.0f}" if name in rates else "–" for name in (*backends, GRAPH)]
        for name in backends:
            both = name in rates and GRAPH in rates
            cells.append(f"{rates[name] / rates[GRAPH]:,.1f}" if both else "–")
        table.append([row["network"], f"{row['runs']:,}", *cells])
    return table


def _sequences_table(results: Results) -> list[list[str]]:
    found = results.get("sequences", [])
    names = list(dict.fromkeys(name for row in found for name in row["ms"]))
    table = [["a forward with its backward", *(f"{name}, ms" for name in names)]]
    for row in found:
        cells = [f"{row['ms'][name]:,.3g}" if name in row["ms"] else "–" for name in names]
        table.append([row["what"], *cells])
    return table


SEQUENCES = (
    "Cells over whole sequences (`unroll`) beside a loop of their single calls, the formulas "
    "written plainly and torch.nn.RNN; and layers side by side (`units`) beside separate ones, the "
    "formulas under `torch.func.vmap` and by batched products, and one layer on all rows. Launches "
    "included."
)
SWEEPS = (
    "Whole trainings in one kernel (`nalu_kernels.sweep`): training steps of all runs a second, "
    "beside the same runs stacked under `torch.func.vmap`, each step captured as a CUDA graph."
)
WALL = (
    "Forward and backward (the input's gradient included) of a tied NALU in float32 "
    '"highest": median microseconds of a call, launches included, all interleaved in one run.'
)
DEVICE = (
    "The same without launches, as replays of a CUDA graph over tensors that were not in the "
    f"cache (the tiny ones were). {PRODUCTS.capitalize()} are what cuBLAS takes for three Linear "
    "layers. The roofline is what the launches would take at the GPU's peaks of memory and "
    "arithmetic (– where these are not known). The largest error is that of the output and the "
    "gradients against float64, relative to the tensor's largest number."
)
OTHER = "Everything else, times faster than eager (in brackets: on the device, without launches)."
ACCURACY = (
    "Largest errors against float64: of products relative to each product, of sums and gradients "
    "relative to the largest of the tensor."
)


def text(results: Results) -> str:
    skipped = results["skipped"]
    shown = [_machine(results), _gates(results)]
    for title, rows in (
        (WALL, _wall_table(results)),
        (DEVICE, _device_table(results)),
        (OTHER, _other_table(results)),
        (SWEEPS, _sweeps_table(results)),
        (SEQUENCES, _sequences_table(results)),
        (ACCURACY, _accuracy_table(results)),
    ):
        if len(rows) > 1:
            shown += ["", title, markdown.align(rows, left=2)]
    shown += ["", _verdict(results), _choice(results)] if results["cases"] else []
    if skipped:
        shown.append(f"Not measured, out of time: {', '.join(skipped)}")
    for failure in results["failures"]:
        shown.append(f"FAILED {failure['what']}: {failure['why'].partition(chr(10))[0]}")
    return "\n".join(shown)


def section(results: Results | None) -> str:
    """For docs/speed.md; ``None``: nothing has been measured."""
    if results is None:
        return NOT_YET
    _refuse_dry_run(results)
    shown = [f"{_machine(results)}. {_gates(results)}"]
    for title, rows in (
        (WALL, _wall_table(results)),
        (DEVICE, _device_table(results)),
        (OTHER, _other_table(results)),
        (SWEEPS, _sweeps_table(results)),
        (SEQUENCES, _sequences_table(results)),
    ):
        if len(rows) > 1:
            shown += [title, markdown.table(rows, left=2)]
    shown += [_verdict(results), _choice(results)]
    shown += results.get("notes", [])
    if results["failures"]:
        shown.append(f"Failed: {', '.join(one['what'] for one in results['failures'])}.")
    if results["skipped"]:
        shown.append(f"Not measured, out of time: {', '.join(results['skipped'])}.")
    return "\n\n".join(shown)


def summary(results: Results | None) -> str:
    """For the README: where it was measured, and how many times faster than eager."""
    if results is None:
        return NOT_YET
    _refuse_dry_run(results)
    times: dict[str, list[float]] = {}
    for row, backend in _rows(results, BACKWARD, HIGHEST):
        wall = row["times_faster"][backend]["wall"]
        if EAGER in wall:
            times.setdefault(backend, []).append(wall[EAGER])
    if not times:
        return f"On a GPU ({_machine(results)}) no speed has been measured yet."
    ranges = [f"{min(of):.2f} to {max(of):.2f} ({name})" for name, of in times.items()]
    gpu = results["machine"].get("gpu", "GPU")
    return (
        f"On an {gpu}, forward and backward in float32 are {' and '.join(ranges)} times as fast as "
        "eager PyTorch."
    )


def _refuse_dry_run(results: Results) -> None:
    if results["dry_run"]:
        raise ValueError("the results of a dry run are no figures of a GPU")
