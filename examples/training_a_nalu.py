"""How to train a NALU: what each setting changes, on 100 seeds, for docs/training_a_nalu.md.

    python examples/training_a_nalu.py                measures, in two minutes on one core
    python examples/training_a_nalu.py --page PAGE    puts the tables into the page

A NALU of 2 inputs and 1 output learns a + b, a - b, a * b, a / b or sqrt(a), from batches of 64
that are uniform on [1, 2], and is tested on [2, 6]. A seed has solved a task if at the end its mean
absolute error there is below 2 % of the targets' mean size. First a grid of settings is tried on
seeds that are used for nothing else, and the one that solves most is chosen. Then one thing at a
time is changed about it, on seeds 0 to 99. Last, a NALU stands behind a ReLU, untrained.

All seeds of a setting are trained at once, as docs/many_seeds.md explains. Each has initial weights
and batches of its own, which do not depend on the other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from nalu_kernels import NAC, NALU

RESULTS = Path(__file__).parent / "results" / "training_a_nalu" / "measured.json"
TASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "a + b": lambda x: x[..., :1] + x[..., 1:],
    "a - b": lambda x: x[..., :1] - x[..., 1:],
    "a * b": lambda x: x[..., :1] * x[..., 1:],
    "a / b": lambda x: x[..., :1] / x[..., 1:],
    "sqrt(a)": lambda x: x[..., :1].abs().sqrt(),
}
SEEDS, TUNING = range(100), range(1000, 1050)
BATCH, SAMPLES, SOLVED = 64, 1000, 0.02
CHUNK = 50  # steps whose batches are drawn at once, and between two tests
BY = (100, 200, 400, 600, 2000)  # steps at which the seeds are counted that have solved the task

SCHEDULES: dict[str, Callable[[float], float]] = {  # of the progress from 0 to 1
    "constant": lambda progress: 1.0,
    "falls": lambda progress: min(1.0, (1 - progress) / 0.3),
    "rises": lambda progress: float(10 ** (2 * min(1.0, progress / 0.7) - 2)),
    "rises and falls": lambda progress: 1 - abs(2 * progress - 1),
}


class Setting(NamedTuple):
    """``start``: W_hat and M_hat are uniform on (-start, start); 0 keeps the layer's own range."""

    rate: float = 0.1
    loss: str = "absolute"
    start: float = 1.0
    beta2: float = 0.999
    schedule: str = "constant"
    clip: float = math.inf
    layer: str = "NALU"
    eps: float = 1e-7
    tied: bool = True
    gate_bias: bool = False
    inside: tuple[float, float] = (1.0, 2.0)
    outside: tuple[float, float] = (2.0, 6.0)
    steps: int = 600


GRID = {"rate": (0.001, 0.01, 0.1), "loss": ("squared", "absolute"), "start": (0.0, 1.0)}
SIGNED: dict[str, Any] = {"inside": (-2.0, 2.0), "outside": (-6.0, 6.0)}
CHANGES: dict[str, dict[str, Any]] = {
    "as recommended": {},
    "2,000 steps": {"steps": 2000},
    "rate 0.01": {"rate": 0.01},
    "rate 0.01, 2,000 steps": {"rate": 0.01, "steps": 2000},
    "squared error": {"loss": "squared"},
    "squared error, rate 0.01": {"loss": "squared", "rate": 0.01},
    "the layer's own start": {"start": 0.0},
    "the layer's own start, squared error, rate 0.01": {
        "start": 0.0,
        "loss": "squared",
        "rate": 0.01,
    },
    "β₂ 0.95": {"beta2": 0.95},
    "rate falls in the end": {"schedule": "falls"},
    "rate rises": {"schedule": "rises"},
    "rate rises and falls": {"schedule": "rises and falls"},
    "gradients clipped at norm 1": {"clip": 1.0},
    "ε 0.01": {"eps": 0.01},
    "untied": {"tied": False},
    "a NAC in its place": {"layer": "NAC"},
    "gate with a bias": {"gate_bias": True},
    "trained on [0, 1], tested on [1, 5]": {"inside": (0.0, 1.0), "outside": (1.0, 5.0)},
    "trained on [1, 10], tested on [10, 50]": {"inside": (1.0, 10.0), "outside": (10.0, 50.0)},
    "trained on [-2, 2], tested on [-6, 6]": SIGNED,
    "trained on [-2, 2], tested on [-6, 6], gate with a bias": {**SIGNED, "gate_bias": True},
}
WIDTHS = (2, 8, 32, 128)
REMEDIES: dict[str, tuple[float, Callable[[NALU], object]]] = {  # eps, and a change of the start
    "as it starts": (1e-7, lambda layer: None),
    "ε 0.01": (0.01, lambda layer: None),
    "no weight negative": (1e-7, lambda layer: layer.W_hat.abs_()),
}


