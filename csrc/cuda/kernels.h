// A layer on a GPU, each way: by one fused kernel, by BLAS with fused passes around it, row by row, or
// over the steps of a sequence.
#pragma once

#include "../layer.h"
#include "../rows/unroll.h"
#include "call.h"

namespace nalu {
namespace cuda {

void forward_small(Call&, const Layer&, void* output, const Saved&);
void forward_large(Call&, const Layer&, void* output, const Saved&);

void backward_small(Call&, const Layer&, const Backward&);
void backward_large(Call&, const Layer&, const Backward&);

// Null for `saved`: there will be no backward.
void forward_rows(Call&, const RowsCall&, void* output, void* saved);
void backward_rows(Call&, const RowsCall&, const RowsBackward&);

// Null for `states`: none are kept.
void unroll_forward(Call&, const UnrollCall&, void* output, void* states);
void unroll_backward(Call&, const UnrollCall&, const UnrollBackward&);

} // namespace cuda
} // namespace nalu
