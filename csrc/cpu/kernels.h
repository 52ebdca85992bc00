// The set of kernels of the instruction set that the including file has chosen.
#pragma once

#include "large.h"
#include "rows/layer.h"
#include "rows/unroll.h"
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

// An NAU is a linear path with clamped weights: these kernels are faster for it than rows/ are.
inline Layer as_layer(const RowsCall& call) {
  Layer layer{};
  layer.dtype = call.dtype;
  layer.shape = {call.B, call.layer.in, call.layer.out, 0};
  layer.linear = layer.clamped = true;
  layer.input = call.input;
  layer.W_hat = call.parameters[0];
  return layer;
}

inline void forward_rows(const RowsCall& call, void* output, void* saved) {
  if (call.layer.kind == Kind::nau) {
    forward(as_layer(call), output, {});
    return;
  }
  dispatch(call.dtype, [&](auto s) { forward_by_rows<decltype(s)>(call, output, saved); });
}

inline void backward_rows(const RowsCall& call, const RowsBackward& pass) {
  if (call.layer.kind == Kind::nau) {
    Gradients grads{};
    grads.input = pass.input;
    grads.W_hat = pass.parameters[0];
    backward(as_layer(call), {pass.grad_output, nullptr, {}, grads});
    return;
  }
  dispatch(call.dtype, [&](auto s) { backward_by_rows<decltype(s)>(call, pass); });
}

inline void unroll_forward(const UnrollCall& call, void* output, void* states) {
  dispatch(call.cell.dtype, [&](auto s) { unroll_forward_as<decltype(s)>(call, output, states); });
}

inline void unroll_backward(const UnrollCall& call, const UnrollBackward& pass) {
  dispatch(call.cell.dtype, [&](auto s) { unroll_backward_as<decltype(s)>(call, pass); });
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
    unroll_forward,
    unroll_backward,
    transform,
    train,
    draw};

} // namespace NALU_NAMESPACE
} // namespace nalu
