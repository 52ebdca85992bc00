// The operators on CPU tensors: checks, allocation, and one call of the kernels.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

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
  STD_TORCH_CHECK(
      code == aoti_torch_dtype_float16(),
      "input must be float32, float64, bfloat16 or float16");
  return Dtype::float16;
}

int32_t compute_type(Dtype dtype) {
  return dtype == Dtype::float64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
}

// A layer's arguments, checked. Tensors whose memory the kernels cannot walk are copied; the copies
// live as long as this does.
class Arguments {
 public:
  Arguments(const Tensor& input, const Tensor& W_hat, const Tensor& M_hat, double eps)
      : input_(input) {
    check_eps(eps);
    const int64_t dim = input.dim();
    STD_TORCH_CHECK(
        input.device_type() == aoti_torch_device_type_cpu() && dim >= 1 && dim <= Tensor::kMaxDim,
        "input must be on the CPU, of 1 to 64 dimensions");
    STD_TORCH_CHECK(W_hat.dim() == 2, "W_hat must have 2 dimensions");
    layer.dtype = dtype_of(input);
    layer.shape.O = W_hat.sizes()[0];
    layer.shape.I = W_hat.sizes()[1];
    layer.eps = eps;
    STD_TORCH_CHECK(
        input.sizes()[dim - 1] == layer.shape.I,
        "input must have in_features as its last dimension");
    layer.W_hat = parameter(W_hat, layer.shape.O, "W_hat");
    layer.M_hat = parameter(M_hat, layer.shape.O, "M_hat");
    layer.input = rows(input, layer.shape.B);
  }

  void gate(const Tensor& G, const OptionalTensor& gate_bias) {
    const int64_t gates = G.dim() == 2 ? G.sizes()[0] : -1;
    STD_TORCH_CHECK(gates == layer.shape.O || gates == 1, "G has the wrong shape");
    layer.shape.gates = gates;
    layer.G = parameter(G, gates, "G");
    if (gate_bias.has_value()) {
      check_like(*gate_bias, input_, "gate_bias");
      STD_TORCH_CHECK(
          gate_bias->dim() == 1 && gate_bias->sizes()[0] == gates,
          "gate_bias has the wrong shape");
      layer.gate_bias = contiguous(*gate_bias);
    }
  }

  void untie(const OptionalTensor& W_hat_mul, const OptionalTensor& M_hat_mul) {
    STD_TORCH_CHECK(
        W_hat_mul.has_value() == M_hat_mul.has_value(),
        "W_hat_mul and M_hat_mul must be given together");
    if (W_hat_mul.has_value()) {
      layer.W_hat_mul = parameter(*W_hat_mul, layer.shape.O, "W_hat_mul");
      layer.M_hat_mul = parameter(*M_hat_mul, layer.shape.O, "M_hat_mul");
    }
  }

  // input's shape with out_features as its last dimension.
  Tensor empty_output() const {
    int64_t sizes[Tensor::kMaxDim];
    return input_.empty(sizes, output_sizes(sizes), input_.dtype());
  }

  // The rows of an output's gradient.
  Rows grad_output(const Tensor& grad) {
    check_like(grad, input_, "grad_output");
    int64_t sizes[Tensor::kMaxDim];
    const int64_t dim = output_sizes(sizes);
    STD_TORCH_CHECK(
        grad.dim() == dim && std::equal(sizes, sizes + dim, grad.sizes()),
        "grad_output has the wrong shape");
    int64_t count = 0;
    return rows(grad, count);
  }

  Layer layer{};

 private:
  // Returns how many there are.
  int64_t output_sizes(int64_t* sizes) const {
    const int64_t dim = input_.dim();
    std::copy_n(input_.sizes(), dim, sizes);
    sizes[dim - 1] = layer.shape.O;
    return dim;
  }

  const void* keep(Tensor tensor) {
    const void* data = tensor.data();
    kept_.push_back(std::move(tensor));
    return data;
  }

  const void* parameter(const Tensor& tensor, int64_t count, const char* name) {
    check_matrix(tensor, input_, count, layer.shape.I, name);
    return contiguous(tensor);
  }

  const void* contiguous(const Tensor& tensor) {
    return tensor.is_contiguous() ? tensor.data() : keep(tensor.contiguous());
  }

  Rows rows(const Tensor& tensor, int64_t& count) {
    const int64_t* sizes = tensor.sizes();
    const int64_t last = tensor.dim() - 1;
    count = 1;
    for (int64_t d = 0; d < last; ++d) {
      count *= sizes[d];
    }
    int64_t row_stride = sizes[last];
    if (count == 0 || one_row_stride(tensor, row_stride)) {
      return {tensor.data(), row_stride, tensor.strides()[last]};
    }
    return {keep(tensor.contiguous()), sizes[last], 1};
  }

  const Tensor& input_;
  std::vector<Tensor> kept_;
};

// saved is flat: a, m, g (see ops.cpp).
int64_t saved_size(const Shape& shape) {
  return shape.B * (2 * shape.O + shape.gates);
}

