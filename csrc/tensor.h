// A tensor across LibTorch's stable ABI, and the stack on which an operator's arguments come.
//
// torch::stable::Tensor and TORCH_BOX do the same with a shared pointer for each tensor and copies
// of each; a tiny layer's whole forward and backward has about 15 us above an empty call, and this
// saves one of them.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "torch.h"

namespace nalu {

// Owns one reference.
class Tensor {
 public:
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Tensor() {
    if (handle_ != nullptr) {
      aoti_torch_delete_tensor_object(handle_);
    }
  }

  // What Python sees as None.
  static Tensor undefined() {
    return Tensor(made(aoti_torch_new_uninitialized_tensor));
  }

  // torch's own limit.
  static constexpr int64_t kMaxDim = 64;

  // Uninitialised, contiguous, on this tensor's device.
  Tensor empty(const int64_t* sizes, int64_t dim, int32_t dtype) const {
    int64_t strides[kMaxDim], step = 1;
    for (int64_t d = dim - 1; d >= 0; --d) {
      strides[d] = step;
      step *= sizes[d] > 0 ? sizes[d] : 1;
    }
    const auto type = device_type();
    const auto index = device_index();
    return Tensor(made(aoti_torch_empty_strided, dim, sizes, strides, dtype, type, index));
  }

  // This tensor again if it is contiguous, else a copy that is.
  Tensor contiguous() const {
    const torch::stable::Tensor self(made(aoti_torch_new_tensor_handle, handle_));
    const auto copy = torch::stable::contiguous(self);
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(copy.get(), &handle));
    return Tensor(handle);
  }

  bool is_contiguous() const {
    return got<bool>(aoti_torch_is_contiguous);
  }
  int64_t dim() const {
    return got<int64_t>(aoti_torch_get_dim);
  }
  int64_t numel() const {
    return got<int64_t>(aoti_torch_get_numel);
  }
  const int64_t* sizes() const {
    return got<int64_t*>(aoti_torch_get_sizes);
  }
  const int64_t* strides() const {
    return got<int64_t*>(aoti_torch_get_strides);
  }
  int32_t dtype() const {
    return got<int32_t>(aoti_torch_get_dtype);
  }
  int32_t device_type() const {
    return got<int32_t>(aoti_torch_get_device_type);
  }
  int32_t device_index() const {
    return got<int32_t>(aoti_torch_get_device_index);
  }
  void* data() const {
    return got<void*>(aoti_torch_get_data_ptr);
  }
  AtenTensorHandle get() const {
    return handle_;
  }
  AtenTensorHandle release() {
    return std::exchange(handle_, nullptr);
  }

 private:
  template <class T, class F>
  T got(F function) const {
    T value;
    TORCH_ERROR_CODE_CHECK(function(handle_, &value));
    return value;
  }
  template <class F, class... Args>
  static AtenTensorHandle made(F function, Args... args) {
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(function(args..., &handle));
    return handle;
  }

  AtenTensorHandle handle_;
};

using OptionalTensor = std::optional<Tensor>;

// Takes an operator's arguments in their order, and puts its results in theirs.
class Stack {
 public:
  explicit Stack(StableIValue* values) : values_(values) {}

  Tensor tensor() {
    return Tensor(take<AtenTensorHandle>());
  }
  OptionalTensor optional_tensor() {
    const auto handle = take<std::optional<AtenTensorHandle>>();
    return handle.has_value() ? OptionalTensor(Tensor(*handle)) : std::nullopt;
  }
  template <class T>
  T take() {
    return torch::stable::detail::to<T>(values_[next_++]);
  }
  void put(Tensor tensor) {
    values_[out_++] = torch::stable::detail::from(tensor.release());
  }

 private:
  StableIValue* values_;
  int next_ = 0, out_ = 0;
};

} // namespace nalu
