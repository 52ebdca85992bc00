// The operators of independent layers side by side, for every device that has
//   static void forward_units(const Tensor& input, const UnitsCall&, void* output, void* saved);
//   static void backward_units(const Tensor& input, const UnitsCall&, const UnitsBackward&);
// The tensors are a layer's, each with a dimension of units before its own.
#pragma once

#include "operators.h"
#include "units.h"

namespace nalu {

inline int64_t saved_size(const RowsArguments& arguments) {
  return kept_of_units(arguments.call.layer) * arguments.call.B * arguments.units;
}

template <class Device, class LayerOperator>
void units_forward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const bool save = stack.take<bool>();
  RowsArguments arguments(Device::type(), stack, LayerOperator::required, LayerOperator::optional, 1);
  layer.describe(arguments);
  arguments.read();
  const int64_t size = save ? saved_size(arguments) : 0;
  const Tensor& input = arguments.input();
  Tensor output = arguments.empty_output();
  Tensor saved = input.empty(&size, 1, compute_type(arguments.call.dtype));
  const UnitsCall call{arguments.call, arguments.units, arguments.input_step};
  Device::forward_units(input, call, output.data(), size > 0 ? saved.data() : nullptr);
  stack.put(std::move(output));
  stack.put(std::move(saved));
}

template <class Device, class LayerOperator>
void units_backward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor(), saved = stack.tensor();
  RowsArguments arguments(Device::type(), stack, LayerOperator::required, LayerOperator::optional, 1);
  layer.describe(arguments);
  const RowsCall& first = arguments.call;
  const bool of_output = first.layer.kind == Kind::nac_log_space;
  const int64_t outputs = first.B * first.layer.out * arguments.units;
  check(
      saved.is_contiguous() && saved.numel() == (of_output ? outputs : saved_size(arguments)) &&
          saved.dtype() == (of_output ? grad_output.dtype() : compute_type(first.dtype)) &&
          on_device_of(saved, arguments.input()),
      "saved is not what the forward returned");
  UnitsBackward pass{};
  pass.first.saved = saved.data();
  arguments.read_gradient(grad_output, pass.first);
  arguments.read();
  std::vector<Tensor> results =
      arguments.gradients(needed, pass.first.input, pass.first.parameters);
  pass.grad_step = arguments.grad_step;
  const UnitsCall call{arguments.call, arguments.units, arguments.input_step};
  Device::backward_units(arguments.input(), call, pass);
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

// f(name, forward, backward) for each layer.
template <class Device, class F>
void for_each_units_operator(const F& f) {
  f("nac_units", units_forward<Device, Nac>, units_backward<Device, Nac>);
  f("nalu_units", units_forward<Device, Nalu>, units_backward<Device, Nalu>);
  f("nau_units", units_forward<Device, Nau>, units_backward<Device, Nau>);
  f("nmu_units", units_forward<Device, Nmu>, units_backward<Device, Nmu>);
  f("inalu_units", units_forward<Device, Inalu>, units_backward<Device, Inalu>);
  f("npu_units", units_forward<Device, Npu>, units_backward<Device, Npu>);
  f("nru_units", units_forward<Device, Nru>, units_backward<Device, Nru>);
  f("nmru_units", units_forward<Device, Nmru>, units_backward<Device, Nmru>);
}

} // namespace nalu
