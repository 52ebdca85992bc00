// A layer on a GPU, each way: by one fused kernel, by BLAS with fused passes around it, row by row, or
// over the steps of a sequence. By the first and the third many layers at once, side by side.
#pragma once

#include "../layer.h"
#include "../rows/units.h"
#include "../rows/unroll.h"
#include "call.h"

namespace nalu {
namespace cuda {

// From a unit's part of each tensor to the next one's, in bytes. The gradients of the weights are as far
// apart as the weights.
struct UnitSteps {
  int64_t units;
  int64_t input, weights, G, gate_bias, output, saved, grad_output, grad_input;
};
constexpr UnitSteps kOneUnit{1, 0, 0, 0, 0, 0, 0, 0, 0};

void forward_small(Call&, const Layer&, void* output, const Saved&, const UnitSteps& = kOneUnit);
void forward_large(Call&, const Layer&, void* output, const Saved&);

void backward_small(Call&, const Layer&, const Backward&, const UnitSteps& = kOneUnit);
void backward_large(Call&, const Layer&, const Backward&);

// Null for `saved`: there will be no backward.
void forward_rows(Call&, const UnitsCall&, void* output, void* saved);
void backward_rows(Call&, const UnitsCall&, const UnitsBackward&);

void forward_units(Call&, const UnitsCall&, void* output, void* saved);
void backward_units(Call&, const UnitsCall&, const UnitsBackward&);

// Null for `states`: none are kept.
void unroll_forward(Call&, const UnrollCall&, void* output, void* states);
void unroll_backward(Call&, const UnrollCall&, const UnrollBackward&);

} // namespace cuda
} // namespace nalu
