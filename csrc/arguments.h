// Checks of an operator's arguments and their reading into plain sizes and strides.
//
// Cheap and terse: a refusal becomes a RuntimeError, and nalu_kernels/checks.py then finds the
// words for the user.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace nalu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline void check_eps(double eps) {
  STD_TORCH_CHECK(std::isfinite(eps) && eps > 0, "eps must be positive and finite");
}

inline void check_like(const Tensor& tensor, const Tensor& input, const char* name) {
  STD_TORCH_CHECK(
      tensor.scalar_type() == input.scalar_type() && tensor.is_cpu() == input.is_cpu() &&
          tensor.get_device_index() == input.get_device_index(),
      name,
      " must have the dtype and device of input");
}

inline void check_matrix(
    const Tensor& tensor, const Tensor& input, int64_t rows, int64_t cols, const char* name) {
  check_like(tensor, input, name);
  STD_TORCH_CHECK(
      tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == cols,
      name,
      " has the wrong shape");
}

// (..., features) seen as rows: the tensor itself, or a copy where its leading dimensions cannot
// be walked with one stride.
struct Flattened {
  Tensor tensor;
  int64_t rows, cols, row_stride, col_stride;
};

inline bool one_row_stride(const Tensor& tensor, int64_t& row_stride) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  int64_t count = 1;
  for (int64_t d = static_cast<int64_t>(sizes.size()) - 2; d >= 0; --d) {
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

inline Flattened as_rows(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1, cols = tensor.size(last);
  int64_t rows = 1;
  for (int64_t d = 0; d < last; ++d) {
    rows *= tensor.size(d);
  }
  int64_t row_stride = cols;
  if (rows == 0 || one_row_stride(tensor, row_stride)) {
    return {tensor, rows, cols, row_stride, tensor.stride(last)};
  }
  return {torch::stable::contiguous(tensor), rows, cols, cols, 1};
}

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Uninitialised and contiguous, on `like`'s device. (The stable new_empty finds its operator by name
// at every call; this is the same allocation without the search.)
inline Tensor empty(const Tensor& like, const int64_t* sizes, int64_t dim, int32_t dtype) {
  constexpr int64_t kMaxDim = 64;
  STD_TORCH_CHECK(dim <= kMaxDim, "more than 64 dimensions");
  int64_t strides[kMaxDim], step = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = step;
    step *= sizes[d] > 0 ? sizes[d] : 1;
  }
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

inline int32_t dtype_code(const Tensor& tensor) {
  int32_t code;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
  return code;
}

inline Tensor empty_as(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return empty(tensor, sizes.data(), static_cast<int64_t>(sizes.size()), dtype_code(tensor));
}

// The shape of `like` with another last dimension.
inline std::vector<int64_t> with_last(const Tensor& like, int64_t last) {
  const auto sizes = like.sizes();
  std::vector<int64_t> result(sizes.begin(), sizes.end());
  result.back() = last;
  return result;
}

} // namespace nalu
