// The operators on CPU tensors: checks, allocation, and one call of the kernels.
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>

#include "../arguments.h"
#include "layer.h"

namespace nalu {

namespace {

// The best kernels for this processor; torch's own ATEN_CPU_CAPABILITY can ask for less.
const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string limit = wanted != nullptr ? wanted : "avx512";
    const bool avx512 = limit != "avx2" && limit != "default";
    if (avx512 && avx512_kernels() != nullptr) {
      return *avx512_kernels();
    }
    if (limit != "default" && avx2_kernels() != nullptr) {
      return *avx2_kernels();
    }
    return *portable_kernels();
  }();
  return chosen;
}

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Double:
      return Dtype::float64;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Half:
      return Dtype::float16;
    default:
      STD_TORCH_CHECK(false, "input must be float32, float64, bfloat16 or float16");
  }
}

int32_t compute_type(Dtype dtype) {
  return dtype == Dtype::float64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
}

// The layer's output: input's shape with out_features as its last dimension.
Tensor empty_output(const Tensor& input, int64_t out_features) {
  const auto sizes = with_last(input, out_features);
  return empty(input, sizes.data(), static_cast<int64_t>(sizes.size()), dtype_code(input));
}

// A layer's arguments, checked, and the tensors that keep its pointers alive.
class Arguments {
 public:
  Arguments(const Tensor& input, const Tensor& W_hat, const Tensor& M_hat, double eps)
      : Arguments(
            input, W_hat, M_hat, std::nullopt, std::nullopt, std::nullopt, std::nullopt, eps) {}

  Arguments(
      const Tensor& input,
      const Tensor& W_hat,
      const Tensor& M_hat,
      const OptionalTensor& G,
      const OptionalTensor& gate_bias,
      const OptionalTensor& W_hat_mul,
      const OptionalTensor& M_hat_mul,
      double eps) {
    check_eps(eps);
    STD_TORCH_CHECK(input.is_cpu() && input.dim() >= 1, "input must be on the CPU, not a scalar");
    STD_TORCH_CHECK(W_hat.dim() == 2, "W_hat must have 2 dimensions");
    STD_TORCH_CHECK(
        W_hat_mul.has_value() == M_hat_mul.has_value(),
        "W_hat_mul and M_hat_mul must be given together");
    layer_.dtype = dtype_of(input);
    const int64_t O = W_hat.size(0), I = W_hat.size(1);
    int64_t gates = 0;
    STD_TORCH_CHECK(
        input.size(input.dim() - 1) == I, "input must have in_features as its last dimension");
    layer_.W_hat = parameter(W_hat, input, O, I, "W_hat");
    layer_.M_hat = parameter(M_hat, input, O, I, "M_hat");
    if (G.has_value()) {
      STD_TORCH_CHECK(G->dim() == 2 && (G->size(0) == O || G->size(0) == 1), "G: wrong shape");
      gates = G->size(0);
      layer_.G = parameter(*G, input, gates, I, "G");
    }
    if (gate_bias.has_value()) {
      check_like(*gate_bias, input, "gate_bias");
      STD_TORCH_CHECK(
          gate_bias->dim() == 1 && gate_bias->size(0) == gates, "gate_bias has the wrong shape");
      layer_.gate_bias = keep(dense(*gate_bias));
    }
    if (W_hat_mul.has_value()) {
      layer_.W_hat_mul = parameter(*W_hat_mul, input, O, I, "W_hat_mul");
      layer_.M_hat_mul = parameter(*M_hat_mul, input, O, I, "M_hat_mul");
    }
    int64_t B = 0;
    layer_.input = rows(input, B);
    layer_.shape = {B, I, O, gates};
    layer_.eps = eps;
    layer_.linear = layer_.log_space = true;
  }

  // The rows of an output's gradient, which must have the output's shape.
  Rows grad_output(const Tensor& grad, const Tensor& input) {
    check_like(grad, input, "grad_output");
    const auto sizes = grad.sizes();
    const auto expected = with_last(input, layer_.shape.O);
    STD_TORCH_CHECK(
        sizes.size() == expected.size() &&
            std::equal(sizes.begin(), sizes.end(), expected.begin()),
        "grad_output has the wrong shape");
    int64_t B = 0;
    return rows(grad, B);
  }

  Layer& layer() {
    return layer_;
  }

 private:
  const void* keep(Tensor tensor) {
    kept_[used_] = std::move(tensor);
    return kept_[used_++]->const_data_ptr();
  }

  const void* parameter(
      const Tensor& tensor, const Tensor& input, int64_t n_rows, int64_t cols, const char* name) {
    check_matrix(tensor, input, n_rows, cols, name);
    return keep(dense(tensor));
  }

  Rows rows(const Tensor& tensor, int64_t& count) {
    Flattened flat = as_rows(tensor);
    count = flat.rows;
    return {keep(std::move(flat.tensor)), flat.row_stride, flat.col_stride};
  }

  Layer layer_{};
  OptionalTensor kept_[8];
  int used_ = 0;
};

// saved is flat: a, m, g (see ops.cpp).
Saved split(const Shape& shape, Dtype dtype, const Tensor& saved) {
  const int64_t bytes = dtype == Dtype::float64 ? 8 : 4, plane = shape.B * shape.O * bytes;
  char* data = static_cast<char*>(saved.mutable_data_ptr());
  return {data, data + plane, data + 2 * plane};
}

