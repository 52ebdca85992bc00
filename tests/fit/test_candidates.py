"""The list of candidates: each is a stack that a sweep trains in kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nalu_kernels import NAU, NMU, RealNPU
from nalu_kernels.fit.candidates import CANDIDATES, LAYERS, Candidate
from nalu_kernels.sweep.stack import Stack


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda one: one.name)
def test_a_candidate_is_a_stack_of_its_layers_with_one_output(candidate: Candidate) -> None:
    model = candidate.stack(3)
    assert [type(layer) for layer in model] == [LAYERS[name] for name in candidate.layers]
    assert model(torch.ones(5, 3, dtype=torch.float64)).shape == (5, 1)
    trained = Stack(candidate.trained(3))
    assert (trained.in_features, trained.out_features) == (3, 1)
    assert trained.beyond_kernels() is None


def test_names_are_distinct_and_simple_ones_come_first() -> None:
    names = [candidate.name for candidate in CANDIDATES]
    assert len(set(names)) == len(names)
    complexities = [candidate.complexity for candidate in CANDIDATES]
    assert complexities == sorted(complexities)


def test_complexity_counts_layers_before_hidden_numbers() -> None:
    assert Candidate(("NAU",)).complexity == 3
    assert Candidate(("NAU", "NMU"), 2).complexity == 7
    assert Candidate(("NAU", "NMU"), 3).complexity == 8
    assert Candidate(("NAU", "RealNPU", "NAU"), 2).complexity == 11


def test_what_is_trained_has_a_factor_for_the_units() -> None:
    kinds = {
        ("NAU",): [NAU, nn.Linear],
        ("RealNPU",): [RealNPU, nn.Linear],
        ("NAU", "NMU"): [NAU, NMU, nn.Linear],
        ("RealNPU", "NAU"): [RealNPU, nn.Linear],
        ("RealNPU", "NAU", "RealNPU"): [RealNPU, nn.Linear, RealNPU, nn.Linear],
    }
    for layers, expected in kinds.items():
        trained = Candidate(layers, 2).trained(4)
        assert [type(layer) for layer in trained] == expected
        assert all(parameter.dtype == torch.float32 for parameter in trained.parameters())


def test_a_candidate_of_unknown_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers: expected some of .*, got \('Linear',\)"):
        Candidate(("Linear",))
    with pytest.raises(ValueError, match="layers"):
        Candidate(())
    with pytest.raises(ValueError, match="hidden: expected at least 1, got 0"):
        Candidate(("NAU", "NMU"), 0)
