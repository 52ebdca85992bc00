// What the operators of the layers that go row by row hand to the kernels: plain pointers and sizes.
#pragma once

#include "../training.h"

namespace nalu {

constexpr int kMostParameters = 6;

struct RowsCall {
  Dtype dtype;
  StackLayer layer;
  int64_t B;
  Rows input;
  // Contiguous, one after the other as in StackLayer::parameters.
  int parameter_count;
  const void* parameters[kMostParameters];
  int64_t sizes[kMostParameters];
};

// Which of the parameters is all outputs' alike, -1 if none is: the others have so much for each.
constexpr int shared_parameter(const StackLayer& layer) {
  if (layer.kind == Kind::npu) {
    return 1;
  }
  return layer.kind == Kind::inalu && layer.gates == 1 ? 2 : -1;
}

// What a backward reads beside, and what it writes: contiguous, null where not wanted.
struct RowsBackward {
  Rows grad_output;
  const void* saved;
  void* input;
  void* parameters[kMostParameters];
};

// Numbers a row that a forward keeps for its backward, in the compute type.
constexpr int64_t kept_a_row(const StackLayer& layer) {
  switch (layer.kind) {
    case Kind::inalu:
      return 4 * layer.out;
    case Kind::npu:
    case Kind::nmru:
      return 2 * layer.out;
    default:
      return 0;
  }
}

} // namespace nalu
