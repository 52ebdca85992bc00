"""The folder of a sweep: what it was, where its runs stand, and tables for others to read.

``spec.json`` says what is trained and with which versions. ``checkpoint.safetensors`` is where the
runs stand, all that going on and :func:`load` need. ``runs.parquet``, ``curves.parquet`` and
``weights.safetensors`` are made of it whenever a call ends. Each file is written beside its place
and then renamed, so that it is always whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import native
from .extras import optional
from .lock import lock
from .result import Result
from .runs import Runs
from .specification import Specification, hash_of, plain
from .stack import Stack
from .state import State
from .tasks import Exponential, Normal

FORMAT = 3
SPEC, CHECKPOINT = "spec.json", "checkpoint.safetensors"
RUNS, CURVES, WEIGHTS = "runs.parquet", "curves.parquet", "weights.safetensors"
_OF_THE_SLICE = ("rows", "columns", "index", "thresholds", "initial")  # may differ between shards


class Store:
    """The folder ``out`` of one call.

    Raises:
        ImportError: pyarrow or safetensors is missing.
        OSError: the folder cannot be written to, or is full.
        RuntimeError: another process is at work there.
        ValueError: it has results of another specification, or a damaged file.
    """

    def __init__(self, folder: Path, specification: Specification) -> None:
        for module in ("pyarrow.parquet", "safetensors.torch"):
            optional(module, "out")
        self.folder, self._specification = folder, specification
        described = specification.describe()
        self._spec: dict[str, Any]
        self._spec = {"format": FORMAT, "specification": described, "sessions": []}
        self._number = _number(described)
        if (folder / SPEC).exists():
            self._go_on()
        elif there := [name for name in (CHECKPOINT, RUNS, WEIGHTS) if (folder / name).exists()]:
            raise ValueError(
                f"out: {folder} has {', '.join(there)}, but no {SPEC} that says of what"
            )

    def _go_on(self) -> None:
        found = _read_spec(self.folder)
        wanted = self._spec["specification"]
        differs = _differences(found["specification"], json.loads(json.dumps(wanted)))
        if differs:
            raise ValueError(
                f"out: {self.folder} has a sweep of another specification: {'; '.join(differs)}; "
                "choose another folder"
            )
        self._spec = found

    def begin(self, session: dict[str, Any]) -> State:
        """Where the runs stand; the folder has all its files from now on."""
        path = self.folder / CHECKPOINT
        state = _read_checkpoint(path, self._number) if path.exists() else None
        here = {
            "nalu_kernels": _version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        if session["backend"] == "cpu":
            here["cpu_capability"] = native.cpu_capability()
        self._spec["sessions"].append({**session, **here})
        text = json.dumps(self._spec, indent=1)
        _replace(self.folder / SPEC, text.encode())
        if state is None:
            state = self._specification.begin()
            self.save(state)
            self.export(state)
        return state

    def save(self, state: State) -> None:
        """Where the runs stand now."""
        tensors = state.tensors()
        metadata = {"specification": self._number, "digest": _digest(tensors)}
        written = optional("safetensors.torch", "out").save(tensors, metadata)
        _replace(self.folder / CHECKPOINT, written)

    def export(self, state: State) -> None:
        """Tables and weights for others to read."""
        of = self._specification
        result = Result(of.stack, of.columns.table, state, of.steps, of.test_every, of.stop)
        arrow = optional("pyarrow", "out")
        _write_table(self.folder / RUNS, {"run": result._table.index, **result.columns()})
        curves = {name: arrow.array(_list(t)) for name, t in result.curve_columns().items()}
        _write_parquet(self.folder / CURVES, arrow.table(curves))
        weights = {
            f"{which}.{name}": value.contiguous()
            for which in ("best", "last")
            for name, value in result.modules(which)[0].items()
        }
        _replace(self.folder / WEIGHTS, optional("safetensors.torch", "out").save(weights))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made if needed, for this process alone.

    Raises:
        OSError: it cannot be made, or not be written to.
        RuntimeError: another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise type(error)(
            error.errno, f"out: cannot write to {folder}: {error.strerror}"
        ) from error
    try:
        try:
            lock(handle)
        except BlockingIOError as error:
            raise RuntimeError(f"out: another process is at work in {folder}") from error
        yield
    finally:
        os.close(handle)


def load(folder: str | os.PathLike[str]) -> Result:
    """The result that a call with ``out=folder`` has left, or has reached so far.

    Raises:
        ImportError: pyarrow or safetensors is missing.
        FileNotFoundError: it has no results.
        ValueError: a file is damaged; it is named.
    """
    return _load(Path(folder).expanduser())[1]


def _load(folder: Path) -> tuple[dict[str, Any], Result]:
    spec = _read_spec(folder)
    of = spec["specification"]
    state = _read_checkpoint(folder / CHECKPOINT, _number(of))
    columns = _read_table(folder / RUNS)
    for name, recorded in {**of["columns"], "run": of["index"]}.items():
        if hash_of(columns.get(name, [])) != recorded:
            raise _damaged(folder / RUNS, f"it belongs to another {SPEC}")
    table = Runs({name: columns[name] for name in of["columns"]}, columns["run"])
    stack = Stack.of(of["stack"])
    return of, Result(stack, table, state, of["steps"], of["test_every"], of["stop"])


def join(folders: Iterable[str | os.PathLike[str]]) -> Result:
    """The results of several folders as one, for runs that were trained in slices.

    Rows are in the order of their labels where no two have the same (slices of one table, such as
    ``runs[i::n]``), else in that of the folders, with new labels.

    Raises:
        TypeError: a folder, not a list of them.
        ValueError: folders of different specifications, or that have a run in common; and as
            :func:`load`.
    """
    if isinstance(folders, (str, os.PathLike)):
        raise TypeError(f"folders: expected a list of folders, got {folders!r}")
    folders = list(folders)
    loaded = [_load(Path(folder).expanduser()) for folder in folders]
    if not loaded:
        raise ValueError("folders: expected at least one")
    first, result = loaded[0]
    for folder, (of, _) in zip(folders, loaded, strict=True):
        wanted = {key: value for key, value in first.items() if key not in _OF_THE_SLICE}
        differs = _differences(wanted, {key: of[key] for key in wanted})
        if list(of["columns"]) != list(first["columns"]):
            differs.append(f"columns {list(first['columns'])} and {list(of['columns'])}")
        if differs:
            raise ValueError(f"folders: {folders[0]} and {folder} differ: {'; '.join(differs)}")
    tables = [part._table for _, part in loaded]
    index = [label for table in tables for label in table.index]
    columns = {
        name: [value for table in tables for value in table[name]] for name in tables[0].columns
    }
    parts = [part._state.tensors() for _, part in loaded]
    state = State(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    if len(set(index)) < len(index):  # not slices of one table
        _check_apart(folders, tables)
        index = list(range(len(index)))
    order = sorted(range(len(index)), key=index.__getitem__)
    joined = Runs(
        {name: [column[k] for k in order] for name, column in columns.items()},
        [index[k] for k in order],
    )
    ordered = state.rows(torch.tensor(order))
    steps, every, stop = (first[name] for name in ("steps", "test_every", "stop"))
    return Result(result._stack, joined, ordered, steps, every, stop)


def _check_apart(folders: list[Any], tables: list[Runs]) -> None:
    known: dict[str, Any] = {}
    for folder, table in zip(folders, tables, strict=True):
        rows = {
            ", ".join(f"{name} {value}" for name, value in table.row(number).items())
            for number in range(len(table))
        }
        for row in sorted(rows & known.keys()):
            raise ValueError(f"folders: {known[row]} and {folder} have the same run, {row}")
        known |= dict.fromkeys(rows, folder)


def _version() -> str:
    from .. import __version__

    return __version__


def _read_spec(folder: Path) -> dict[str, Any]:
    path = folder / SPEC
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has no results of a sweep: no {SPEC}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(spec, dict) or not {"format", "specification", "sessions"} <= spec.keys():
        raise ValueError(f"{path} is damaged: not the specification of a sweep")
    if spec["format"] != FORMAT:
        raise ValueError(f"{path}: of format {spec['format']}, this version reads {FORMAT}")
    return spec


def _read_checkpoint(path: Path, number: str) -> State:
    safetensors = optional("safetensors", "results in a folder")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except safetensors.SafetensorError as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("digest") != _digest(tensors):
        raise _damaged(path, "its numbers are not those that were written")
    if metadata.get("specification") != number:
        raise _damaged(path, f"it belongs to another {SPEC}")
    return State(**tensors)


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {why}; put back a copy, or remove {path.parent} to begin anew"
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update((ctypes.c_char * value.nbytes).from_address(value.data_ptr()))
    return digest.hexdigest()


def _number(specification: Mapping[str, Any]) -> str:
    """By which a checkpoint knows what it is of."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> list[str]:
    """Where two descriptions differ, in words."""
    said = []
    for key in dict.fromkeys((*found, *wanted)):
        there, here = found.get(key), wanted.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            said += _differences(there, here, f"{path}{key}.")
        elif there != here:
            said.append(f"{path}{key} is {there!r} there, {here!r} here")
    return said


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; OSError names it."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, f"out: cannot write {path}: {error.strerror}") from error


