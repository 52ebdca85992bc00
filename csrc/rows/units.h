// What the operators of independent layers side by side, the units, hand to the kernels.
#pragma once

#include "../layer.h"
#include "call.h"

namespace nalu {

constexpr int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

constexpr const void* behind(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + bytes;
}
constexpr void* behind(void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<char*>(data) + bytes;
}

// Numbers a row that a forward keeps for its backward, in the compute type.
constexpr int64_t kept_of_units(const StackLayer& layer) {
  return layer.kind == Kind::nalu ? 2 * layer.out + layer.gates : kept_a_row(layer);
}

struct UnitsCall {
  RowsCall first;
  int64_t units;
  int64_t input_step; // from a unit's rows to the next one's, in elements; 0: all have the same

  // From the first unit's to unit u's, in place.
  constexpr void move(RowsCall& call, int64_t u) const {
    const int64_t size = bytes_of(call.dtype);
    call.input.data = behind(call.input.data, u * input_step * size);
    for (int i = 0; i < call.parameter_count; ++i) {
      call.parameters[i] = behind(call.parameters[i], u * call.sizes[i] * size);
    }
  }
  constexpr RowsCall unit(int64_t u) const {
    RowsCall call = first;
    move(call, u);
    return call;
  }
  constexpr void* output(void* of_first, int64_t u) const {
    return behind(of_first, u * first.B * first.layer.out * bytes_of(first.dtype));
  }
  constexpr int64_t saved_bytes() const { // a unit's
    const int64_t size = first.dtype == Dtype::float64 ? 8 : 4;
    return kept_of_units(first.layer) * first.B * size;
  }
};

// What a backward reads beside, and what it writes; of the first unit.
struct UnitsBackward {
  RowsBackward first;
  int64_t grad_step;

  // `saved`: what the forward kept, or of a NAC in log space its output.
  constexpr void move(RowsBackward& pass, const UnitsCall& call, int64_t u) const {
    const int64_t size = bytes_of(call.first.dtype);
    const StackLayer& layer = call.first.layer;
    pass.grad_output.data = behind(pass.grad_output.data, u * grad_step * size);
    const int64_t output = call.first.B * layer.out * size;
    pass.saved =
        behind(pass.saved, u * (layer.kind == Kind::nac_log_space ? output : call.saved_bytes()));
    pass.input = behind(pass.input, u * call.first.B * layer.in * size);
    for (int i = 0; i < call.first.parameter_count; ++i) {
      pass.parameters[i] = behind(pass.parameters[i], u * call.first.sizes[i] * size);
    }
  }
  constexpr RowsBackward unit(const UnitsCall& call, int64_t u) const {
    RowsBackward pass = first;
    move(pass, call, u);
    return pass;
  }
};

// A NAC, a NALU or an NAU as the kernels of `Layer` take it.
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

} // namespace nalu
