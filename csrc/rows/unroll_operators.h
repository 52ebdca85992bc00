// The operators of recurrent cells, for every device that has
//   static void unroll_forward(const Tensor& input, const UnrollCall&, void* output, void* states);
//   static void unroll_backward(const Tensor& input, const UnrollCall&, const UnrollBackward&);
#pragma once

#include "operators.h"
#include "unroll.h"

namespace nalu {

// A call's tensors: those of the layer's own operator, the input of all steps among them, and behind
// them hx, lengths and reset.
template <class LayerOperator>
class UnrollArguments {
 public:
  UnrollArguments(int32_t device_type, const LayerOperator& layer, bool last_only, Stack& stack)
      : rows_(device_type, stack, LayerOperator::required, LayerOperator::optional),
        hx_(stack.optional_tensor()),
        lengths_(stack.optional_tensor()),
        reset_(stack.optional_tensor()) {
    layer.describe(rows_);
    const Tensor& input = rows_.input();
    RowsCall& cell = call.cell;
    const int64_t* sizes = input.sizes();
    check(
        input.dim() == 3 && sizes[2] == rows_.call.layer.in - rows_.call.layer.out,
        "input must have the shape (steps, batch, features)");
    call.T = sizes[0];
    rows_.call.B = sizes[1];
    call.last_only = last_only;
    rows_.read_parameters();
    cell = rows_.call;
    call.input = steps(input);
    if (hx_.has_value()) {
      check_matrix(*hx_, input, cell.B, call.state(), "hx");
      call.hx = rows_.read_contiguous(*hx_);
    }
    if (lengths_.has_value()) {
      check(
          lengths_->dtype() == aoti_torch_dtype_int64() && on_device_of(*lengths_, input) &&
              lengths_->dim() == 1 && lengths_->sizes()[0] == cell.B,
          "lengths must be int64, of shape (batch)");
      call.lengths = static_cast<const int64_t*>(rows_.read_contiguous(*lengths_));
      for (int64_t b = 0; device_type == aoti_torch_device_type_cpu() && b < cell.B; ++b) {
        check(0 <= call.lengths[b] && call.lengths[b] <= call.T, "lengths must be at most the steps");
      }
    }
    if (reset_.has_value()) {
      check(
          reset_->dtype() == aoti_torch_dtype_bool() && on_device_of(*reset_, input) &&
              reset_->dim() == 2 && reset_->sizes()[0] == call.T && reset_->sizes()[1] == cell.B,
          "reset must be bool, of shape (steps, batch)");
      call.reset = static_cast<const bool*>(rows_.read_contiguous(*reset_));
    }
  }

  Tensor empty_output() const {
    const int64_t sizes[] = {call.T, call.cell.B, call.state()};
    const int skipped = call.last_only ? 1 : 0;
    return input().empty(sizes + skipped, 3 - skipped, input().dtype());
  }
  Tensor empty_states(bool save) const {
    const int64_t size = save && call.last_only ? states_size() : 0;
    return input().empty(&size, 1, input().dtype());
  }

  void read_backward(const Tensor& grad_output, const Tensor& states, UnrollBackward& pass) {
    const int64_t sizes[] = {call.T, call.cell.B, call.state()};
    const int skipped = call.last_only ? 1 : 0;
    check_like(grad_output, input(), "grad_output");
    check(
        grad_output.dim() == 3 - skipped &&
            std::equal(sizes + skipped, sizes + 3, grad_output.sizes()),
        "grad_output has the wrong shape");
    const int64_t size = call.last_only ? states_size() : call.T * call.cell.B * call.state();
    check_like(states, input(), "saved");
    check(states.is_contiguous() && states.numel() == size, "saved is not what the forward returned");
    pass.grad_output = steps(grad_output);
    pass.states = states.data();
  }

  std::vector<Tensor> gradients(int64_t needed, UnrollBackward& pass) const {
    constexpr int at_hx = 1 + LayerOperator::required + LayerOperator::optional;
    std::vector<Tensor> results = rows_.gradients(needed, pass.input, pass.parameters);
    const bool wanted = hx_.has_value() && wants(needed, at_hx);
    results.push_back(wanted ? gradient(true, *hx_, pass.hx) : Tensor::undefined());
    results.push_back(Tensor::undefined()); // of lengths
    results.push_back(Tensor::undefined()); // of reset
    return results;
  }

  const Tensor& input() const {
    return rows_.input();
  }

  UnrollCall call{};

 private:
  // (steps, rows, columns), or of one step without the first.
  static Steps steps(const Tensor& tensor) {
    const int64_t* strides = tensor.strides();
    const int64_t last = tensor.dim() - 1;
    return {tensor.data(), last == 2 ? strides[0] : 0, strides[last - 1], strides[last]};
  }
  int64_t states_size() const {
    return kept_states(call.T) * call.cell.B * call.state();
  }

  RowsArguments rows_;
  const OptionalTensor hx_, lengths_, reset_;
};

template <class Device, class LayerOperator>
void unroll_forward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const bool last_only = stack.take<bool>(), save = stack.take<bool>();
  UnrollArguments<LayerOperator> arguments(Device::type(), layer, last_only, stack);
  Tensor output = arguments.empty_output(), states = arguments.empty_states(save);
  void* kept = save && last_only ? states.data() : nullptr;
  Device::unroll_forward(arguments.input(), arguments.call, output.data(), kept);
  stack.put(std::move(output));
  stack.put(std::move(states));
}

template <class Device, class LayerOperator>
void unroll_backward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const bool last_only = stack.take<bool>();
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor(), states = stack.tensor();
  UnrollArguments<LayerOperator> arguments(Device::type(), layer, last_only, stack);
  UnrollBackward pass{};
  arguments.read_backward(grad_output, states, pass);
  std::vector<Tensor> results = arguments.gradients(needed, pass);
  Device::unroll_backward(arguments.input(), arguments.call, pass);
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

// f(name, forward, backward) for each cell.
template <class Device, class F>
void for_each_unroll_operator(const F& f) {
  f("nac_unroll", unroll_forward<Device, Nac>, unroll_backward<Device, Nac>);
  f("nalu_unroll", unroll_forward<Device, Nalu>, unroll_backward<Device, Nalu>);
  f("nau_unroll", unroll_forward<Device, Nau>, unroll_backward<Device, Nau>);
  f("nmu_unroll", unroll_forward<Device, Nmu>, unroll_backward<Device, Nmu>);
  f("inalu_unroll", unroll_forward<Device, Inalu>, unroll_backward<Device, Inalu>);
  f("npu_unroll", unroll_forward<Device, Npu>, unroll_backward<Device, Npu>);
}

} // namespace nalu