def _list(tensor: Tensor) -> Any:
    return tensor.numpy() if _has_numpy() else tensor.tolist()


def _has_numpy() -> bool:
    try:
        torch.empty(0).numpy()
    except RuntimeError:
        return False
    return True


def _write_parquet(path: Path, table: Any) -> None:
    arrow = optional("pyarrow", "out")
    sink = arrow.BufferOutputStream()
    optional("pyarrow.parquet", "out").write_table(table, sink)
    _replace(path, sink.getvalue().to_pybytes())


def _write_table(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """Columns that Parquet has no type for, of several kinds too, are JSON."""
    arrow = optional("pyarrow", "out")
    arrays, encoded = {}, []
    for name, column in columns.items():
        kinds = {type(value) for value in column} - {type(None)}
        if len(kinds) <= 1 and kinds <= {bool, int, float, str}:
            arrays[name] = arrow.array(column, from_pandas=False)
        else:
            encoded.append(name)
            arrays[name] = arrow.array([json.dumps(plain(value)) for value in column])
    table = arrow.table(arrays).replace_schema_metadata({"json": json.dumps(encoded)})
    _write_parquet(path, table)


def _read_table(path: Path) -> dict[str, list[Any]]:
    arrow, parquet = (
        optional(module, "results in a folder") for module in ("pyarrow", "pyarrow.parquet")
    )
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    encoded = json.loads((table.schema.metadata or {}).get(b"json", b"[]"))
    columns: dict[str, list[Any]] = table.to_pydict()
    for name in encoded:
        columns[name] = [_tuples(json.loads(text)) for text in columns[name]]
    return columns


def _tuples(value: Any) -> Any:
    """As the user wrote it: tuples, Normal and Exponential."""
    if isinstance(value, dict):
        if "exponential" in value:
            return Exponential(value["exponential"])
        mean, std, low, high = value["normal"]
        infinite = float("inf")
        low, high = -infinite if low is None else low, infinite if high is None else high
        return Normal(mean, std, low, high)
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
