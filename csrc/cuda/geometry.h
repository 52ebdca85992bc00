// The arithmetic of launches: which layers are small, and how many blocks, of which tiles, a kernel
// takes. Plain C++, so that it is tested where there is no GPU.
#pragma once

#include <cstdint>

#include "../layer.h"

namespace nalu {
namespace cuda {

// Of every block.
constexpr int kThreads = 256;

// Of a grid's dimensions: blocks of a layer, and layers side by side.
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
#ifndef NALU_MOST_UNITS // of which tests have fewer
#define NALU_MOST_UNITS 65535
#endif
constexpr int64_t kMostUnits = NALU_MOST_UNITS;

constexpr int64_t divide_up(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

// What a block of a small layer's kernels computes: kRows x cols sums, `kDepth` terms at a time
// from shared memory. A thread has kPerThread sums of one column.
template <class T, int cols>
struct Tile {
  static constexpr int kRows = 32;
  static constexpr int kCols = cols;
  static constexpr int kDepth = sizeof(T) == 8 ? 16 : 32;
  static constexpr int kRowsAtOnce = kThreads / kCols;
  static constexpr int kPerThread = kRows / kRowsAtOnce;
  static constexpr int kPlanes = 3; // of each operand, at most: three products
  // A column more, so that walking down a column takes each memory bank once.
  static constexpr int64_t kSharedBytes =
      kPlanes * (kRows * (kDepth + 1) + kDepth * (kCols + 1)) * static_cast<int64_t>(sizeof(T));
};

// No more columns than that fill a narrow tile: of outputs in the forward, of inputs in the
// backward.
constexpr int kNarrow = 8;
constexpr int kWide = 32;

// A small layer is one fused kernel each way; a large one takes five launches forward and
// eleven backward, of which BLAS has most of the work. Not measured but estimated, for want of a GPU: ten
// launches cost the host about 40 us, in which one such kernel, at a tenth of a big chip's float32
// rate, does 2^24 multiply-adds for each of its nine products; and a block that walks the whole
// batch, or a whole row, takes about 1 us for 32 steps.
constexpr int64_t kSmallWork = int64_t{1} << 24;
constexpr int64_t kSmallBatch = 2048;
constexpr int64_t kSmallRow = 2048;

// B I O may be beyond 64 bits; no factor of it is once each is small.
constexpr bool is_small(const Shape& s) {
  if (s.B == 0 || s.I == 0 || s.O == 0) {
    return true; // BLAS need not know of empty matrices
  }
  return s.B <= kSmallBatch && s.I <= kSmallRow && s.O <= kSmallRow &&
      s.B * s.I * s.O <= kSmallWork;
}

// One gate for all of a row's outputs; with one output it is a gate per output.
constexpr bool gate_per_sample(const Shape& s) {
  return s.gates == 1 && s.O != 1;
}

constexpr int64_t tiles(int64_t rows, int64_t cols, int64_t tile_rows, int64_t tile_cols) {
  return divide_up(rows, tile_rows) * divide_up(cols, tile_cols);
}

// Of outputs; a gate per sample is computed beside the first of them, and without any too.
constexpr int64_t forward_col_tiles(const Shape& s, int64_t tile_cols) {
  return divide_up(gate_per_sample(s) && s.O == 0 ? 1 : s.O, tile_cols);
}

// The blocks of a small layer's backward: first those of the input's gradient, then those of the
// weights', then those of a gate per sample.
struct BackwardBlocks {
  int64_t input, weights, gate;

  int64_t total() const {
    return input + weights + gate;
  }
};

inline BackwardBlocks backward_blocks(
    const Shape& s, const Gradients& wanted, int64_t tile_rows, int64_t tile_cols) {
  const bool per_sample = gate_per_sample(s);
  const bool of_gate = wanted.G != nullptr || wanted.gate_bias != nullptr;
  const bool of_weights = wanted.W_hat != nullptr || wanted.M_hat != nullptr ||
      wanted.W_hat_mul != nullptr || wanted.M_hat_mul != nullptr;
  // The bias has a gradient even where there is no input.
  const int64_t cols = s.I > 0 ? s.I : 1;
  return {
      wanted.input != nullptr ? tiles(s.B, s.I, tile_rows, tile_cols) : 0,
      of_weights || (of_gate && !per_sample) ? tiles(s.O, cols, tile_rows, tile_cols) : 0,
      of_gate && per_sample ? divide_up(cols, tile_cols) : 0};
}

// For a pass over n elements, of which each thread then takes more than one.
constexpr int64_t pass_blocks(int64_t n) {
  constexpr int64_t most = 1 << 16;
  const int64_t blocks = divide_up(n, kThreads);
  return blocks < most ? blocks : most;
}

// The sums of a matrix's columns, in parts of its rows: a block sums one part of `cols` columns, its
// threads every `rows_at_once`-th row of that.
struct ColumnSums {
  int cols, rows_at_once;
  int64_t col_blocks, parts, rows_of_part;

  constexpr ColumnSums(int64_t rows, int64_t all_cols)
      : cols(all_cols < kWide ? static_cast<int>(all_cols) : kWide),
        rows_at_once(kThreads / cols),
        col_blocks(divide_up(all_cols, cols)),
        parts(0),
        rows_of_part(0) {
    constexpr int64_t most = 32, least_of_thread = 16;
    const int64_t wanted = divide_up(rows, rows_at_once * least_of_thread);
    rows_of_part = divide_up(rows, wanted < most ? wanted : most);
    parts = divide_up(rows, rows_of_part);
  }
};

// The rows of a layer that goes row by row: in chunks, of which a block has one in its memory at a
// time, and runs of chunks in parts, which have sums of their own.
struct Chunks {
  int64_t rows, count, chunks_a_part, parts;
};

// A matter of the shape alone, and so is the order of the sums.
constexpr Chunks chunks_of(int64_t B, int64_t I, int64_t O, int64_t parameters) {
  if (B == 0) {
    return {0, 0, 1, 0};
  }
  // Chunks for a GPU's blocks come first, then rows for a block's threads.
  constexpr int64_t enough_chunks = 256, enough_numbers = 2048, step = 8, few = 32, many = 128;
  int64_t most = divide_up(divide_up(enough_numbers, I + O + 1), step) * step;
  most = most < few ? few : most > many ? many : most;
  int64_t rows = divide_up(divide_up(B, enough_chunks), step) * step;
  rows = rows < most ? rows : most;
  rows = rows < B ? rows : B;
  const int64_t count = divide_up(B, rows);
  // Few enough parts that their sums stay small, but not so few that the GPU is idle.
  constexpr int64_t numbers = int64_t{1} << 23, least_parts = 8, most_parts = 256;
  int64_t parts = numbers / (parameters + 1);
  parts = parts < least_parts ? least_parts : parts > most_parts ? most_parts : parts;
  const int64_t chunks_a_part = divide_up(count, parts);
  return {rows, count, chunks_a_part, divide_up(count, chunks_a_part)};
}

} // namespace cuda
} // namespace nalu
