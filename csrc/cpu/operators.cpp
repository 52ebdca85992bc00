// The operators on CPU tensors, by the best kernels for this processor.
#include <cstdlib>
#include <string>

#include "../operators.h"
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
};

void train(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  TrainingArguments arguments(stack);
  kernels().train(arguments.training);
}

void draw(StableIValue* values, uint64_t, uint64_t) {
  Stack stack(values);
  const Tensor seeds = stack.tensor();
  Draw wanted{};
  wanted.stream = stack.take<int64_t>();
  wanted.step = stack.take<int64_t>();
  wanted.rows = stack.take<int64_t>();
  wanted.columns = stack.take<int64_t>();
  expect(
      seeds.is_contiguous() && seeds.dtype() == aoti_torch_dtype_int64() && wanted.rows >= 0 &&
          wanted.columns >= 0,
      "seeds of int64, and sizes of at least 0");
  wanted.count = seeds.numel();
  wanted.seeds = static_cast<const int64_t*>(seeds.data());
  const int64_t sizes[] = {wanted.count, wanted.rows, wanted.columns};
  Tensor result = seeds.empty(sizes, 3, aoti_torch_dtype_float32());
  wanted.to = static_cast<float*>(result.data());
  kernels().draw(wanted);
  stack.put(std::move(result));
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
  m.impl("transform", nalu::transform<nalu::Cpu>);
  m.impl("nac_of_W", nalu::nac_of_W<nalu::Cpu>);
  m.impl("nalu_of_W", nalu::nalu_of_W<nalu::Cpu>);
  m.impl("train", nalu::train);
  m.impl("draw", nalu::draw);
}

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&nalu::cpu_capability));
}
