r"""The random numbers of a sweep, each a function of (seed, stream, step, row, column) alone.

Three lines make the training batch of any step again, here of a run with seed 7 whose 100 inputs
are uniform on [1, 2)::

    from nalu_kernels.sweep import stream
    u = stream.draw(seed=7, stream=stream.TRAIN, step=41, rows=128, columns=100)
    x = stream.uniform(u, ((1.0, 2.0),), torch.float32)  # (128, 100)

**Words.** Philox4x32 (Salmon et al. 2011) with 7 rounds makes four words of 32 bits of the key
(seed mod 2³², ⌊seed / 2³²⌋) and the counter (row, step mod 2³², ⌊step / 2³²⌋, stream).
**Columns.** The four words are the state of a xoshiro128+ generator (Blackman and Vigna 2021), of
which column j is output number j; a state of zeros becomes (0, 0, 0, 1). **Numbers.** The upper 24
bits of an output, times 2⁻²⁴, are u in [0, 1): exact in float32 and float64.

:func:`draw` is plain PyTorch on int64, on the CPU: the definition of truth. :func:`drawn` has the
same bits by the compiled operator, where there is one; so have all kernels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import dispatch

VERSION = 1  # of all that this page says; results record it
TRAIN, INSIDE, OUTSIDE, SHUFFLE, SUBSETS, RESTART = range(6)
NOISE = 8  # stream of the noise on a layer's inputs (nalu_kernels.snmu); in a stack, one for each
NOISES = 8  # of these streams
PARAMETERS = 16  # stream of the initial weights of parameter 0; of parameter k, k more
ROUNDS = 7

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WIDTH = 64  # numbers of a parameter in a row of its stream


def philox(
    counter: Sequence[Tensor], key: Sequence[Tensor], rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32: the four words made of a counter of four and a key of two.

    Args:
        counter, key: int64 tensors that broadcast, of values in [0, 2³²).
        rounds: 7 here; 10 is the number most libraries take.

    Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # modulo 2⁶⁴, which loses nothing
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(seed: int | Tensor, stream: int, step: int | Tensor, rows: int) -> Tensor:
    """Four words of 32 bits for each row.

    Args:
        seed: in [0, 2⁶³); a tensor draws for several seeds.
        stream: TRAIN, INSIDE, OUTSIDE, SHUFFLE, SUBSETS, RESTART, NOISE + k, or PARAMETERS + k.
        step: a tensor draws for several steps.
        rows: rows 0 to rows - 1.

    Returns:
        int64, ``(*seed.shape, *step.shape, rows, 4)``.
    """
    seeds, steps = torch.as_tensor(seed), torch.as_tensor(step)
    seeds = seeds.reshape(*seeds.shape, *[1] * (steps.dim() + 1))
    steps = steps.unsqueeze(-1)
    counter = (torch.arange(rows), steps & _MASK, steps >> 32, torch.tensor(stream))
    made = philox(counter, (seeds & _MASK, seeds >> 32))
    return torch.stack(torch.broadcast_tensors(*made), -1)


def xoshiro(state: Tensor, count: int) -> Tensor:
    """The first ``count`` outputs of xoshiro128+ from states (..., 4): int64, (..., count).

    Source: Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators".
    """
    s0, s1, s2, s3 = state.unbind(-1)
    s3 = torch.where((s0 | s1 | s2 | s3) == 0, 1, s3)
    outputs = torch.empty((count, *s0.shape), dtype=torch.int64)
    for output in outputs:
        torch.bitwise_and(s0 + s3, _MASK, out=output)
        t = (s1 << 9) & _MASK
        s2 = s2 ^ s0
        s3 = s3 ^ s1
        s1 = s1 ^ s2
        s0 = s0 ^ s3
        s2 = s2 ^ t
        s3 = ((s3 << 11) & _MASK) | (s3 >> 21)
    return outputs.movedim(0, -1)


def draw(seed: int | Tensor, stream: int, step: int | Tensor, rows: int, columns: int) -> Tensor:
    """u in [0, 1), a multiple of 2⁻²⁴: float32, ``(*seed.shape, *step.shape, rows, columns)``.

    Arguments as of :func:`nalu_kernels.sweep.stream.words`.
    """
    outputs = xoshiro(words(seed, stream, step, rows), columns)
    return (outputs >> 8).to(torch.float32) * 2.0**-24


def drawn(seed: int | Tensor, stream: int, step: int, rows: int, columns: int) -> Tensor:
    """As :func:`draw`, of one step."""
    if not _compiled():
        return draw(seed, stream, step, rows, columns)
    seeds = torch.as_tensor(seed)
    u: Tensor = torch.ops.nalu_kernels.draw(seeds.contiguous(), stream, step, rows, columns)
    return u.view(*seeds.shape, rows, columns)


@functools.cache
def _compiled() -> bool:
    return dispatch.status("cpu").usable and hasattr(torch.ops.nalu_kernels, "draw")


def uniform(u: Tensor, parts: Sequence[tuple[float, float]], dtype: torch.dtype) -> Tensor:
    """x uniform on one interval [low, high), or on two, each with probability 1/2.

    x = low + (high - low) u in ``dtype``, each operation rounded. Of two intervals, u below 1/2
    takes the first; then 2u, less 1 in the second, is in the place of u.

    Args:
        u: as of :func:`draw`.
        parts: one or two of (low, high).
        dtype: float32 or float64.
    """
    ends = torch.tensor(parts, dtype=dtype)
    lows, widths = ends[:, 0], ends[:, 1] - ends[:, 0]
    u = u.to(dtype)
    if len(parts) == 1:
        return lows[0] + widths[0] * u
    u = 2 * u
    second = u >= 1
    u = u - second.to(dtype)
    return torch.where(second, lows[1], lows[0]) + torch.where(second, widths[1], widths[0]) * u


def exponential(u: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """x exponential with mean ``scale``.

    x = -scale log(1 - (u + 2⁻²⁵)), in float64, and then rounded to ``dtype``.
    """
    return (-scale * torch.log(1 - (u.double() + 2.0**-25))).to(dtype)


def cumulative(z: float) -> float:
    """The standard normal distribution function Φ(z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def normal(
    u: Tensor, mean: float, std: float, low: float, high: float, dtype: torch.dtype
) -> Tensor:
    """x normal, truncated to [low, high]; these are infinite where there is no bound.

    x = mean + std Φ⁻¹(Φ_low + (Φ_high - Φ_low) (u + 2⁻²⁵)), in float64, clamped to [low, high] and
    then rounded to ``dtype``.
    """
    p_low, p_width = bounds(mean, std, low, high)
    p = p_low + p_width * (u.double() + 2.0**-25)
    return (mean + std * quantile(p)).clamp(low, high).to(dtype)


def bounds(mean: float, std: float, low: float, high: float) -> tuple[float, float]:
    """Φ at the lower bound, and how much of Φ lies between the bounds."""
    p_low = cumulative((low - mean) / std)
    return p_low, cumulative((high - mean) / std) - p_low


# PPND16: numerators and denominators, the highest power first.
CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
     1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055,
     4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
     0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
     2.05319162663775882187, 1.0),
)  # fmt: skip
TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
     0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
     5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
     0.59983220655588793769, 1.0),
)  # fmt: skip


