// The CUDA run time, torch's CUDA functions and cuBLAS, as far as csrc/cuda/ calls them.
#include <cuda_runtime.h>
#include <torch/csrc/stable/c/shim.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "../../csrc/cuda/geometry.h"

dim3 threadIdx, blockIdx, gridDim, blockDim;
alignas(16) unsigned char dynamic_shared[kSharedBytes];

namespace {

constexpr size_t kStackBytes = 128 << 10;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  bool done = false;
};

std::mutex one_launch;
std::vector<Fiber> fibers(nalu::cuda::kThreads);
ucontext_t scheduler;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
int64_t launches = 0;
bool last_first = false; // the order of a block's threads between two barriers
cudaError_t last_error = cudaSuccess;

void run_fiber() {
  (*body)();
  running->done = true;
}

} // namespace

void __syncthreads() {
  swapcontext(&running->context, &scheduler);
}

cudaError_t run_on_cpu(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  constexpr unsigned most_y = 65535; // as a GPU's
  if (grid.x == 0 || grid.y == 0 || grid.y > most_y || block.x == 0 || block.x > fibers.size()) {
    return last_error = cudaErrorInvalidConfiguration;
  }
  const std::lock_guard<std::mutex> lock(one_launch);
  ++launches;
  body = &kernel;
  gridDim = grid;
  blockDim = block;
  for (uint64_t b = uint64_t{grid.x} * grid.y; b-- > 0;) {
    blockIdx.x = static_cast<unsigned>(b % grid.x);
    blockIdx.y = static_cast<unsigned>(b / grid.x);
    for (unsigned t = 0; t < block.x; ++t) {
      Fiber& fiber = fibers[t];
      fiber.done = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, run_fiber, 0);
    }
    for (bool any = true; any;) {
      any = false;
      for (unsigned t = 0; t < block.x; ++t) {
        threadIdx.x = last_first ? block.x - 1 - t : t;
        running = &fibers[threadIdx.x];
        swapcontext(&scheduler, &running->context);
        any |= !running->done;
      }
      for (unsigned t = 1; t < block.x; ++t) {
        if (fibers[t].done != fibers[0].done) {
          return last_error = cudaErrorUnknown;
        }
      }
    }
  }
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorUnknown ? "not all threads of a block came to the same barriers"
                                   : "invalid configuration argument";
}

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

namespace {

// What torch.set_float32_matmul_precision has told cuBLAS.
bool tf32_allowed = false;

float to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isfinite(value)) {
    bits &= ~0x1fffu; // tensor cores read no more
  }
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

struct BFloat16 {
  uint16_t bits;

  explicit operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
};

// A sum is one of short sums, as in any good BLAS.
constexpr int64_t kTerms = 32;

template <class V, class T>
void gemm(
    bool transpose_A,
    bool transpose_B,
    int64_t m,
    int64_t n,
    int64_t k,
    const V* A,
    int64_t A_stride,
    const V* B,
    int64_t B_stride,
    bool accumulate,
    T* C,
    bool tf32) {
  const auto operand = [tf32](V value) {
    const T wide = static_cast<T>(value);
    return tf32 ? static_cast<T>(to_tf32(static_cast<float>(wide))) : wide;
  };
  for (int64_t col = 0; col < n; ++col) {
    for (int64_t row = 0; row < m; ++row) {
      T sum = 0;
      for (int64_t begin = 0; begin < k; begin += kTerms) {
        T part = 0;
        for (int64_t i = begin; i < k && i < begin + kTerms; ++i) {
          const V a = A[transpose_A ? i + row * A_stride : row + i * A_stride];
          const V b = B[transpose_B ? col + i * B_stride : i + col * B_stride];
          part = std::fma(operand(a), operand(b), part);
        }
        sum += part;
      }
      T& c = C[row + col * m];
      c = accumulate ? c + sum : sum;
    }
  }
}

} // namespace

extern "C" {

// As the tests ask.
void cuda_on_cpu_allow_tf32(int allow) {
  tf32_allowed = allow != 0;
}
void cuda_on_cpu_run_last_first(int order) {
  last_first = order != 0;
}
int64_t cuda_on_cpu_launches() {
  return launches;
}

int cublasGemmEx_64(
    void*,
    int transpose_A,
    int transpose_B,
    int64_t m,
    int64_t n,
    int64_t k,
    const void* alpha,
    const void* A,
    int A_type,
    int64_t A_stride,
    const void* B,
    int B_type,
    int64_t B_stride,
    const void* beta,
    void* C,
    int C_type,
    int64_t C_stride,
    int compute_type,
    int algorithm) {
  // As cuBLAS documents its arguments.
  const bool is_double = A_type == 1, is_bf16 = A_type == 14;
  const int64_t A_least = transpose_A ? k : m, B_least = transpose_B ? n : k;
  const bool sound = m > 0 && n > 0 && k > 0 && A_stride >= A_least && B_stride >= B_least &&
      C_stride == m && A_type == B_type && C_type == (is_bf16 ? 0 : A_type) && algorithm == -1 &&
      (is_double     ? compute_type == 70
           : is_bf16 ? compute_type == 68
                     : compute_type == 68 || compute_type == 69 || compute_type == 77);
  if (!sound) {
    return 7; // CUBLAS_STATUS_INVALID_VALUE
  }
  if (is_double) {
    const double one = *static_cast<const double*>(alpha);
    const double add = *static_cast<const double*>(beta);
    if (one != 1 || (add != 0 && add != 1)) {
      return 7;
    }
    gemm(
        transpose_A != 0,
        transpose_B != 0,
        m,
        n,
        k,
        static_cast<const double*>(A),
        A_stride,
        static_cast<const double*>(B),
        B_stride,
        add == 1,
        static_cast<double*>(C),
        false);
    return 0;
  }
  const float one = *static_cast<const float*>(alpha), add = *static_cast<const float*>(beta);
  if (one != 1 || (add != 0 && add != 1)) {
    return 7;
  }
  if (is_bf16) {
    gemm(
        transpose_A != 0,
        transpose_B != 0,
        m,
        n,
        k,
        static_cast<const BFloat16*>(A),
        A_stride,
        static_cast<const BFloat16*>(B),
        B_stride,
        add == 1,
        static_cast<float*>(C),
        false);
    return 0;
  }
  gemm(
      transpose_A != 0,
      transpose_B != 0,
      m,
      n,
      k,
      static_cast<const float*>(A),
      A_stride,
      static_cast<const float*>(B),
      B_stride,
      add == 1,
      static_cast<float*>(C),
      compute_type == 77 || (compute_type == 68 && tf32_allowed));
  return 0;
}

int cublasGetMathMode(void*, int* mode) {
  *mode = tf32_allowed ? 3 : 0;
  return 0;
}

AOTITorchError torch_get_current_cuda_blas_handle(void** handle) {
  *handle = nullptr;
  return 0;
}
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
AOTITorchError aoti_torch_create_cuda_guard(int32_t, CUDAGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_cuda_guard(CUDAGuardHandle) {
  return 0;
}

} // extern "C"
