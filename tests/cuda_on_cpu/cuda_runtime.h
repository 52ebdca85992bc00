// CUDA C++ for a machine without a GPU: as much of it as csrc/cuda/ uses, run on the CPU.
//
// A block's threads are fibers: each runs until __syncthreads(), then the next one does. So a
// missing barrier shows: the first thread is as far ahead of the others as it can get; a barrier that
// some threads do not come to is an error. Blocks run one after another, the last one first; nothing
// here is fast.
#pragma once

#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time.
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x_) : x(x_) {}
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorUnknown = 999 };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

extern dim3 threadIdx, blockIdx, gridDim, blockDim;

void __syncthreads();
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 8;
  return cudaSuccess;
}

// kernel() by every thread of every block.
cudaError_t run_on_cpu(dim3 grid, dim3 block, const std::function<void()>& kernel);

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const std::tuple<Parameters...> copies(std::forward<Arguments>(arguments)...);
  return run_on_cpu(config->gridDim, config->blockDim, [&] { std::apply(kernel, copies); });
}
