"""The host's arithmetic before a CUDA launch: csrc/cuda/geometry.h, in plain C++."""

from __future__ import annotations

import ctypes
import itertools

import pytest

import emulated_cuda
from nalu_kernels import dispatch

Shape = tuple[int, int, int, int]  # B, I, O, gates
THREADS = 256


@pytest.fixture(scope="module")
def geometry() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(emulated_cuda.build()))
    except dispatch.BackendUnavailable as error:
        pytest.skip(str(error))
    library.geometry_tiles.restype = library.geometry_pass_blocks.restype = ctypes.c_int64
    return library


def longs(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def is_small(library: ctypes.CDLL, *shape: int) -> bool:
    return bool(library.geometry_is_small(longs(*shape)))


@pytest.mark.parametrize("shape", [(64, 2, 1, 1), (128, 100, 2, 2), (128, 100, 100, 1)])
def test_the_layers_of_this_field_are_small(geometry: ctypes.CDLL, shape: Shape) -> None:
    assert is_small(geometry, *shape)


def test_limits_of_small_layers(geometry: ctypes.CDLL) -> None:
    assert is_small(geometry, 2048, 8, 8, 8) and not is_small(geometry, 2049, 8, 8, 8)
    assert is_small(geometry, 8, 2048, 8, 8) and not is_small(geometry, 8, 2049, 8, 8)
    assert is_small(geometry, 8, 8, 2048, 8) and not is_small(geometry, 8, 8, 2049, 8)
    assert is_small(geometry, 256, 256, 256, 1) and not is_small(geometry, 257, 256, 256, 1)


@pytest.mark.parametrize(
    "shape", [(2**40, 2**20, 2**20, 1), (2**31, 2**31, 2, 2), (2**62, 4, 1, 1)]
)
def test_products_beyond_64_bits_are_not_small(geometry: ctypes.CDLL, shape: Shape) -> None:
    assert not is_small(geometry, *shape)


@pytest.mark.parametrize("shape", [(2**40, 0, 5, 5), (2**40, 5, 0, 1), (0, 2**40, 5, 5)])
def test_empty_matrices_never_reach_blas(geometry: ctypes.CDLL, shape: Shape) -> None:
    assert is_small(geometry, *shape)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 2**33 + 1])
@pytest.mark.parametrize("cols", [0, 1, 8, 9, 100])
def test_tiles_cover_a_result_and_no_more(geometry: ctypes.CDLL, rows: int, cols: int) -> None:
    found = geometry.geometry_tiles(*map(ctypes.c_int64, (rows, cols, 32, 8)))
    assert found == -(-rows // 32) * -(-cols // 8)


def test_tiles_fit_their_threads_and_the_shared_memory(geometry: ctypes.CDLL) -> None:
    seen = set()
    for index in itertools.count():
        tile = longs(0, 0, 0, 0)
        if not geometry.geometry_tile(index, tile):
            break
        cols, rows, per_thread, shared = tile
        assert rows * cols == per_thread * THREADS
        assert 0 < shared <= 48 * 1024
        seen.add((cols, shared))
    assert len(seen) == 4


@pytest.mark.parametrize("gates", ["output", "sample"])
@pytest.mark.parametrize(
    "shape", [(64, 2, 1), (33, 9, 3), (0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str
)
def test_blocks_of_a_backward(
    geometry: ctypes.CDLL, shape: tuple[int, int, int], gates: str
) -> None:
    """Every part that is wanted has its blocks, and nothing else has any."""
    B, I, O = shape  # noqa: E741
    tile_rows, tile_cols = 32, 8
    per_sample = gates == "sample" and O != 1
    cols = -(-max(I, 1) // tile_cols)
    for wanted in itertools.product((False, True), repeat=7):
        blocks = longs(0, 0, 0)
        geometry.geometry_backward_blocks(
            longs(B, I, O, 1 if gates == "sample" else O),
            (ctypes.c_int * 7)(*wanted),
            ctypes.c_int64(tile_cols),
            blocks,
        )
        *weights, G, bias, input = wanted
        of_weights = any(weights) or ((G or bias) and not per_sample)
        assert list(blocks) == [
            input * -(-B // tile_rows) * -(-I // tile_cols),
            of_weights * -(-O // tile_rows) * cols,
            ((G or bias) and per_sample) * cols,
        ]


def test_passes_have_blocks_enough_and_no_more_than_a_grid_holds(geometry: ctypes.CDLL) -> None:
    def blocks(n: int) -> int:
        return int(geometry.geometry_pass_blocks(ctypes.c_int64(n)))

    assert [blocks(n) for n in (0, 1, THREADS, THREADS + 1)] == [0, 1, 1, 2]
    assert blocks(2**62) == 2**16


@pytest.mark.parametrize("rows", [1, 7, 8, 2048, 10**5 + 1, 2**40])
@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (64, 64), (1024, 1024), (2**15, 2**15)], ids=str)
def test_chunks_and_parts_cover_a_batch(
    geometry: ctypes.CDLL, rows: int, sides: tuple[int, int]
) -> None:
    inputs, outputs = sides
    found = longs(0, 0, 0, 0)
    sizes = (rows, inputs, outputs, inputs * outputs)
    geometry.geometry_chunks(*map(ctypes.c_int64, sizes), found)
    of_chunk, count, of_part, parts = found
    assert 1 <= of_chunk <= 128 and 1 <= parts <= 256
    assert of_chunk * (count - 1) < rows <= of_chunk * count
    assert of_part * (parts - 1) < count <= of_part * parts
    assert parts <= 8 or parts * inputs * outputs <= 2**23
