// Checks of an operator's arguments and their reading into plain sizes and strides.
//
// Cheap and terse: a refusal becomes a RuntimeError, and nalu_kernels/checks.py then finds the
// words for the user.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor.h"

namespace nalu {

inline void check_eps(double eps) {
  STD_TORCH_CHECK(std::isfinite(eps) && eps > 0, "eps must be positive and finite");
}

inline void check_like(const Tensor& tensor, const Tensor& input, const char* name) {
  STD_TORCH_CHECK(
      tensor.dtype() == input.dtype() && tensor.device_type() == input.device_type() &&
          tensor.device_index() == input.device_index(),
      name,
      " must have the dtype and device of input");
}

inline void check_matrix(
    const Tensor& tensor, const Tensor& input, int64_t rows, int64_t cols, const char* name) {
  check_like(tensor, input, name);
  const int64_t* sizes = tensor.sizes();
  STD_TORCH_CHECK(
      tensor.dim() == 2 && sizes[0] == rows && sizes[1] == cols, name, " has the wrong shape");
}

// Whether the leading dimensions of (..., features) can be walked with one stride, and which.
inline bool one_row_stride(const Tensor& tensor, int64_t& row_stride) {
  const int64_t *sizes = tensor.sizes(), *strides = tensor.strides();
  int64_t count = 1;
  for (int64_t d = tensor.dim() - 2; d >= 0; --d) {
    if (sizes[d] == 1) {
      continue;
    }
    if (count == 1) {
      row_stride = strides[d];
    } else if (strides[d] != count * row_stride) {
      return false;
    }
    count *= sizes[d];
  }
  return true;
}

} // namespace nalu