def layer_of(seed: int, setting: Setting) -> NAC | NALU:
    torch.manual_seed(seed)
    layer: NAC | NALU = (
        NAC(2, 1)
        if setting.layer == "NAC"
        else NALU(2, 1, eps=setting.eps, tied=setting.tied, gate_bias=setting.gate_bias)
    )
    if setting.start:
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if "hat" in name:
                    parameter.uniform_(-setting.start, setting.start)
    return layer


def uniform(source: torch.Generator, shape: tuple[int, ...], ends: tuple[float, float]) -> Tensor:
    return torch.rand(shape, generator=source) * (ends[1] - ends[0]) + ends[0]


def clip(parameters: Sequence[Tensor], norm: float) -> None:
    """Each seed's gradient by its own norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([grad.flatten(1).square().sum(1) for grad in gradients]).sum(0).sqrt()
    factors = (norm / norms).clamp(max=1)
    for grad in gradients:
        grad.mul_(factors.view(-1, *[1] * (grad.dim() - 1)))


class Runs(NamedTuple):
    """Of each task and seed. ``error``: outside, as a part of the targets' mean size; ``since``:
    the step since which that has been a solution's, infinity if it is none."""

    error: Tensor
    since: Tensor


def targets(x: Tensor) -> Tensor:
    """Of each task."""
    return torch.stack([target(x) for target in TASKS.values()])


