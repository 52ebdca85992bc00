"""Steps of training a second: whole trainings in one kernel against everything else.

    python -m benchmarks.sweep      measures, prints the table, writes results/sweep.json
    python -m benchmarks.sweep --scale      measures and writes what scale.py says, instead
    python -m benchmarks.sweep --instructions      the same for instructions.py

A step draws a fresh batch of 128, and takes the forward, the mean squared error, the backward and
Adam. All contenders do it for one run; those that train a stack of runs at once are given as many
as suit them, and count each. One thread each.

- eager: the plain formulas in PyTorch, a run at a time, with torch.optim.Adam
- library: the same with this library's layers
- vmap: 64 runs stacked under torch.func.vmap, with Adam's foreach form
- JAX: jit(vmap(scan)) of the same formulas with the same Adam, at the best of 1, 64 and 256 runs;
  left out where JAX is not installed
- sweep: ``nalu_kernels.sweep.run`` on the back end "cpu", tests every 1,000 steps included
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from nalu_kernels import NAC, NALU, NAU, NMU, sweep, use_backend

from . import instructions, machine, markdown, scale

RESULTS = Path(__file__).parent / "results" / "sweep.json"
BATCH, RATE, STACKED = 128, 1e-3, 64
ROUNDS = 7
EAGER, LIBRARY, VMAP, JAX, SWEEP = "eager", "library", "vmap", "JAX", "sweep"
Results = dict[str, Any]


class Network(NamedTuple):
    """The task is a * b where the last layer is an NMU, else a + b."""

    layers: tuple[type[nn.Module], ...]
    features: tuple[int, ...]

    @property
    def name(self) -> str:
        kinds = dict.fromkeys(layer.__name__ for layer in self.layers)
        return f"{', '.join(kinds)} {'→'.join(map(str, self.features))}"

    def module(self) -> nn.Module:
        sizes = zip(self.layers, self.features, self.features[1:], strict=False)
        return nn.Sequential(*(layer(first, last) for layer, first, last in sizes))

    @property
    def task(self) -> sweep.Arithmetic:
        operation = "a * b" if self.layers[-1] is NMU else "a + b"
        return sweep.Arithmetic(operation, in_features=self.features[0])

    def target(self, x: Any) -> Any:
        """Of a batch in either framework."""
        if self.features[0] == 2:
            a, b = x[..., :1], x[..., 1:]
        else:
            a, b = x[..., 10:35].sum(-1)[..., None], x[..., 23:48].sum(-1)[..., None]
        return a * b if self.layers[-1] is NMU else a + b


NETWORKS = (
    Network((NALU,), (2, 1)),
    Network((NAC,), (2, 1)),
    Network((NALU, NALU), (100, 2, 1)),
    Network((NAC, NAC), (100, 2, 1)),
    Network((NMU,), (2, 1)),
    Network((NAU, NMU), (100, 2, 1)),
)
Contender = Callable[[int], int]  # trains for so many steps; how many steps of one run it did


def one_at_a_time(network: Network, backend: str) -> Contender:
    model = network.module()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def train(steps: int) -> int:
        with use_backend(backend):
            for _ in range(steps):
                x = 1 + torch.rand(BATCH, network.features[0])
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), network.target(x)).backward()
                optimizer.step()
        return steps

    return train


def stacked(network: Network) -> Contender:
    models = [network.module() for _ in range(STACKED)]
    parameters = {
        name: p.detach().requires_grad_() for name, p in stack_module_state(models)[0].items()
    }
    optimizer = torch.optim.Adam(parameters.values(), lr=RATE, foreach=True)

    def loss(own: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(functional_call(models[0], own, (x,)), target)

    def train(steps: int) -> int:
        for _ in range(steps):
            x = 1 + torch.rand(STACKED, BATCH, network.features[0])
            optimizer.zero_grad()
            vmap(loss)(parameters, x, network.target(x)).sum().backward()
            optimizer.step()
        return steps * STACKED

    return train


def in_one_kernel(network: Network) -> Contender:
    stack, task = network.module(), network.task

    def train(steps: int) -> int:
        runs = {"seed": [0], "lr": [RATE]}
        sweep.run(stack, task, runs, steps=steps, backend="cpu", threads=1, quiet=True)
        return steps

    return train


def by_jax(network: Network, runs: int) -> Contender:
    import jax
    import jax.numpy as jnp

    eps = 1e-7
    state, _ = stack_module_state([network.module() for _ in range(runs)])
    begin = {name: jnp.asarray(value.detach().numpy()) for name, value in state.items()}

    def forward(p: Any, x: Any) -> Any:
        for i, layer in enumerate(network.layers):
            if layer is NAU:
                x = x @ jnp.clip(p[f"{i}.W"], -1, 1).T
                continue
            if layer is NMU:
                W = p[f"{i}.W"]
                x = (W * x[..., None, :] + 1 - W).prod(-1)
                continue
            W = jnp.tanh(p[f"{i}.W_hat"]) * jax.nn.sigmoid(p[f"{i}.M_hat"])
            a = x @ W.T
            if layer is NALU:
                m = jnp.exp(jnp.log(jnp.abs(x) + eps) @ W.T)
                g = jax.nn.sigmoid(x @ p[f"{i}.G"].T)
                a = g * a + (1 - g) * m
            x = a
        return x

    def loss(p: Any, x: Any) -> Any:
        return jnp.mean((forward(p, x) - network.target(x)) ** 2)

    def step(carry: Any, t: Any) -> tuple[Any, None]:
        p, m, v, key = carry
        x = 1 + jax.random.uniform(jax.random.fold_in(key, t), (BATCH, network.features[0]))
        grad = jax.grad(loss)(p, x)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grad)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grad)
        first, second = 1 - 0.9 ** (t + 1.0), 1 - 0.999 ** (t + 1.0)
        p = jax.tree.map(
            lambda p, m, v: p - RATE * (m / first) / (jnp.sqrt(v / second) + 1e-8), p, m, v
        )
        return (p, m, v, key), None

    def whole(p: Any, key: Any, steps: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, p)
        return jax.lax.scan(step, (p, zeros, zeros, key), steps)[0][0]

    compiled = jax.jit(vmap_of(jax)(whole))
    keys = jax.random.split(jax.random.key(0), runs)

    def train(steps: int) -> int:
        jax.block_until_ready(compiled(begin, keys, jnp.arange(steps)))
        return steps * runs

    return train


def vmap_of(jax: Any) -> Any:
    return lambda function: jax.vmap(function, in_axes=(0, 0, None))


def contenders(network: Network) -> dict[str, Contender]:
    found = {
        EAGER: one_at_a_time(network, "reference"),
        LIBRARY: one_at_a_time(network, "cpu"),
        VMAP: stacked(network),
        SWEEP: in_one_kernel(network),
    }
    if importlib.util.find_spec("jax") is not None:
        for runs in (1, 64, 256):
            found[f"{JAX}, {runs} runs"] = by_jax(network, runs)
    return found


def microseconds(train: Contender, steps: int) -> float:
    """Processor time of a step of one run."""
    start = time.process_time()
    done = train(steps)
    return 1e6 * (time.process_time() - start) / done


def fitting(train: Contender, seconds: float) -> int:
    """How many steps take about so long, beside what a call takes whatever their number."""

    def took(steps: int) -> float:
        train(steps)  # JAX compiles anew for each number of them
        start = time.process_time()
        train(steps)
        return time.process_time() - start

    steps, before = 16, took(16)
    while True:
        after = took(4 * steps)
        if after - before > seconds / 2:
            return max(1, round(3 * steps * seconds / (after - before)))
        steps, before = 4 * steps, after


def measure(network: Network, seconds: float) -> Results:
    torch.manual_seed(0)
    candidates = contenders(network)
    steps = {name: fitting(train, seconds) for name, train in candidates.items()}
    for name, train in candidates.items():
        train(steps[name])
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, train in candidates.items():
            times[name].append(microseconds(train, steps[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    faster = {
        name: statistics.median(
            slow / fast for slow, fast in zip(values, times[SWEEP], strict=True)
        )
        for name, values in times.items()
        if name != SWEEP
    }
    return {
        "network": network.name,
        "microseconds": {name: round(value, 3) for name, value in medians.items()},
        "times faster": {name: round(value, 2) for name, value in faster.items()},
    }


def rows(results: Results) -> list[list[str]]:
    table = [["network, batch of 128", "sweep, µs a step", EAGER, LIBRARY, VMAP, JAX]]
    for row in results["networks"]:
        faster = row["times faster"]
        jax = [value for name, value in faster.items() if name.startswith(JAX)]
        cells = [faster[EAGER], faster[LIBRARY], faster[VMAP], min(jax) if jax else None]
        table.append(
            [
                row["network"],
                f"{row['microseconds'][SWEEP]:.2f}",
                *("–" if value is None else f"{value:,.1f} ×" for value in cells),
            ]
        )
    return table


def text(results: Results) -> str:
    return f"{markdown.align(rows(results), left=1)}\n{_ran_on(results)}"


def section(results: Results) -> str:
    """For docs/sweep.md."""
    return f"{markdown.table(rows(results), left=1)}\n\n{_ran_on(results)}"


def summary(results: Results) -> str:
    """For the README."""
    eager = [row["times faster"][EAGER] for row in results["networks"]]
    least = min(row["microseconds"][SWEEP] for row in results["networks"])
    return (
        f"A training step in a sweep takes {least:.1f} µs and more, {min(eager):,.0f} to "
        f"{max(eager):,.0f} times less than in eager PyTorch."
    )


def _ran_on(results: Results) -> str:
    used = results["machine"]
    return (
        "Processor time of a training step of one run, and how many times longer the others take; "
        f"{machine.ran_on(used)}{machine.busy(used)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a sample (default: 0.5)")
    parser.add_argument("--scale", action="store_true", help="calls of many runs instead")
    parser.add_argument("--instructions", action="store_true", help="count them instead")
    chosen = parser.parse_args()
    # Read when JAX is first imported.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    torch.set_num_threads(1)
    about = {**machine.describe(), "load_before": machine.load()}
    results: Results = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    if chosen.scale:
        results["scale"] = {"machine": about, **scale.measure()}
        print(scale.section(results["scale"]))
    elif chosen.instructions:
        results["instructions"] = instructions.measure()
        print(instructions.section(results["instructions"]))
    else:
        results |= {"machine": about, "networks": []}
        for network in NETWORKS:
            results["networks"].append(measure(network, chosen.seconds))
            print(markdown.align(rows(results), left=1), flush=True)
    chosen.results.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
