// The set of kernels of the instruction set that the including file has chosen.
#pragma once

#include "large.h"
#include "small.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class S>
inline void forward_of(const Layer& layer, void* output, const Saved& saved) {
  is_small(layer) ? forward_small<S>(layer, output, saved)
                        : forward_large<S>(layer, output, saved);
}

template <class S>
inline void backward_of(
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  is_small(layer) ? backward_small<S>(layer, grad_output, output, saved, grads)
                        : backward_large<S>(layer, grad_output, output, saved, grads);
}

inline void forward(const Layer& layer, void* output, const Saved& saved) {
  dispatch(layer.dtype, [&](auto s) { forward_of<decltype(s)>(layer, output, saved); });
}

inline void backward(
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  dispatch(layer.dtype, [&](auto s) {
    backward_of<decltype(s)>(layer, grad_output, output, saved, grads);
  });
}

inline void transform(const Layer& layer, void* W) {
  dispatch(layer.dtype, [&](auto s) { transform_of<decltype(s)>(layer, W); });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