def train(setting: Setting, seeds: Sequence[int]) -> Runs:
    """All tasks and seeds at once; a seed's initial weights and batches are those of all tasks."""
    layers = [layer_of(seed, setting) for seed in seeds]
    stacked, _ = stack_module_state(layers * len(TASKS))
    parameters = {name: p.detach().requires_grad_() for name, p in stacked.items()}
    optimizer = torch.optim.Adam(parameters.values(), betas=(0.9, setting.beta2), fused=True)
    each = vmap(lambda own, x: functional_call(layers[0], own, (x,)))
    test = uniform(torch.Generator().manual_seed(2**40), (1, SAMPLES, 2), setting.outside)

    def answers(x: Tensor) -> Tensor:
        """From (seeds, batch, 2) to (tasks, seeds, batch, 1)."""
        found: Tensor = each(parameters, x.repeat(len(TASKS), 1, 1))
        return found.unflatten(0, (len(TASKS), -1))

    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    error = since = torch.full((len(TASKS), len(seeds)), math.inf)
    for step in range(setting.steps):
        if step % CHUNK == 0:
            shape = (CHUNK, BATCH, 2)
            batches = torch.stack([uniform(own, shape, setting.inside) for own in sources], 1)
        x = batches[step % CHUNK]
        off = (answers(x) - targets(x)).abs()
        # Of the sum over seeds, each seed's gradient is that of its own mean.
        loss = (off if setting.loss == "absolute" else off.square()).mean((2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        clip(list(parameters.values()), setting.clip)
        progress = (step + 0.5) / setting.steps
        optimizer.param_groups[0]["lr"] = setting.rate * SCHEDULES[setting.schedule](progress)
        optimizer.step()
        if (step + 1) % CHUNK == 0:
            with torch.no_grad():
                off = (answers(test.expand(len(seeds), -1, -1)) - targets(test)).abs()
            error = off.mean((2, 3)) / targets(test).abs().mean((1, 2, 3))[:, None]
            since = torch.where(error < SOLVED, since.clamp(max=step + 1), math.inf)
    return Runs(error, since)


def measure(setting: Setting, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Of each task how many seeds solve it, by which step, and the median error."""
    runs = train(setting, seeds)
    return {
        task: {
            "solved": int(since.isfinite().sum()),
            "error": float(f"{median(error.tolist()):.3g}"),
            "by": {str(step): int((since <= step).sum()) for step in BY if step <= setting.steps},
        }
        for task, error, since in zip(TASKS, *runs, strict=True)
    }


def median(errors: Sequence[float]) -> float:
    """A seed without a number is as bad as can be."""
    return statistics.median(math.inf if math.isnan(error) else error for error in errors)


def choose() -> tuple[Setting, list[dict[str, Any]]]:
    """The setting of the grid that solves most, all tasks together, and what each solves."""
    tried: list[dict[str, Any]] = []
    for values in itertools.product(*GRID.values()):
        options: dict[str, Any] = dict(zip(GRID, values, strict=True))
        setting = Setting(**options)
        rows = measure(setting, TUNING)
        tried.append({**options, "solved": {task: row["solved"] for task, row in rows.items()}})
        print(tried[-1], flush=True)
    best = max(tried, key=lambda row: sum(row["solved"].values()))
    return Setting(**{name: best[name] for name in GRID}), tried


def behind_a_relu(width: int, eps: float, change: Callable[[NALU], object]) -> dict[str, Any]:
    """Of 100 seeds, how many start with an output above 1e6, of 64 rows of normal inputs."""
    largest = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        layer = NALU(width, 1, eps=eps)
        model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), layer)
        with torch.no_grad():
            change(layer)
            largest.append(float(model(torch.randn(BATCH, 8)).abs().max()))
    return {
        "above": sum(not size <= 1e6 for size in largest),
        "median": float(f"{median(largest):.3g}"),
    }


def measured() -> dict[str, Any]:
    recommended, tried = choose()
    changes: dict[str, dict[str, Any]] = {}
    for name, change in CHANGES.items():
        setting = recommended._replace(**change)
        changes[name] = measure(setting, SEEDS)
        print(name, {task: row["solved"] for task, row in changes[name].items()}, flush=True)
    relu = {
        remedy: {str(width): behind_a_relu(width, *how) for width in WIDTHS}
        for remedy, how in REMEDIES.items()
    }
    return {
        "torch": torch.__version__,
        "recommended": recommended._asdict(),
        "tried": tried,
        "changes": changes,
        "relu": relu,
    }


def wilson(successes: int, total: int) -> str:
    """For example "31 (23 to 41)": Wilson's 95 % interval of the percentage."""
    z, rate = statistics.NormalDist().inv_cdf(0.975), successes / total
    middle = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    low, high = ((middle + sign * reach) / (1 + z * z / total) for sign in (-1, 1))
    return f"{successes} ({100 * max(low, 0):.0f} to {100 * min(high, 1):.0f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def sections(found: dict[str, Any]) -> dict[str, str]:
    """The page's tables."""
    changes = found["changes"]
    tasks = list(TASKS)
    solved = [["changed", *(f"`{task}`" for task in tasks)]]
    errors = [list(solved[0])]
    for name, rows in changes.items():
        solved.append([name, *(wilson(rows[task]["solved"], len(SEEDS)) for task in tasks)])
        errors.append([name, *(f"{rows[task]['error']:.2g}" for task in tasks)])
    tried = [["rate", "loss", "start", *(f"`{task}`" for task in tasks), "all"]]
    for row in found["tried"]:
        start = f"±{row['start']:g}" if row["start"] else "the layer's own"
        counts = [row["solved"][task] for task in tasks]
        cells = [f"{row['rate']:g}", row["loss"], start, *map(str, counts), str(sum(counts))]
        tried.append(cells)
    soon = [["solved by step", *map(str, BY)]]
    for task in tasks:
        soon.append([f"`{task}`", *map(str, changes["2,000 steps"][task]["by"].values())])
    relu = [["starts above 1e6, of 100 seeds (median)", *(f"width {width}" for width in WIDTHS)]]
    for remedy, row in found["relu"].items():
        cells = [
            f"{row[str(width)]['above']} ({row[str(width)]['median']:.2g})" for width in WIDTHS
        ]
        relu.append([remedy, *cells])
    tables = {"solved": solved, "error": errors, "tried": tried, "soon": soon, "relu": relu}
    return {name: markdown(rows) for name, rows in tables.items()}


def with_sections(document: str, tables: dict[str, str]) -> str:
    """The document with what stands between the markers of each table replaced."""
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        document, count = re.subn(pattern, rf"\g<1>{table}\n\g<2>", document, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"expected one section {name!r}, found {count}")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=Path, help="put the measured tables there, measure nothing")
    page = parser.parse_args().page
    if page is None:
        torch.set_num_threads(1)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(measured(), indent=1, ensure_ascii=False) + "\n")
        print(f"written to {RESULTS}")
    else:
        tables = sections(json.loads(RESULTS.read_text(encoding="utf-8")))
        document = page.read_text(encoding="utf-8")
        page.write_text(with_sections(document, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
