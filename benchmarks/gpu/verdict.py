"""What the measurements of a unit mean: ratios, throughput, and whether they are as wanted."""

from __future__ import annotations

from typing import Any

from ..contenders import EAGER
from ..speed import summary
from ..timing import Samples, ratio
from .cases import GpuCase
from .measure import Measured
from .providers import AUTOTUNED, COMPILED, PRODUCTS, RIVALS
from .roofline import BACKEND

Row = dict[str, Any]


def _provider(measured: Measured, name: str) -> Row:
    found: Row = {
        "wall": summary(measured.wall[name]) if name in measured.wall else None,
        "device": summary(measured.replay[name]) if name in measured.replay else None,
        "peak_bytes": measured.peak_bytes.get(name),
        "errors": measured.errors.get(name, {}),
    }
    if found["device"] is not None:
        median_us = found["device"]["median_us"]
        found["tflops"] = float(f"{measured.unit.case.flops / median_us / 1e6:.4g}")
        if PRODUCTS in measured.replay:
            found["of_floor"] = round(ratio(measured.replay, name, PRODUCTS), 4)
    if name == BACKEND and measured.roofline is not None:
        found["roofline"] = measured.roofline._asdict()
        least = measured.roofline.seconds
        if found["device"] is not None and least:
            found["of_roofline"] = float(f"{found['device']['median_us'] / 1e6 / least:.4g}")
    return found


def _over(samples: Samples, name: str) -> dict[str, float]:
    """How many times faster than each rival."""
    if name not in samples:
        return {}
    return {rival: round(ratio(samples, rival, name), 4) for rival in RIVALS if rival in samples}


def _part(found: float | None, eager: float | None) -> float | None:
    return None if found is None or not eager else round(found / eager, 4)


def wanted(case: GpuCase, backend: Row, eager: Row, wall: dict[str, float]) -> list[Row]:
    """Each wanted figure, what was found and whether that meets it; None: not measured."""
    if case.wanted is None:
        return []
    want = case.wanted
    at_least = {EAGER: want.over_eager, COMPILED: want.over_compile, AUTOTUNED: want.over_compile}
    rows: list[Row] = [
        {"what": f"times faster than {rival}", "wanted": least, "found": wall.get(rival)}
        | {"met": wall[rival] >= least if rival in wall else None}
        for rival, least in at_least.items()
    ]
    error, eagers = (max(one["errors"].values(), default=None) for one in (backend, eager))
    memory = _part(backend["peak_bytes"], eager["peak_bytes"])
    for what, at_most, part in (
        ("error, as a part of eager's", want.error, _part(error, eagers)),
        ("peak memory, as a part of eager's", want.memory, memory),
    ):
        met = None if part is None else part <= at_most
        rows.append({"what": what, "wanted": at_most, "found": part, "met": met})
    return rows


def record(measured: Measured) -> Row:
    """A unit's row in the results file."""
    unit = measured.unit
    case = unit.case
    providers = {name: _provider(measured, name) for name in measured.errors}
    others = {*RIVALS, PRODUCTS}
    over: Row = {}
    for name in providers:
        if name not in others:
            wall = _over(measured.wall, name)
            over[name] = {"wall": wall, "device": _over(measured.replay, name)}
            if EAGER in providers:
                over[name]["wanted"] = wanted(case, providers[name], providers[EAGER], wall)
    return {
        "group": case.group.name,
        "shape": list(case.shape),
        "what": case.what,
        "precision": case.precision,
        "sets": measured.sets,
        "set_bytes": measured.set_bytes,
        "providers": providers,
        "times_faster": over,
        "failed": measured.failed,
    }


def merge(row: Row, autotuned: Row) -> Row:
    """``row`` with what the case's second unit, against max-autotune, adds to it."""
    merged = row | {"providers": dict(row["providers"]), "times_faster": {}}
    if AUTOTUNED in autotuned["providers"]:
        merged["providers"][AUTOTUNED] = autotuned["providers"][AUTOTUNED]
    for name, found in row["times_faster"].items():
        added = autotuned["times_faster"].get(name, {})
        judged = {one["what"]: one for one in found.get("wanted", [])}
        for one in added.get("wanted", []):
            if one["what"].endswith(AUTOTUNED):
                judged[one["what"]] = one
        merged["times_faster"][name] = {
            "wall": added.get("wall", {}) | found["wall"],
            "device": added.get("device", {}) | found["device"],
            "wanted": list(judged.values()),
        }
    merged["failed"] = autotuned["failed"] | row["failed"]
    return merged
