// A layer on a GPU, each way: by one fused kernel, by BLAS with fused passes around it, or row by row.
#pragma once

#include "../layer.h"
#include "../rows/call.h"
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

} // namespace cuda
} // namespace nalu
