// csrc/cuda/geometry.h for the tests, which call it through ctypes.
#include "../../csrc/cuda/geometry.h"

using namespace nalu;
using namespace nalu::cuda;

namespace {

Shape shape_of(const int64_t* sizes) {
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

} // namespace

extern "C" {

int geometry_is_small(const int64_t* shape) {
  return is_small(shape_of(shape)) ? 1 : 0;
}

int64_t geometry_tiles(int64_t rows, int64_t cols, int64_t tile_rows, int64_t tile_cols) {
  return tiles(rows, cols, tile_rows, tile_cols);
}

// wanted: W_hat, M_hat, W_hat_mul, M_hat_mul, G, gate_bias, input.
void geometry_backward_blocks(const int64_t* shape, const int* wanted, int64_t cols, int64_t* to) {
  int something = 0;
  void* fields[7];
  for (int i = 0; i < 7; ++i) {
    fields[i] = wanted[i] != 0 ? &something : nullptr;
  }
  Gradients grads{};
  grads.W_hat = fields[0];
  grads.M_hat = fields[1];
  grads.W_hat_mul = fields[2];
  grads.M_hat_mul = fields[3];
  grads.G = fields[4];
  grads.gate_bias = fields[5];
  grads.input = fields[6];
  const BackwardBlocks blocks = backward_blocks(shape_of(shape), grads, Tile<float, 8>::kRows, cols);
  to[0] = blocks.input;
  to[1] = blocks.weights;
  to[2] = blocks.gate;
}

void geometry_chunks(int64_t B, int64_t I, int64_t O, int64_t parameters, int64_t* to) {
  const Chunks chunks = chunks_of(B, I, O, parameters);
  to[0] = chunks.rows;
  to[1] = chunks.count;
  to[2] = chunks.chunks_a_part;
  to[3] = chunks.parts;
}

int64_t geometry_pass_blocks(int64_t n) {
  return pass_blocks(n);
}

// Every tile that there is: columns, rows, sums of a thread, bytes of shared memory.
int geometry_tile(int index, int64_t* to) {
  const auto put = [to](auto tile) {
    using T = decltype(tile);
    to[0] = T::kCols;
    to[1] = T::kRows;
    to[2] = T::kPerThread;
    to[3] = T::kSharedBytes;
  };
  switch (index) {
    case 0:
      put(Tile<float, kNarrow>{});
      return 1;
    case 1:
      put(Tile<float, kWide>{});
      return 1;
    case 2:
      put(Tile<double, kNarrow>{});
      return 1;
    case 3:
      put(Tile<double, kWide>{});
      return 1;
  }
  return 0;
}

} // extern "C"
