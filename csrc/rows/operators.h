// The operators of the layers that go row by row, for every device: checks, allocation, and one call
// of the kernels.
//
// A Device has, beside what ../operators.h asks for,
//   static void forward_rows(const Tensor& input, const RowsCall&, void* output, void* saved);
//   static void backward_rows(const Tensor& input, const RowsCall&, const RowsBackward&);
// A layer here is the options and the tensors of its schema (ops.cpp), and what they come to.
#pragma once

#include <utility>
#include <vector>

#include "call.h"

#include "../operators.h"

namespace nalu {

// A call's tensors: the input, and those behind it in the order of the schema, each with its place
// among the layer's parameters (StackLayer::parameters).
class RowsArguments {
 public:
  // `leading`: how many dimensions all tensors have in front of the layer's: one of units, or none.
  RowsArguments(int32_t device_type, Stack& stack, int required, int optional, int leading = 0)
      : input_(stack.tensor()), batch_(device_type, input_), leading_(leading) {
    for (int i = 0; i < required; ++i) {
      tensors_.push_back(stack.tensor());
    }
    for (int i = 0; i < optional; ++i) {
      tensors_.push_back(stack.optional_tensor());
    }
    places_.resize(tensors_.size());
    call.dtype = batch_.dtype;
    StackLayer& layer = call.layer;
    layer.scale = 1;
    check(tensors_[0]->dim() == 2 + leading, "the weights have the wrong dimensions");
    layer.out = size(0, 0);
    layer.in = size(0, 1);
    units = leading > 0 ? tensors_[0]->sizes()[0] : 1;
    check(units > 0, "there must be a unit");
    check(
        leading == 0 || (input_.dim() >= 2 && input_.sizes()[0] == units),
        "input must have the units as its first dimension");
    call.B = batch_.B / units;
  }

  bool has(int i) const {
    return tensors_[static_cast<size_t>(i)].has_value();
  }
  const Tensor& tensor(int i) const {
    return *tensors_[static_cast<size_t>(i)];
  }
  int64_t dim(int i) const {
    return tensor(i).dim() - leading_;
  }
  int64_t size(int i, int d) const {
    return tensor(i).sizes()[leading_ + d];
  }

  // Tensor number i is of this shape, and the parameter number `place`.
  void matrix(int i, const char* name, int place, int64_t rows, int64_t columns) {
    check_shape(i, name, 2);
    check(size(i, 0) == rows && size(i, 1) == columns, "a matrix has the wrong shape");
    put(i, place);
  }
  void weight(int i, const char* name, int place) {
    matrix(i, name, place, call.layer.out, call.layer.in);
  }
  void vector(int i, const char* name, int place, int64_t size) {
    check_shape(i, name, 1);
    check(this->size(i, 0) == size, "a vector has the wrong shape");
    put(i, place);
  }

  // After the last of them.
  void read() {
    batch_.check_features(call.layer.in);
    read_parameters();
    call.input = batch_.read_rows(input_, leading_, input_step);
  }
  void read_parameters() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].has_value()) {
        call.parameters[places_[i]] = batch_.read_contiguous(*tensors_[i]);
        call.sizes[places_[i]] = tensors_[i]->numel() / units;
      }
    }
  }
  const void* read_contiguous(const Tensor& tensor) {
    return batch_.read_contiguous(tensor);
  }

  Tensor empty_output() const {
    return batch_.empty_output(call.layer.out);
  }
  Tensor empty_saved(bool save) const {
    const int64_t size = save ? saved_size() : 0;
    return input_.empty(&size, 1, compute_type(call.dtype));
  }

  void read_backward(const Tensor& grad_output, const Tensor& saved, RowsBackward& pass) {
    check(
        saved.is_contiguous() && saved.numel() == saved_size() &&
            saved.dtype() == compute_type(call.dtype) && on_device_of(saved, input_),
        "saved is not what the forward returned");
    pass.saved = saved.data();
    read_gradient(grad_output, pass);
  }
  void read_gradient(const Tensor& grad_output, RowsBackward& pass) {
    batch_.check_grad_output(call.layer.out, grad_output);
    pass.grad_output = batch_.read_rows(grad_output, leading_, grad_step);
  }

  // Memory for the gradients of the input and of the tensors, undefined where not wanted.
  std::vector<Tensor> gradients(int64_t needed, void*& input, void** parameters) const {
    std::vector<Tensor> results;
    results.push_back(gradient(wants(needed, 0), input_, input));
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const bool wanted = tensors_[i].has_value() && wants(needed, static_cast<int>(i) + 1);
      results.push_back(
          wanted ? gradient(true, *tensors_[i], parameters[places_[i]]) : Tensor::undefined());
    }
    return results;
  }

  const Tensor& input() const {
    return input_;
  }

  RowsCall call{}; // of the first unit
  int64_t units = 1;
  int64_t input_step = 0, grad_step = 0; // from a unit's rows to the next one's

 private:
  void check_shape(int i, const char* name, int64_t dims) const {
    check_like(tensor(i), input_, name);
    check(
        dim(i) == dims && (leading_ == 0 || tensor(i).sizes()[0] == units),
        "a tensor has the wrong dimensions");
  }
  void put(int i, int place) {
    places_[static_cast<size_t>(i)] = place;
    call.parameter_count = std::max(call.parameter_count, place + 1);
  }
  int64_t saved_size() const {
    return kept_a_row(call.layer) * call.B * units;
  }

  const Tensor input_;
  Batch batch_;
  const int leading_;
  std::vector<OptionalTensor> tensors_;
  std::vector<int> places_;
};

