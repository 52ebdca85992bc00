// The operators on CUDA tensors.
#include <string>

#include "../operators.h"
#include "../rows/units_operators.h"
#include "../rows/unroll_operators.h"
#include "../training_arguments.h"

#include "geometry.h"
#include "kernels.h"
#include "train.h"

namespace nalu {

namespace {

struct Cuda {
  static int32_t type() {
    return aoti_torch_device_type_cuda();
  }
  static void forward(
      const Tensor& input, const Layer& layer, void* output, const Saved& saved) {
    cuda::Call call(input);
    cuda::is_small(layer.shape) ? cuda::forward_small(call, layer, output, saved)
                                : cuda::forward_large(call, layer, output, saved);
  }
  static void backward(const Tensor& input, const Layer& layer, const Backward& backward) {
    cuda::Call call(input);
    cuda::is_small(layer.shape) ? cuda::backward_small(call, layer, backward)
                                : cuda::backward_large(call, layer, backward);
  }
  static void forward_rows(
      const Tensor& input, const RowsCall& layer, void* output, void* saved) {
    cuda::Call call(input);
    cuda::forward_rows(call, {layer, 1, 0}, output, saved);
  }
  static void backward_rows(
      const Tensor& input, const RowsCall& layer, const RowsBackward& pass) {
    cuda::Call call(input);
    cuda::backward_rows(call, {layer, 1, 0}, {pass, 0});
  }
  static void forward_units(
      const Tensor& input, const UnitsCall& given, void* output, void* saved) {
    cuda::Call call(input);
    cuda::forward_units(call, given, output, saved);
  }
  static void backward_units(
      const Tensor& input, const UnitsCall& given, const UnitsBackward& pass) {
    cuda::Call call(input);
    cuda::backward_units(call, given, pass);
  }
  static void unroll_forward(
      const Tensor& input, const UnrollCall& given, void* output, void* states) {
    cuda::Call call(input);
    cuda::unroll_forward(call, given, output, states);
  }
  static void unroll_backward(
      const Tensor& input, const UnrollCall& given, const UnrollBackward& pass) {
    cuda::Call call(input);
    cuda::unroll_backward(call, given, pass);
  }
};

void train(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  TrainingArguments arguments(stack, false);
  cuda::Call call(arguments.parameters());
  cuda::train(call, arguments.training);
}

void draw(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  DrawArguments arguments(stack);
  cuda::Call call(arguments.seeds);
  cuda::draw(call, arguments.wanted);
  stack.put(std::move(arguments.result));
}

} // namespace

} // namespace nalu

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CUDA, m) {
  m.impl("nac_forward", nalu::nac_forward<nalu::Cuda>);
  m.impl("nac_backward", nalu::nac_backward<nalu::Cuda>);
  m.impl("nalu_forward", nalu::nalu_forward<nalu::Cuda>);
  m.impl("nalu_backward", nalu::nalu_backward<nalu::Cuda>);
  const auto implement = [&](const std::string& name, auto forward, auto backward) {
    m.impl((name + "_forward").c_str(), forward);
    m.impl((name + "_backward").c_str(), backward);
  };
  nalu::for_each_rows_operator<nalu::Cuda>(implement);
  nalu::for_each_unroll_operator<nalu::Cuda>(implement);
  nalu::for_each_units_operator<nalu::Cuda>(implement);
  m.impl("train", nalu::train);
  m.impl("draw", nalu::draw);
}
