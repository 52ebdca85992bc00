// Checks of an operator's arguments and their reading into plain sizes and strides.
//
// Cheap and terse: a refusal becomes a RuntimeError, and nalu_kernels/checks.py then finds the
// words for the user.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "layer.h"
#include "tensor.h"

namespace nalu {

inline Dtype dtype_of(const Tensor& tensor) {
  const int32_t code = tensor.dtype();
  if (code == aoti_torch_dtype_float32()) {
    return Dtype::float32;
  }
  if (code == aoti_torch_dtype_float64()) {
    return Dtype::float64;
  }
  if (code == aoti_torch_dtype_bfloat16()) {
    return Dtype::bfloat16;
  }
  check(code == aoti_torch_dtype_float16(), "input must be float32, float64, bfloat16 or float16");
  return Dtype::float16;
}

inline int32_t compute_type(Dtype dtype) {
  return dtype == Dtype::float64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
}

inline void check_eps(double eps) {
  check(std::isfinite(eps) && eps > 0, "eps must be positive and finite");
}

inline bool on_device_of(const Tensor& tensor, const Tensor& input) {
  return tensor.device_type() == input.device_type() &&
      tensor.device_index() == input.device_index();
}

inline void check_like(const Tensor& tensor, const Tensor& input, const char* name) {
  if (tensor.dtype() != input.dtype() || !on_device_of(tensor, input)) {
    refuse(std::string(name) + " must have the dtype and device of input");
  }
}

inline void check_matrix(
    const Tensor& tensor, const Tensor& input, int64_t rows, int64_t cols, const char* name) {
  check_like(tensor, input, name);
  const int64_t* sizes = tensor.sizes();
  if (tensor.dim() != 2 || sizes[0] != rows || sizes[1] != cols) {
    refuse(std::string(name) + " has the wrong shape");
  }
}

// Whether the leading dimensions of (..., features), from `first` on, can be walked with one stride, and
// which.
inline bool one_row_stride(const Tensor& tensor, int64_t first, int64_t& row_stride) {
  const int64_t *sizes = tensor.sizes(), *strides = tensor.strides();
  int64_t count = 1;
  for (int64_t d = tensor.dim() - 2; d >= first; --d) {
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

// An operator's input of shape (..., I), and what is shaped like it. Tensors whose memory the kernels
// cannot walk are copied while they are read; the copies live as long as this does.
class Batch {
 public:
  Batch(int32_t device_type, const Tensor& input) : input_(input) {
    const int64_t dim = input.dim();
    check(
        input.device_type() == device_type && dim >= 1 && dim <= Tensor::kMaxDim,
        "input must be on this operator's device, of 1 to 64 dimensions");
    dtype = dtype_of(input);
    for (int64_t d = 0; d < dim - 1; ++d) {
      B *= input.sizes()[d];
    }
  }

  void check_features(int64_t I) const {
    check(
        input_.sizes()[input_.dim() - 1] == I, "input must have in_features as its last dimension");
  }

  Rows read_rows(const Tensor& tensor) {
    int64_t step = 0;
    return read_rows(tensor, 0, step);
  }
  // Of the first of several batches, if there is one dimension before the rows', and the step to the
  // next of them.
  Rows read_rows(const Tensor& tensor, int64_t leading, int64_t& step) {
    const int64_t *sizes = tensor.sizes(), *strides = tensor.strides();
    const int64_t last = tensor.dim() - 1;
    int64_t row_stride = sizes[last];
    if (B == 0 || one_row_stride(tensor, leading, row_stride)) {
      step = strides[0];
      return {tensor.data(), row_stride, strides[last]};
    }
    step = leading > 0 ? B / sizes[0] * sizes[last] : 0;
    return {keep(tensor.contiguous()), sizes[last], 1};
  }

  const void* read_contiguous(const Tensor& tensor) {
    return tensor.is_contiguous() ? tensor.data() : keep(tensor.contiguous());
  }

  // input's shape with O as its last dimension.
  Tensor empty_output(int64_t O) const {
    int64_t sizes[Tensor::kMaxDim];
    return input_.empty(sizes, output_sizes(O, sizes), input_.dtype());
  }

  void check_output_shape(int64_t O, const Tensor& tensor, const char* message) const {
    int64_t sizes[Tensor::kMaxDim];
    const int64_t dim = output_sizes(O, sizes);
    check(tensor.dim() == dim && std::equal(sizes, sizes + dim, tensor.sizes()), message);
  }

  void check_grad_output(int64_t O, const Tensor& grad) const {
    check_like(grad, input_, "grad_output");
    check_output_shape(O, grad, "grad_output has the wrong shape");
  }

  Dtype dtype;
  int64_t B = 1;

 private:
  // Returns how many there are.
  int64_t output_sizes(int64_t O, int64_t* sizes) const {
    const int64_t dim = input_.dim();
    std::copy_n(input_.sizes(), dim, sizes);
    sizes[dim - 1] = O;
    return dim;
  }

  const void* keep(Tensor tensor) {
    const void* data = tensor.data();
    kept_.push_back(std::move(tensor));
    return data;
  }

  const Tensor& input_;
  std::vector<Tensor> kept_;
};

// A layer's arguments: first checked, then read.
class Arguments {
 public:
  // `W` is W_hat, or the weights themselves if no M_hat follows.
  Arguments(int32_t device_type, const Tensor& input, const Tensor& W, double eps)
      : input_(input), batch_(device_type, input) {
    check_eps(eps);
    check(W.dim() == 2, "W_hat must have 2 dimensions");
    layer.dtype = batch_.dtype;
    layer.shape.O = W.sizes()[0];
    layer.shape.I = W.sizes()[1];
    layer.shape.B = batch_.B;
    layer.eps = eps;
    batch_.check_features(layer.shape.I);
    check_weight(W, layer.shape.O, "W_hat", &Layer::W_hat);
  }

  void set_paths(bool linear, bool log_space) {
    layer.linear = linear;
    layer.log_space = log_space;
  }

  void check_M_hat(const Tensor& M_hat) {
    check_weight(M_hat, layer.shape.O, "M_hat", &Layer::M_hat);
  }

  void check_gate(const Tensor& G, const OptionalTensor& gate_bias) {
    const int64_t gates = G.dim() == 2 ? G.sizes()[0] : -1;
    check(gates == layer.shape.O || gates == 1, "G has the wrong shape");
    layer.shape.gates = gates;
    check_weight(G, gates, "G", &Layer::G);
    if (gate_bias.has_value()) {
      check_like(*gate_bias, input_, "gate_bias");
      check(
          gate_bias->dim() == 1 && gate_bias->sizes()[0] == gates, "gate_bias has the wrong shape");
      parameters_[count_++] = {&*gate_bias, &Layer::gate_bias};
    }
  }

  void check_untied(const OptionalTensor& W_hat_mul, const OptionalTensor& M_hat_mul) {
    check(
        W_hat_mul.has_value() == M_hat_mul.has_value(),
        "W_hat_mul and M_hat_mul must be given together");
    if (W_hat_mul.has_value()) {
      check_weight(*W_hat_mul, layer.shape.O, "W_hat_mul", &Layer::W_hat_mul);
      check_weight(*M_hat_mul, layer.shape.O, "M_hat_mul", &Layer::M_hat_mul);
    }
  }

  void check_grad_output(const Tensor& grad) const {
    batch_.check_grad_output(layer.shape.O, grad);
  }

  void check_output(const Tensor& output) const {
    check_like(output, input_, "output");
    batch_.check_output_shape(layer.shape.O, output, "output has the wrong shape");
    check(output.is_contiguous(), "output is not what nac_forward returned");
  }

  // The product's own weights themselves.
  void check_W_mul(const OptionalTensor& W_mul) {
    if (W_mul.has_value()) {
      check_weight(*W_mul, layer.shape.O, "W_mul", &Layer::W_hat_mul);
    }
  }

  // After the last check.
  void read() {
    for (int i = 0; i < count_; ++i) {
      layer.*parameters_[i].second = batch_.read_contiguous(*parameters_[i].first);
    }
    layer.input = read_rows(input_);
  }

  Rows read_rows(const Tensor& tensor) {
    return batch_.read_rows(tensor);
  }

  // input's shape with out_features as its last dimension.
  Tensor empty_output() const {
    return batch_.empty_output(layer.shape.O);
  }

  Layer layer{};

 private:
  using Field = const void* Layer::*;

  void check_weight(const Tensor& tensor, int64_t rows, const char* name, Field field) {
    check_matrix(tensor, input_, rows, layer.shape.I, name);
    parameters_[count_++] = {&tensor, field};
  }

  const Tensor& input_;
  Batch batch_;
  // Checked, and where they will be in `layer`.
  std::pair<const Tensor*, Field> parameters_[6];
  int count_ = 0;
};

} // namespace nalu