struct Nau {
  static constexpr int required = 1, optional = 0;
  explicit Nau(Stack&) {}
  void describe(RowsArguments& arguments) const {
    arguments.call.layer.kind = Kind::nau;
    arguments.weight(0, "W", 0);
  }
};

struct Nmu {
  static constexpr int required = 1, optional = 0;
  explicit Nmu(Stack&) {}
  void describe(RowsArguments& arguments) const {
    arguments.call.layer.kind = Kind::nmu;
    arguments.weight(0, "W", 0);
  }
};

struct Inalu {
  static constexpr int required = 3, optional = 2;
  double eps, omega;
  bool per_sample;
  explicit Inalu(Stack& stack)
      : eps(stack.take<double>()),
        omega(stack.take<double>()),
        per_sample(stack.take<bool>()) {}
  void describe(RowsArguments& arguments) const {
    StackLayer& layer = arguments.call.layer;
    layer.kind = Kind::inalu;
    layer.eps = eps;
    layer.omega = omega;
    check_eps(eps);
    check(std::isfinite(omega) && omega > 0, "omega must be positive and finite");
    arguments.weight(0, "W_hat", 0);
    arguments.weight(1, "M_hat", 1);
    layer.option = per_sample;
    if (arguments.dim(2) == 1 && !per_sample) {
      arguments.vector(2, "g", 2, layer.out);
    } else {
      layer.gates = per_sample ? 1 : layer.out;
      arguments.matrix(2, "g", 2, layer.gates, layer.in);
    }
    layer.untied = arguments.has(3);
    check(layer.untied == arguments.has(4), "W_hat_mul and M_hat_mul must be given together");
    if (layer.untied) {
      arguments.weight(3, "W_hat_mul", 3);
      arguments.weight(4, "M_hat_mul", 4);
    }
  }
};

struct Npu {
  static constexpr int required = 2, optional = 1;
  double eps;
  bool straight_through;
  explicit Npu(Stack& stack)
      : eps(stack.take<double>()), straight_through(stack.take<bool>()) {}
  void describe(RowsArguments& arguments) const {
    StackLayer& layer = arguments.call.layer;
    layer.kind = Kind::npu;
    layer.eps = eps;
    layer.option = straight_through;
    check_eps(eps);
    layer.untied = arguments.has(2);
    arguments.weight(0, "W_re", 0);
    arguments.vector(1, "g", 1, layer.in);
    if (layer.untied) {
      arguments.weight(2, "W_im", 2);
    }
  }
};

struct Nru {
  static constexpr int required = 1, optional = 0;
  bool training;
  explicit Nru(Stack& stack) : training(stack.take<bool>()) {}
  void describe(RowsArguments& arguments) const {
    arguments.call.layer.kind = Kind::nru;
    arguments.call.layer.option = training;
    arguments.weight(0, "W", 0);
  }
};

