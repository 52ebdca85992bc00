// Independent layers side by side: the kernels of a layer for each of them, so that a unit has the bits
// of a layer of its own.
#pragma once

#include "../large.h"
#include "../small.h"
#include "layer.h"
#include "slices.h"

#include "../../rows/units.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Whether the kernels of `Layer` serve it: they are faster for it than rows/ are.
inline bool has_paths(Kind kind) {
  return kind == Kind::nac || kind == Kind::nac_log_space || kind == Kind::nalu || kind == Kind::nau;
}

inline Layer as_layer(const RowsCall& call) {
  const StackLayer& from = call.layer;
  Layer layer{};
  layer.dtype = call.dtype;
  layer.shape = {call.B, from.in, from.out, from.gates};
  layer.eps = from.eps;
  layer.input = call.input;
  layer.clamped = from.kind == Kind::nau; // a linear path with clamped weights
  layer.linear = from.kind != Kind::nac_log_space;
  layer.log_space = from.kind == Kind::nac_log_space || from.kind == Kind::nalu;
  int next = 0;
  layer.W_hat = call.parameters[next++];
  layer.M_hat = layer.clamped ? nullptr : call.parameters[next++];
  layer.G = from.gates > 0 ? call.parameters[next++] : nullptr;
  layer.gate_bias = from.bias ? call.parameters[next++] : nullptr;
  layer.W_hat_mul = from.untied ? call.parameters[next++] : nullptr;
  layer.M_hat_mul = from.untied ? call.parameters[next++] : nullptr;
  return layer;
}

// Where a NALU keeps what its backward needs; nowhere for others, or if there will be none.
inline Saved split(const RowsCall& call, void* saved) {
  if (call.layer.kind != Kind::nalu || saved == nullptr) {
    return {};
  }
  const int64_t plane = call.B * call.layer.out * (call.dtype == Dtype::float64 ? 8 : 4);
  return {saved, behind(saved, plane), behind(saved, 2 * plane)};
}

inline Backward as_backward(const RowsCall& call, const RowsBackward& pass) {
  const StackLayer& from = call.layer;
  Gradients grads{};
  int next = 0;
  grads.input = pass.input;
  grads.W_hat = pass.parameters[next++];
  grads.M_hat = from.kind == Kind::nau ? nullptr : pass.parameters[next++];
  grads.G = from.gates > 0 ? pass.parameters[next++] : nullptr;
  grads.gate_bias = from.bias ? pass.parameters[next++] : nullptr;
  grads.W_hat_mul = from.untied ? pass.parameters[next++] : nullptr;
  grads.M_hat_mul = from.untied ? pass.parameters[next++] : nullptr;
  return {pass.grad_output, pass.saved, split(call, const_cast<void*>(pass.saved)), grads};
}

// f(unit) for each: by several threads, or one after the other where a unit is worth all of them.
template <class F>
inline void for_each_unit(const UnitsCall& call, const F& f) {
  const RowsCall& first = call.first;
  const StackLayer& layer = first.layer;
  const bool alone = has_paths(layer.kind) ? is_small(as_layer(first)) : !wants_help(first) && !wants_slices(first);
  if (!alone) {
    for (int64_t u = 0; u < call.units; ++u) {
      f(u);
    }
    return;
  }
  // A unit takes this long at least, and a thread wants work for 10 microseconds.
  const double in = static_cast<double>(layer.in), out = static_cast<double>(layer.out);
  const double nanoseconds = 500 + static_cast<double>(first.B) * (in + out + in * out / 8);
  const int64_t grain = 1 + static_cast<int64_t>(10e3 / nanoseconds);
  parallel(call.units, grain, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      f(u);
    }
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
