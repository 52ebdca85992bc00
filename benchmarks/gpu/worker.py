"""The process that measures: the ids of units in, a line of JSON for each event out.

``{"begin": id}`` before a unit, then ``{"done": id, "result": …}`` or ``{"failed": id, "why": …}``.
It ends early, with status 3, when the device no longer answers; its parent starts another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from . import errors
from .cases import units
from .device import Device, choose
from .measure import describe, measure
from .verdict import record

ACCURACY = "accuracy"


def run(unit_id: str, device: Device) -> Any:
    if unit_id == ACCURACY:
        return errors.measure(device)
    (unit,) = (unit for unit in units(device.groups) if unit.id == unit_id)
    return record(measure(unit, device))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.worker")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("ids", nargs="+")
    chosen = parser.parse_args()
    # Whatever else prints, compilers among them, must not come between the lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    device = choose(chosen.dry_run)
    for unit_id in chosen.ids:
        print(json.dumps({"begin": unit_id}), file=lines)
        try:
            event = {"done": unit_id, "result": run(unit_id, device)}
        except Exception as error:  # reported, and the next unit goes on
            event = {"failed": unit_id, "why": describe(error)}
        print(json.dumps(event), file=lines)
        try:
            device.free()
            device.synchronize()
        except RuntimeError as error:
            print(f"the device does not answer any more: {describe(error)}", file=sys.stderr)
            sys.exit(3)


if __name__ == "__main__":
    main()
