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

// f(S{}) for the layer's storage type.
template <class F>
inline void dispatch(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
    case Dtype::bfloat16:
      return f(BFloat16{});
    case Dtype::float16:
      return f(Float16{});
  }
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

} // namespace NALU_NAMESPACE
} // namespace nalu
