// A layer on a GPU, each way: by one fused kernel, or by BLAS with fused passes around it.
#pragma once

#include "../layer.h"
#include "call.h"

namespace nalu {
namespace cuda {

void forward_small(Call&, const Layer&, void* output, const Saved&);
void forward_large(Call&, const Layer&, void* output, const Saved&);

void backward_small(Call&, const Layer&, const Backward&);
void backward_large(Call&, const Layer&, const Backward&);

} // namespace cuda
} // namespace nalu