struct Nmru {
  static constexpr int required = 1, optional = 0;
  double eps;
  explicit Nmru(Stack& stack) : eps(stack.take<double>()) {}
  void describe(RowsArguments& arguments) const {
    StackLayer& layer = arguments.call.layer;
    layer.kind = Kind::nmru;
    layer.eps = eps;
    check(eps >= 0 && std::isfinite(eps), "eps must be finite and at least 0");
    check(layer.in % 2 == 0, "W must have twice as many columns as input");
    layer.in /= 2;
    arguments.matrix(0, "W", 0, layer.out, 2 * layer.in);
  }
};

struct Nac {
  static constexpr int required = 2, optional = 0;
  double eps;
  bool log_space;
  explicit Nac(Stack& stack) : eps(stack.take<double>()), log_space(stack.take<bool>()) {}
  void describe(RowsArguments& arguments) const {
    StackLayer& layer = arguments.call.layer;
    layer.kind = log_space ? Kind::nac_log_space : Kind::nac;
    layer.eps = eps;
    check_eps(eps);
    arguments.weight(0, "W_hat", 0);
    arguments.weight(1, "M_hat", 1);
  }
};

struct Nalu {
  static constexpr int required = 3, optional = 3;
  double eps;
  explicit Nalu(Stack& stack) : eps(stack.take<double>()) {}
  void describe(RowsArguments& arguments) const {
    StackLayer& layer = arguments.call.layer;
    layer.kind = Kind::nalu;
    layer.eps = eps;
    check_eps(eps);
    arguments.weight(0, "W_hat", 0);
    arguments.weight(1, "M_hat", 1);
    layer.gates = arguments.dim(2) == 2 && arguments.size(2, 0) == 1 ? 1 : layer.out;
    arguments.matrix(2, "G", 2, layer.gates, layer.in);
    layer.bias = arguments.has(3);
    if (layer.bias) {
      arguments.vector(3, "gate_bias", 3, layer.gates);
    }
    layer.untied = arguments.has(4);
    check(layer.untied == arguments.has(5), "W_hat_mul and M_hat_mul must be given together");
    if (layer.untied) {
      arguments.weight(4, "W_hat_mul", layer.bias ? 4 : 3);
      arguments.weight(5, "M_hat_mul", layer.bias ? 5 : 4);
    }
  }
};

template <class Device, class LayerOperator>
void rows_forward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const bool save = stack.take<bool>();
  RowsArguments arguments(Device::type(), stack, LayerOperator::required, LayerOperator::optional);
  layer.describe(arguments);
  arguments.read();
  Tensor output = arguments.empty_output(), saved = arguments.empty_saved(save);
  void* kept = save ? saved.data() : nullptr;
  Device::forward_rows(arguments.input(), arguments.call, output.data(), kept);
  stack.put(std::move(output));
  stack.put(std::move(saved));
}

template <class Device, class LayerOperator>
void rows_backward(StableIValue* values, uint64_t, uint64_t) {
  nalu::Stack stack(values);
  const LayerOperator layer(stack);
  const auto needed = stack.take<int64_t>();
  const Tensor grad_output = stack.tensor(), saved = stack.tensor();
  RowsArguments arguments(Device::type(), stack, LayerOperator::required, LayerOperator::optional);
  layer.describe(arguments);
  RowsBackward pass{};
  arguments.read_backward(grad_output, saved, pass);
  arguments.read();
  std::vector<Tensor> results = arguments.gradients(needed, pass.input, pass.parameters);
  Device::backward_rows(arguments.input(), arguments.call, pass);
  for (Tensor& result : results) {
    stack.put(std::move(result));
  }
}

// f(name, forward, backward) for each layer.
template <class Device, class F>
void for_each_rows_operator(const F& f) {
  f("nau", rows_forward<Device, Nau>, rows_backward<Device, Nau>);
  f("nmu", rows_forward<Device, Nmu>, rows_backward<Device, Nmu>);
  f("inalu", rows_forward<Device, Inalu>, rows_backward<Device, Inalu>);
  f("npu", rows_forward<Device, Npu>, rows_backward<Device, Npu>);
  f("nru", rows_forward<Device, Nru>, rows_backward<Device, Nru>);
  f("nmru", rows_forward<Device, Nmru>, rows_backward<Device, Nmru>);
}

} // namespace nalu
