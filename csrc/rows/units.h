// What the operators of independent layers side by side, the units, hand to the kernels.
#pragma once

#include "call.h"

namespace nalu {

constexpr int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

inline const void* behind(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + bytes;
}
inline void* behind(void* data, int64_t bytes) {
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

  RowsCall unit(int64_t u) const {
    const int64_t size = bytes_of(first.dtype);
    RowsCall call = first;
    call.input.data = behind(first.input.data, u * input_step * size);
    for (int i = 0; i < first.parameter_count; ++i) {
      call.parameters[i] = behind(first.parameters[i], u * first.sizes[i] * size);
    }
    return call;
  }
  void* output(void* of_first, int64_t u) const {
    return behind(of_first, u * first.B * first.layer.out * bytes_of(first.dtype));
  }
  int64_t saved_bytes() const { // a unit's
    const int64_t size = first.dtype == Dtype::float64 ? 8 : 4;
    return kept_of_units(first.layer) * first.B * size;
  }
};

// What a backward reads beside, and what it writes; of the first unit.
struct UnitsBackward {
  RowsBackward first;
  int64_t grad_step;

  // `saved`: what the forward kept, or of a NAC in log space its output.
  RowsBackward unit(const UnitsCall& call, int64_t u) const {
    const int64_t size = bytes_of(call.first.dtype);
    const StackLayer& layer = call.first.layer;
    RowsBackward pass = first;
    pass.grad_output.data = behind(first.grad_output.data, u * grad_step * size);
    const int64_t output = call.first.B * layer.out * size;
    pass.saved =
        behind(first.saved, u * (layer.kind == Kind::nac_log_space ? output : call.saved_bytes()));
    pass.input = behind(first.input, u * call.first.B * layer.in * size);
    for (int i = 0; i < call.first.parameter_count; ++i) {
      pass.parameters[i] = behind(first.parameters[i], u * call.first.sizes[i] * size);
    }
    return pass;
  }
};

} // namespace nalu