// Memory for a gradient like `tensor` if it is wanted; otherwise undefined.
Tensor gradient(bool wanted, const Tensor& tensor, void*& data) {
  if (!wanted) {
    return Tensor();
  }
  Tensor result = empty_as(tensor);
  data = result.mutable_data_ptr();
  return result;
}

Tensor nac_forward(
    const Tensor& input, const Tensor& W_hat, const Tensor& M_hat, bool log_space, double eps) {
  Arguments arguments(input, W_hat, M_hat, eps);
  Layer& layer = arguments.layer();
  layer.linear = !log_space;
  layer.log_space = log_space;
  Tensor output = empty_output(input, layer.shape.O);
  kernels().forward(layer, output.mutable_data_ptr(), {});
  return output;
}

std::tuple<Tensor, Tensor, Tensor> nac_backward(
    const Tensor& grad_output,
    const Tensor& input,
    const Tensor& W_hat,
    const Tensor& M_hat,
    const OptionalTensor& output,
    double eps,
    const std::vector<bool>& needed) {
  Arguments arguments(input, W_hat, M_hat, eps);
  Layer& layer = arguments.layer();
  const Rows grad = arguments.grad_output(grad_output, input);
  layer.log_space = output.has_value();
  layer.linear = !layer.log_space;
  STD_TORCH_CHECK(needed.size() == 3, "needed must have 3 entries");
  Gradients grads{};
  auto result = std::make_tuple(
      gradient(needed[0], input, grads.input),
      gradient(needed[1], W_hat, grads.W_hat),
      gradient(needed[2], M_hat, grads.M_hat));
  const void* m = output.has_value() ? output->const_data_ptr() : nullptr;
  kernels().backward(layer, grad, m, {}, grads);
  return result;
}

std::tuple<Tensor, Tensor> nalu_forward(
    const Tensor& input,
    const Tensor& W_hat,
    const Tensor& M_hat,
    const Tensor& G,
    const OptionalTensor& gate_bias,
    const OptionalTensor& W_hat_mul,
    const OptionalTensor& M_hat_mul,
    double eps,
    bool save) {
  Arguments arguments(input, W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul, eps);
  const Layer& layer = arguments.layer();
  const Shape& shape = layer.shape;
  Tensor output = empty_output(input, shape.O);
  const int64_t size[] = {save ? shape.B * (2 * shape.O + shape.gates) : 0};
  Tensor saved = empty(input, size, 1, compute_type(layer.dtype));
  kernels().forward(
      layer, output.mutable_data_ptr(), save ? split(shape, layer.dtype, saved) : Saved{});
  return {output, saved};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> nalu_backward(
    const Tensor& grad_output,
    const Tensor& input,
    const Tensor& W_hat,
    const Tensor& M_hat,
    const Tensor& G,
    const OptionalTensor& W_hat_mul,
    const OptionalTensor& M_hat_mul,
    const Tensor& saved,
    double eps,
    const std::vector<bool>& needed) {
  Arguments arguments(input, W_hat, M_hat, G, std::nullopt, W_hat_mul, M_hat_mul, eps);
  const Layer& layer = arguments.layer();
  const Shape& shape = layer.shape;
  const Rows grad = arguments.grad_output(grad_output, input);
  STD_TORCH_CHECK(
      saved.is_contiguous() && saved.numel() == shape.B * (2 * shape.O + shape.gates) &&
          dtype_code(saved) == compute_type(layer.dtype),
      "saved is not what nalu_forward returned");
  STD_TORCH_CHECK(needed.size() == 7, "needed must have 7 entries");
  STD_TORCH_CHECK(
      W_hat_mul.has_value() || !(needed[5] || needed[6]),
      "no gradient of W_hat_mul or M_hat_mul without them");
  Gradients grads{};
  const int64_t gates[] = {shape.gates};
  Tensor gate_bias;
  if (needed[4]) {
    gate_bias = empty(G, gates, 1, dtype_code(G));
    grads.gate_bias = gate_bias.mutable_data_ptr();
  }
  auto result = std::make_tuple(
      gradient(needed[0], input, grads.input),
      gradient(needed[1], W_hat, grads.W_hat),
      gradient(needed[2], M_hat, grads.M_hat),
      gradient(needed[3], G, grads.G),
      gate_bias,
      needed[5] ? gradient(true, *W_hat_mul, grads.W_hat_mul) : Tensor(),
      needed[6] ? gradient(true, *M_hat_mul, grads.M_hat_mul) : Tensor());
  kernels().backward(layer, grad, nullptr, split(shape, layer.dtype, saved), grads);
  return result;
}

std::string cpu_capability() {
  return kernels().name;
}

} // namespace

} // namespace nalu

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CPU, m) {
  m.impl("nac_forward", TORCH_BOX(&nalu::nac_forward));
  m.impl("nac_backward", TORCH_BOX(&nalu::nac_backward));
  m.impl("nalu_forward", TORCH_BOX(&nalu::nalu_forward));
  m.impl("nalu_backward", TORCH_BOX(&nalu::nalu_backward));
}

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&nalu::cpu_capability));
}
