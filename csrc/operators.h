// The operators, for every device: checks, allocation, and one call of the kernels.
//
// A Device has
//   static int32_t type();
//   static void forward(const Tensor& input, const Layer&, void* output, const Saved&);
//   static void backward(const Tensor& input, const Layer&, const Backward&);
// where `input` is there to allocate beside.
#pragma once

#include <utility>

#include "arguments.h"

namespace nalu {

// saved is flat: a, m, g (see ops.cpp).
inline int64_t saved_size(const Shape& shape) {
  return shape.B * (2 * shape.O + shape.gates);
}

inline Saved split(const Layer& layer, const Tensor& saved) {
  const int64_t bytes = layer.dtype == Dtype::float64 ? 8 : 4;
  const int64_t plane = layer.shape.B * layer.shape.O * bytes;
  char* data = static_cast<char*>(saved.data());
  return {data, data + plane, data + 2 * plane};
}

// Memory for a gradient like `tensor` if it is wanted; otherwise undefined.
inline Tensor gradient(bool wanted, const Tensor& tensor, void*& data) {
  if (!wanted) {
    return Tensor::undefined();
  }
  Tensor result = tensor.empty(tensor.sizes(), tensor.dim(), tensor.dtype());
  data = result.data();
  return result;
}

inline bool wants(int64_t needed, int i) {
  return (needed >> i & 1) != 0;
}

// Nothing is saved.
template <class Device>
Tensor output_of(const Tensor& input, Arguments& arguments) {
  arguments.read();
  Tensor output = arguments.empty_output();
  Device::forward(input, arguments.layer, output.data(), {});
  return output;
}

template <class Device>
void nac_forward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const bool log_space = stack.take<bool>();
  const Tensor input = stack.tensor(), W_hat = stack.tensor(), M_hat = stack.tensor();

  Arguments arguments(Device::type(), input, W_hat, eps);
  arguments.check_M_hat(M_hat);
  arguments.set_paths(!log_space, log_space);
  stack.put(output_of<Device>(input, arguments));
}

template <class Device>
void nac_backward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor();
  const OptionalTensor output = stack.optional_tensor();
  const Tensor input = stack.tensor(), W_hat = stack.tensor(), M_hat = stack.tensor();

  Arguments arguments(Device::type(), input, W_hat, eps);
  arguments.check_M_hat(M_hat);
  arguments.set_paths(!output.has_value(), output.has_value());
  arguments.check_grad_output(grad_output);
  if (output.has_value()) {
    arguments.check_output(*output);
  }
  arguments.read();
  const Rows grad = arguments.read_rows(grad_output);
  Gradients grads{};
  Tensor results[] = {
      gradient(wants(needed, 0), input, grads.input),
      gradient(wants(needed, 1), W_hat, grads.W_hat),
      gradient(wants(needed, 2), W_hat, grads.M_hat)};
  const void* m = output.has_value() ? output->data() : nullptr;
  Device::backward(input, arguments.layer, {grad, m, {}, grads});
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

  Arguments check(int32_t device_type, double eps) const {
    Arguments arguments(device_type, input, W_hat, eps);
    arguments.check_M_hat(M_hat);
    arguments.check_gate(G, gate_bias);
    arguments.check_untied(W_hat_mul, M_hat_mul);
    arguments.set_paths(true, true);
    return arguments;
  }

  const Tensor input, W_hat, M_hat, G;
  const OptionalTensor gate_bias, W_hat_mul, M_hat_mul;
};

template <class Device>
void nalu_forward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const bool save = stack.take<bool>();
  const NaluTensors tensors(stack);

  Arguments arguments = tensors.check(Device::type(), eps);
  arguments.read();
  const Layer& layer = arguments.layer;
  Tensor output = arguments.empty_output();
  const int64_t size = save ? saved_size(layer.shape) : 0;
  Tensor saved = tensors.input.empty(&size, 1, compute_type(layer.dtype));
  Device::forward(tensors.input, layer, output.data(), save ? split(layer, saved) : Saved{});
  stack.put(std::move(output));
  stack.put(std::move(saved));
}

template <class Device>
void nalu_backward(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor(), saved = stack.tensor();
  const NaluTensors tensors(stack);

  Arguments arguments = tensors.check(Device::type(), eps);
  const Layer& layer = arguments.layer;
  arguments.check_grad_output(grad_output);
  check(
      saved.is_contiguous() && saved.numel() == saved_size(layer.shape) &&
          saved.dtype() == compute_type(layer.dtype) && on_device_of(saved, tensors.input),
      "saved is not what nalu_forward returned");
  arguments.read();
  const Rows grad = arguments.read_rows(grad_output);
  const bool untied = tensors.W_hat_mul.has_value(); // of empty weights the data is null
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
  Device::backward(tensors.input, layer, {grad, nullptr, split(layer, saved), grads});
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

// A Device whose kernels take W itself (see layer.h) has these too, and
//   static void transform(const Layer&, void* W);

template <class Device>
void transform(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const Tensor W_hat = stack.tensor(), M_hat = stack.tensor();
  Arguments arguments(Device::type(), W_hat, W_hat, 1.0);
  arguments.check_M_hat(M_hat);
  arguments.read();
  Tensor W = W_hat.empty(W_hat.sizes(), W_hat.dim(), W_hat.dtype());
  Device::transform(arguments.layer, W.data());
  stack.put(std::move(W));
}

template <class Device>
void nac_of_W(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const bool log_space = stack.take<bool>();
  const Tensor input = stack.tensor(), W = stack.tensor();

  Arguments arguments(Device::type(), input, W, eps);
  arguments.set_paths(!log_space, log_space);
  stack.put(output_of<Device>(input, arguments));
}

template <class Device>
void nalu_of_W(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const double eps = stack.take<double>();
  const Tensor input = stack.tensor(), W = stack.tensor(), G = stack.tensor();
  const OptionalTensor gate_bias = stack.optional_tensor(), W_mul = stack.optional_tensor();

  Arguments arguments(Device::type(), input, W, eps);
  arguments.check_gate(G, gate_bias);
  arguments.check_W_mul(W_mul);
  arguments.set_paths(true, true);
  stack.put(output_of<Device>(input, arguments));
}

} // namespace nalu
