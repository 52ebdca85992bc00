#include "runtime.h"

#include "../torch.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#ifndef _WIN32
#include <pthread.h>
#endif

#include <atomic>

namespace nalu {

namespace {

std::atomic<bool> forked{false};

#ifndef _WIN32
const int watching_forks = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

torch::stable::Tensor view(Dtype dtype, const Matrix& m) {
  const int64_t sizes[] = {m.rows, m.cols}, strides[] = {m.row_stride, m.col_stride};
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(
      const_cast<void*>(m.data),
      2,
      sizes,
      strides,
      0,
      dtype == Dtype::float64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32(),
      aoti_torch_device_type_cpu(),
      -1,
      &handle));
  return torch::stable::Tensor(handle);
}

} // namespace

bool runs_alone() {
  if (!forked.load(std::memory_order_relaxed)) {
    return false;
  }
  uint32_t threads = 0;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return threads > 1;
}

void parallel_for(
    int64_t n, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  if (runs_alone()) {
    return body(0, n, context);
  }
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, n, grain, body, context));
}

void matmul(Dtype dtype, const Matrix& A, const Matrix& B, void* C, bool accumulate) {
  const auto a = view(dtype, A), b = view(dtype, B);
  const auto c = view(dtype, {C, A.rows, B.cols, B.cols, 1});
  if (accumulate) {
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_cpu_addmm_out(c.get(), c.get(), a.get(), b.get(), 1, 1));
  } else {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(c.get(), a.get(), b.get()));
  }
}

} // namespace nalu