def quantile(p: Tensor) -> Tensor:
    """Φ⁻¹(p) in float64, to about 16 digits; infinite at 0 and 1.

    Source: Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution".
    """
    q = p - 0.5
    centre = q * _ratio(CENTRE, 0.180625 - q * q)
    r = torch.sqrt(-torch.log(torch.where(q < 0, p, 1 - p)))
    tail = torch.where(r <= 5, _ratio(MIDDLE, r - 1.6), _ratio(TAIL, r - 5))
    tail = torch.where(r.isinf(), r, tail)
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -tail, tail))


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    numerator, denominator = (_horner(coefficients, x) for coefficients in polynomials)
    return numerator / denominator


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def shuffled(seed: int, sample: Tensor, size: int) -> Tensor:
    """Which of a table's ``size`` rows sample number n of a training is, for each n in ``sample``.

    Each epoch of ``size`` samples is a permutation of the table: a Feistel network of four rounds
    on the bits of the position, walked until it is below ``size`` again. Its keys are the words of
    (seed, SHUFFLE, step = epoch, row 0), its round function is murmur3's finalizer.

    Args:
        sample: int64, any shape; the samples of step t are t batch_size + row.
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    mask = (1 << half) - 1
    keys = words(seed, SHUFFLE, sample // size, 1)[..., 0, :].unbind(-1)
    place, done = sample % size, torch.zeros_like(sample, dtype=torch.bool)
    while not done.all():
        left, right = place >> half, place & mask
        for key in keys:
            left, right = right, left ^ (_mix((right + key) & _MASK) & mask)
        place = torch.where(done, place, left << half | right)
        done = place < size
    return place


def _mix(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def restarted(seed: int, step: int, size: int, dtype: torch.dtype) -> Tensor:
    """All parameters (size) of a run that begins anew after ``step`` steps: uniform on [-2, 2).

    Element e is column e mod 64 of row ⌊e / 64⌋ of stream RESTART.
    """
    u = drawn(seed, RESTART, step, -(-size // _WIDTH), _WIDTH)
    return uniform(u.flatten()[:size], ((-2.0, 2.0),), dtype)


def initial(
    seeds: Tensor, parameter: int, start: Sequence[float], shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Initial values of parameter number ``parameter`` of a stack.

    Element e of the parameter, counted row by row, is column e mod 64 of row ⌊e / 64⌋ of stream
    PARAMETERS + parameter, step 0.

    Args:
        start: (low, high), for values uniform on [low, high), or what :func:`normal` takes: mean,
            std, low and high.

    Returns:
        ``(len(seeds), *shape)``.
    """
    size = math.prod(shape)
    u = drawn(seeds, PARAMETERS + parameter, 0, -(-size // _WIDTH), min(size, _WIDTH))
    u = u.flatten(1)[:, :size]
    if len(start) == 2:
        values = uniform(u, ((start[0], start[1]),), dtype)
    else:
        mean, std, low, high = start
        values = normal(u, mean, std, low, high, dtype)
    return values.reshape(len(seeds), *shape)