Saved split(const Layer& layer, const Tensor& saved) {
  const int64_t bytes = layer.dtype == Dtype::float64 ? 8 : 4;
  const int64_t plane = layer.shape.B * layer.shape.O * bytes;
  char* data = static_cast<char*>(saved.data());
  return {data, data + plane, data + 2 * plane};
}

// Memory for a gradient like `tensor` if it is wanted; otherwise undefined.
Tensor gradient(bool wanted, const Tensor& tensor, void*& data) {
  if (!wanted) {
    return Tensor::undefined();
  }
  Tensor result = tensor.empty(tensor.sizes(), tensor.dim(), tensor.dtype());
  data = result.data();
  return result;
}

bool wants(int64_t needed, int i) {
  return (needed >> i & 1) != 0;
}

void nac_forward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const bool log_space = stack.take<bool>();
  const Tensor input = stack.tensor(), W_hat = stack.tensor(), M_hat = stack.tensor();

  Arguments arguments(input, W_hat, M_hat, eps);
  arguments.layer.linear = !log_space;
  arguments.layer.log_space = log_space;
  Tensor output = arguments.empty_output();
  kernels().forward(arguments.layer, output.data(), {});
  stack.put(std::move(output));
}

void nac_backward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor();
  const OptionalTensor output = stack.optional_tensor();
  const Tensor input = stack.tensor(), W_hat = stack.tensor(), M_hat = stack.tensor();

  Arguments arguments(input, W_hat, M_hat, eps);
  arguments.layer.log_space = output.has_value();
  arguments.layer.linear = !output.has_value();
  const Rows grad = arguments.grad_output(grad_output);
  Gradients grads{};
  Tensor results[] = {
      gradient(wants(needed, 0), input, grads.input),
      gradient(wants(needed, 1), W_hat, grads.W_hat),
      gradient(wants(needed, 2), W_hat, grads.M_hat)};
  const void* m = output.has_value() ? output->data() : nullptr;
  kernels().backward(arguments.layer, grad, m, {}, grads);
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

// The tensors of a NALU, as they come on the stack.
struct NaluTensors {
  explicit NaluTensors(Stack& stack)
      : input(stack.tensor()),
        W_hat(stack.tensor()),
        M_hat(stack.tensor()),
        G(stack.tensor()),
        gate_bias(stack.optional_tensor()),
        W_hat_mul(stack.optional_tensor()),
        M_hat_mul(stack.optional_tensor()) {}

  Arguments check(double eps) const {
    Arguments arguments(input, W_hat, M_hat, eps);
    arguments.gate(G, gate_bias);
    arguments.untie(W_hat_mul, M_hat_mul);
    arguments.layer.linear = arguments.layer.log_space = true;
    return arguments;
  }

  const Tensor input, W_hat, M_hat, G;
  const OptionalTensor gate_bias, W_hat_mul, M_hat_mul;
};

void nalu_forward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const bool save = stack.take<bool>();
  const NaluTensors tensors(stack);

  const Arguments arguments = tensors.check(eps);
  const Layer& layer = arguments.layer;
  Tensor output = arguments.empty_output();
  const int64_t size = save ? saved_size(layer.shape) : 0;
  Tensor saved = tensors.input.empty(&size, 1, compute_type(layer.dtype));
  kernels().forward(layer, output.data(), save ? split(layer, saved) : Saved{});
  stack.put(std::move(output));
  stack.put(std::move(saved));
}

void nalu_backward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor(), saved = stack.tensor();
  const NaluTensors tensors(stack);

  Arguments arguments = tensors.check(eps);
  const Layer& layer = arguments.layer;
  const Rows grad = arguments.grad_output(grad_output);
  STD_TORCH_CHECK(
      saved.is_contiguous() && saved.numel() == saved_size(layer.shape) &&
          saved.dtype() == compute_type(layer.dtype),
      "saved is not what nalu_forward returned");
  const bool untied = tensors.W_hat_mul.has_value();
  Gradients grads{};
  // W_hat's shape is that of all four weights.
  Tensor results[] = {
      gradient(wants(needed, 0), tensors.input, grads.input),
      gradient(wants(needed, 1), tensors.W_hat, grads.W_hat),
      gradient(wants(needed, 2), tensors.W_hat, grads.M_hat),
      gradient(wants(needed, 3), tensors.G, grads.G),
      Tensor::undefined(),
      gradient(untied && wants(needed, 5), tensors.W_hat, grads.W_hat_mul),
      gradient(untied && wants(needed, 6), tensors.W_hat, grads.M_hat_mul)};
  if (wants(needed, 4)) {
    results[4] = tensors.input.empty(&layer.shape.gates, 1, tensors.input.dtype());
    grads.gate_bias = results[4].data();
  }
  kernels().backward(layer, grad, nullptr, split(layer, saved), grads);
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

std::string cpu_capability() {
  return kernels().name;
}

} // namespace

} // namespace nalu

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CPU, m) {
  m.impl("nac_forward", nalu::nac_forward);
  m.impl("nac_backward", nalu::nac_backward);
  m.impl("nalu_forward", nalu::nalu_forward);
  m.impl("nalu_backward", nalu::nalu_backward);
}

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&nalu::cpu_capability));
}
