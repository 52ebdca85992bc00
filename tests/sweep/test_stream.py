"""The random stream: known answers, documented recipes, and evidence of its quality."""

from __future__ import annotations

import math

import pytest
import torch
from skips_here import needs_trainer
from torch import Tensor

from nalu_kernels.layers.initialize import init_range
from nalu_kernels.sweep import stream

F64 = torch.float64
ZEROS, ONES = "0 0 0 0 0 0", "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff"
PI = "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0"


# Random123's tests/kat_vectors: counter and key, then the answer.
@pytest.mark.parametrize(
    ("rounds", "given", "answer"),
    [
        (7, ZEROS, "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (7, ONES, "5207ddc2 45165e59 4d8ee751 8c52f662"),
        (7, PI, "4dfccaba 190a87f0 c47362ba b6b5242a"),
        (10, ZEROS, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (10, ONES, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (10, PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_has_the_published_answers(rounds: int, given: str, answer: str) -> None:
    words = [torch.tensor(int(word, 16)) for word in given.split()]
    found = stream.philox(words[:4], words[4:], rounds)
    assert " ".join(f"{int(word):08x}" for word in found) == answer


def test_xoshiro_is_that_of_its_definition() -> None:
    def outputs(state: list[int], count: int) -> list[int]:
        mask, found = 2**32 - 1, []
        s0, s1, s2, s3 = state
        for _ in range(count):
            found.append((s0 + s3) & mask)
            t = s1 << 9 & mask
            s2, s3 = s2 ^ s0, s3 ^ s1
            s1, s0 = s1 ^ s2, s0 ^ s3
            s2, s3 = s2 ^ t, (s3 << 11 | s3 >> 21) & mask
        return found

    state = [0x12345678, 0x9ABCDEF0, 0xFFFFFFFF, 1]
    assert stream.xoshiro(torch.tensor(state), 50).tolist() == outputs(state, 50)
    assert stream.xoshiro(torch.zeros(4, dtype=torch.int64), 9).tolist() == outputs([0, 0, 0, 1], 9)


def test_a_number_is_a_function_of_its_place_alone() -> None:
    seeds, steps = torch.tensor([0, 7, 2**63 - 1]), torch.tensor([0, 2**32, 2**40 + 3])
    whole = stream.draw(seeds, stream.TRAIN, steps, 5, 6)
    assert whole.shape == (3, 3, 5, 6)
    for i, seed in enumerate(seeds.tolist()):
        for j, step in enumerate(steps.tolist()):
            assert stream.draw(seed, stream.TRAIN, step, 3, 4).equal(whole[i, j, :3, :4])
    assert whole.unique().numel() == whole.numel()


def test_the_recipe_of_three_lines() -> None:
    u = stream.draw(seed=7, stream=stream.TRAIN, step=41, rows=128, columns=100)
    x = stream.uniform(u, ((1.0, 2.0),), torch.float32)
    assert x.shape == (128, 100) and float(x.min()) >= 1 and float(x.max()) < 2
    assert (u * 2**24).frac().eq(0).all() and float(u.min()) >= 0 and float(u.max()) < 1


@needs_trainer
def test_the_kernel_draws_the_same_bits() -> None:
    seeds, step = torch.tensor([0, 7, 2**63 - 1]), 2**33 + 1
    assert stream._compiled()
    for given in (seeds, seeds[:2].flip(0), seeds.repeat(2)[::2], 7, seeds[:0]):
        found = stream.drawn(given, stream.INSIDE, step, 37, 101)
        expected = stream.draw(given, stream.INSIDE, step, 37, 101)
        assert found.shape == expected.shape and found.equal(expected)


def test_two_parts_are_as_likely_and_uniform(rng: torch.Generator) -> None:
    u = stream.draw(3, stream.TRAIN, 0, 1000, 100)
    x = stream.uniform(u, ((-6.0, -2.0), (2.0, 3.0)), F64)
    below = x < 0
    assert abs(float(below.double().mean()) - 0.5) < 0.01
    for part, low, high in ((x[below], -6, -2), (x[~below], 2, 3)):
        assert low <= float(part.min()) and float(part.max()) < high
        assert abs(float(part.mean()) - (low + high) / 2) < 0.02 * (high - low)


def test_the_quantile_is_that_of_the_normal_distribution(rng: torch.Generator) -> None:
    p = torch.cat((torch.rand(10_000, generator=rng, dtype=F64), 10.0 ** -torch.arange(1, 300.0)))
    torch.testing.assert_close(
        stream.quantile(p), torch.special.ndtri(p), rtol=1e-13, atol=1e-14, check_dtype=False
    )
    assert stream.quantile(torch.tensor([0.0, 0.5, 1.0], dtype=F64)).tolist() == [
        -math.inf,
        0,
        math.inf,
    ]


def test_truncated_normals_stay_within_their_bounds() -> None:
    u = stream.draw(3, stream.TRAIN, 0, 1000, 100)
    x = stream.normal(u, 1.0, 3.0, -2.0, 1.0, torch.float32)
    assert float(x.min()) >= -2 and float(x.max()) <= 1
    # the mean of a normal that is cut from mean - std to mean
    phi = math.exp(-0.5) / math.sqrt(2 * math.pi), 1 / math.sqrt(2 * math.pi)
    share = 0.5 - stream.cumulative(-1.0)
    assert abs(float(x.double().mean()) - (1 + 3 * (phi[0] - phi[1]) / share)) < 0.01
    free = stream.normal(u, 1.0, 3.0, -math.inf, math.inf, F64)
    assert abs(float(free.mean()) - 1) < 0.05 and abs(float(free.std()) - 3) < 0.05


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 1000])
def test_an_epoch_takes_each_row_of_a_table_once(size: int) -> None:
    epochs = stream.shuffled(5, torch.arange(3 * size), size).view(3, size)
    assert epochs.sort(1).values.equal(torch.arange(size).expand(3, size))


def test_shuffles_are_as_by_chance() -> None:
    """How often each row comes at each place, and the correlation of two epochs, over 500 seeds."""
    size, seeds, samples = 30, 500, torch.arange(60)
    epochs = torch.stack(
        [stream.shuffled(seed, samples, size).view(2, size) for seed in range(seeds)]
    )
    places = torch.arange(size).expand(seeds, size) * size + epochs[:, 0]
    assert abs(_chi_squared(torch.bincount(places.flatten(), minlength=size * size))) < 5
    first, second = epochs.double().unbind(1)
    middle = (size - 1) / 2
    together = ((first - middle) * (second - middle)).mean(1) / ((size * size - 1) / 12)
    scores = together * math.sqrt(size - 1)
    assert abs(float(scores.mean())) < 5 / math.sqrt(seeds) and 0.85 < float(scores.std()) < 1.15


def test_initial_weights_are_a_function_of_seed_and_place() -> None:
    r = init_range(100, 2)
    seeds = torch.tensor([4, 5])
    drawn = stream.initial(seeds, 3, (-r, r), (2, 100), torch.float32)
    element = 1 * 100 + 37
    u = stream.draw(5, stream.PARAMETERS + 3, 0, 4, 64)[element // 64, element % 64]
    assert drawn[1, 1, 37] == stream.uniform(u, ((-r, r),), torch.float32)
    assert float(drawn.abs().max()) <= r


# Evidence of quality: the directions in which a training sees the numbers, each as a sequence of
# 16-bit halves. Philox4x32-7 and xoshiro128+ have passed TestU01's BigCrush as published (the
# latter but for the lowest bits, which are not used here); what is tested is how they are joined.
def _sequences() -> dict[str, Tensor]:
    many = 2**18
    seeds = torch.arange(many // 64)
    return {
        "columns of rows": stream.draw(1, 0, 0, many // 64, 64).flatten(),
        "rows of a column": stream.draw(1, 0, 0, many, 1).flatten(),
        "steps": stream.draw(1, 0, torch.arange(many), 1, 1).flatten(),
        "seeds": stream.draw(torch.arange(many), 0, 0, 1, 1).flatten(),
        "seeds by column": stream.draw(seeds, 0, 0, 1, 64).transpose(0, -1).flatten(),
        "second columns": stream.draw(1, 0, 0, many, 2)[:, 1].flatten(),
    }


def _chi_squared(counts: Tensor) -> float:
    """As many standard deviations from what is expected."""
    expected = counts.double().mean()
    degrees = counts.numel() - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("direction", list(_sequences()))
def test_numbers_are_independent_in_every_direction(direction: str) -> None:
    bits = (_sequences()[direction].double() * 2**24).long()
    high, low = bits >> 16, bits & 0xFF
    for part in (high, low):  # frequency of bytes, and of pairs of neighbours
        assert abs(_chi_squared(torch.bincount(part, minlength=256))) < 5
        pairs = part[::2] // 4 * 64 + part[1::2] // 4
        assert abs(_chi_squared(torch.bincount(pairs, minlength=4096))) < 5
    for bit in range(24):  # each bit, and that it does not repeat its neighbour's
        values = bits >> bit & 1
        for ones in (values, values[1:] ^ values[:-1]):
            deviation = (float(ones.double().mean()) - 0.5) * 2 * math.sqrt(len(ones))
            assert abs(deviation) < 5, bit
    u = bits.double()
    for lag in (1, 2, 3, 4, 7, 64, 128):  # correlation
        together = float(torch.corrcoef(torch.stack((u[lag:], u[:-lag])))[0, 1])
        assert abs(together) * math.sqrt(len(u)) < 5, lag


def test_birthdays_are_spaced_as_by_chance() -> None:
    """Marsaglia's birthday spacings, of 512 numbers of 24 bits, in 2,048 samples."""
    birthdays = (stream.draw(2, 0, torch.arange(2048), 512, 1).flatten(1).double() * 2**24).long()
    spacings = birthdays.sort(1).values.diff(dim=1).sort(1).values
    repeated = int((spacings.diff(dim=1) == 0).sum())
    expected = 2048 * 512**3 / (4 * 2**24)
    assert abs(repeated - expected) < 5 * math.sqrt(expected)
