// The operators on CPU tensors, by the best kernels for this processor.
#include <cstdlib>
#include <string>

#include "../operators.h"
#include "../rows/units_operators.h"
#include "../rows/unroll_operators.h"
#include "../training_arguments.h"
#include "capability.h"

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

struct Cpu {
  static int32_t type() {
    return aoti_torch_device_type_cpu();
  }
  static void forward(const Tensor&, const Layer& layer, void* output, const Saved& saved) {
    kernels().forward(layer, output, saved);
  }
  static void transform(const Layer& layer, void* W) {
    kernels().transform(layer, W);
  }
  static void backward(const Tensor&, const Layer& layer, const Backward& backward) {
    kernels().backward(layer, backward);
  }
  static void forward_rows(const Tensor&, const RowsCall& call, void* output, void* saved) {
    kernels().forward_rows(call, output, saved);
  }
  static void backward_rows(const Tensor&, const RowsCall& call, const RowsBackward& pass) {
    kernels().backward_rows(call, pass);
  }
  static void forward_units(const Tensor&, const UnitsCall& call, void* output, void* saved) {
    kernels().forward_units(call, output, saved);
  }
  static void backward_units(const Tensor&, const UnitsCall& call, const UnitsBackward& pass) {
    kernels().backward_units(call, pass);
  }
  static void unroll_forward(
      const Tensor&, const UnrollCall& call, void* output, void* states) {
    kernels().unroll_forward(call, output, states);
  }
  static void unroll_backward(
      const Tensor&, const UnrollCall& call, const UnrollBackward& pass) {
    kernels().unroll_backward(call, pass);
  }
};

void train(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  TrainingArguments arguments(stack, true);
  kernels().train(arguments.training);
}

void draw(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  DrawArguments arguments(stack);
  kernels().draw(arguments.wanted);
  stack.put(std::move(arguments.result));
}

std::string cpu_capability() {
  return kernels().name;
}

} // namespace

} // namespace nalu

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CPU, m) {
  m.impl("nac_forward", nalu::nac_forward<nalu::Cpu>);
  m.impl("nac_backward", nalu::nac_backward<nalu::Cpu>);
  m.impl("nalu_forward", nalu::nalu_forward<nalu::Cpu>);
  m.impl("nalu_backward", nalu::nalu_backward<nalu::Cpu>);
  const auto both_ways = [&](const std::string& name, auto forward, auto backward) {
    m.impl((name + "_forward").c_str(), forward);
    m.impl((name + "_backward").c_str(), backward);
  };
  nalu::for_each_rows_operator<nalu::Cpu>(both_ways);
  nalu::for_each_unroll_operator<nalu::Cpu>(both_ways);
  nalu::for_each_units_operator<nalu::Cpu>(both_ways);
  m.impl("transform", nalu::transform<nalu::Cpu>);
  m.impl("nac_of_W", nalu::nac_of_W<nalu::Cpu>);
  m.impl("nalu_of_W", nalu::nalu_of_W<nalu::Cpu>);
  m.impl("train", nalu::train);
  m.impl("draw", nalu::draw);
}

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&nalu::cpu_capability));
}
