// The set of kernels of the instruction set that the including file has chosen.
#pragma once

#include "large.h"
#include "rows/layer.h"
#include "small.h"
#include "train/train.h"

namespace nalu {
namespace NALU_NAMESPACE {

inline void forward(const Layer& layer, void* output, const Saved& saved) {
  dispatch(layer.dtype, [&](auto s) {
    using S = decltype(s);
    is_small(layer) ? forward_small<S>(layer, output, saved)
                    : forward_large(LargePasses<S>(layer), layer, output, saved);
  });
}

inline void backward(const Layer& layer, const Backward& pass) {
  dispatch(layer.dtype, [&](auto s) {
    using S = decltype(s);
    is_small(layer) ? backward_small<S>(layer, pass)
                    : backward_large(LargePasses<S>(layer), layer, pass);
  });
}

inline void transform(const Layer& layer, void* W) {
  dispatch(layer.dtype, [&](auto s) { transform_of<decltype(s)>(layer, W); });
}

constexpr Kernels kKernels{
    NALU_STRING(NALU_NAMESPACE),
    forward,
    backward,
    forward_rows,
    backward_rows,
    transform,
    train,
    draw};

} // namespace NALU_NAMESPACE
} // namespace nalu
