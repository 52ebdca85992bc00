"""y = x is learned inside the range only, except by NACs."""

from __future__ import annotations

from pathlib import Path

import tiny

from nalu_kernels.experiments import identity


def test_learned_inside_only(tmp_path: Path) -> None:
    models = ["Tanh", "ReLU", "ReLU6", "Sigmoid", "NAC"]
    outcome = tiny.run("identity", tmp_path, steps=400, narrowed={"models": models})
    mean_input = identity.INSIDE / 2  # what a network that answers 0 errs by
    for model in models:
        inside = outcome.values("inside", model=model, task="y = x")[0]
        outside = outcome.values("outside", model=model, task="y = x")[0]
        assert inside < mean_input / 4, model
        if model in ("Tanh", "ReLU6", "Sigmoid"):
            assert outside > 10 * inside, model
        if model == "NAC":
            assert outside < 0.1
