// What the operators of recurrent cells hand to the kernels: plain pointers and sizes.
//
// A cell is a layer over its input and its state: h' = layer([x, h]), for T steps. The state of a row
// begins with hx, and again where a step is marked by `reset`; behind the row's length it stays.
#pragma once

#include "call.h"

namespace nalu {

// (steps, rows, columns) anywhere in memory; strides count elements.
struct Steps {
  const void* data;
  int64_t step_stride, row_stride, col_stride;
};

struct UnrollCall {
  RowsCall cell; // its layer's inputs are those of a step and the state; B: rows; no input
  int64_t T;
  Steps input;
  const void* hx; // (B, state), contiguous; null: zeros
  const int64_t* lengths; // (B); null: T
  const bool* reset; // (T, B); null: nowhere
  bool last_only; // the output is the last state alone

  constexpr int64_t state() const {
    return cell.layer.out;
  }
  constexpr int64_t features() const {
    return cell.layer.in - cell.layer.out;
  }
};

// What a backward reads beside, and what it writes: contiguous, null where not wanted.
struct UnrollBackward {
  Steps grad_output; // of the last state alone: one step
  // The states: all, which are the output, or of the last state alone those that kept_states() counts.
  const void* states;
  void *input, *hx;
  void* parameters[kMostParameters];
};

// Of the last state alone a state is kept every so many steps, and those between are made again: so
// the memory of T steps grows with the root of T.
constexpr int64_t stretch(int64_t T) {
  int64_t steps = 1;
  while (steps * steps < T) {
    ++steps;
  }
  return steps;
}
constexpr int64_t kept_states(int64_t T) {
  return (T + stretch(T) - 1) / stretch(T);
}

// Whether the layer's backward needs more of its forward than the input.
constexpr bool needs_forward(Kind kind) {
  return kind != Kind::nac && kind != Kind::nau && kind != Kind::nmu;
}

} // namespace nalu
