"""The folder of a run: results.json with every finished trial, and checkpoints of the others.

results.json is written anew, in one piece, whenever a trial has finished, so that whatever ends the
run, what had finished is there. A run goes on where its folder was left if everything recorded
about it is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nalu_kernels.sweep.lock import lock

from .experiment import Finished, Outcome, Trial
from .refusal import Refusal
from .report import finite, write_json

# What has to be the same for a run to go on in a folder. More seeds are only more trials.
_SAME = ("experiment", "nalu_kernels", "torch", "backend", "device", "full", "steps", "options")


def writable_folder(folder: Path) -> Path:
    """``folder``, made if needed; Refusal if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise Refusal(f"--out {folder}: expected a folder, got a file") from error
    except OSError as error:
        raise Refusal(f"--out {folder}: cannot write there: {error.strerror}") from error
    return folder


def read(path: Path) -> dict[str, Any]:
    """What results.json at ``path`` has; Refusal if it is not one."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise Refusal(
            f"{path}: not JSON, so not the results of a run: {error}; remove it, or "
            "choose another --out"
        ) from error
    if not isinstance(recorded, dict) or not {*_SAME, "seeds", "trials"} <= recorded.keys():
        raise Refusal(f"{path}: not the results of a run")
    wanted = {*Trial._fields, "seconds"}
    if not all(isinstance(row, dict) and wanted <= row.keys() for row in recorded["trials"]):
        raise Refusal(f"{path}: not the results of a run: a trial lacks one of {sorted(wanted)}")
    recorded["trials"] = finite(recorded["trials"])
    return recorded


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refusal if another run is at work in ``folder``: each would overwrite what another finds."""
    if os.name == "nt":  # which opens no folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            lock(handle)
        except BlockingIOError as error:
            raise Refusal(f"--out {folder}: another run is at work there") from error
        yield
    finally:
        os.close(handle)


class Store:
    """Of one run: ``recorded`` is what is said of it, ``trials`` all that it consists of.

    Raises:
        Refusal: the folder holds the results of another run, and ``fresh`` does not say that they
            may go.
    """

    def __init__(
        self, folder: Path, recorded: dict[str, Any], trials: list[Trial], *, fresh: bool
    ) -> None:
        self.path = folder / "results.json"
        self._checkpoints = folder / "checkpoints"
        self._recorded = recorded
        self._trials = trials
        self._rows: dict[Trial, dict[str, Any]] = {}
        if fresh:
            self._forget_checkpoints()
        elif self.path.exists():
            self._go_on(read(self.path))
        self.save()

    def _go_on(self, found: dict[str, Any]) -> None:
        for key in _SAME:
            # through JSON: a tuple comes back as a list
            wanted = json.loads(json.dumps(self._recorded[key]))
            if found[key] != wanted:
                raise Refusal(
                    f"{self.path} holds another run, with {key} {found[key]!r} instead of "
                    f"{wanted!r}: choose another --out, or --fresh to lose it"
                )
        for row in found["trials"]:
            self._rows[Trial(row["model"], row["task"], row["seed"])] = row
        if more := self._rows.keys() - self._trials:
            held = f"{found['seeds']} seeds, more than the {self._recorded['seeds']} asked for"
            if found["seeds"] <= self._recorded["seeds"]:
                model, task, _ = min(more)
                held = f"more than is asked for, such as {model} on {task}"
            raise Refusal(
                f"{self.path} holds {held}: ask for as much, choose another --out, or --fresh to "
                "lose them"
            )

    def to_do(self) -> list[Trial]:
        return [trial for trial in self._trials if trial not in self._rows]

    def finished(self) -> int:
        """How many trials have."""
        return len(self._rows)

    def checkpoint(self, trial: Trial) -> Path:
        """Its file, of another name in another run."""
        key = json.dumps([*trial, *(self._recorded[key] for key in _SAME)])
        return self._checkpoints / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"

    def add(self, *finished: Finished) -> None:
        """Records finished trials."""
        for trial, seconds, numbers in finished:
            self._rows[trial] = {**trial._asdict(), "seconds": seconds, **finite(numbers)}
        self.save()
        for trial, _, _ in finished:
            self.checkpoint(trial).unlink(missing_ok=True)

    def finish(self, claims: list[str]) -> None:
        """Records what all the numbers say."""
        self._recorded["claims"] = claims
        self.save()
        self._forget_checkpoints()

    def outcome(self) -> Outcome:
        rows = [self._rows[trial] for trial in self._trials if trial in self._rows]
        return Outcome({**self._recorded, "trials": rows})

    def _forget_checkpoints(self) -> None:
        """Those of this run; what else is in the folder stays."""
        for trial in self._trials:
            self.checkpoint(trial).unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            self._checkpoints.rmdir()

    def save(self) -> None:
        """Writes all that is finished.

        Raises:
            Refusal: it cannot be written; what was there before still is.
        """
        try:
            write_json(self.path, self.outcome().recorded)
        except OSError as error:
            raise Refusal(
                f"{self.path}: cannot write: {error.strerror}; it holds what had finished before"
            ) from error
