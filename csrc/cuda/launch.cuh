// One launch of a kernel, on the stream of a call.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "call.h"
#include "geometry.h"
#include "scalar.cuh"

namespace nalu {
namespace cuda {

// Blocks that a processor has registers for: doubles take two each. Asked for none, ptxas spills to
// make room for more.
template <class S>
constexpr int kBlocksAtLeast = sizeof(device::Compute<S>) == 8 ? 1 : 2;

// A block's shared memory of the size that its launch says.
#ifdef __CUDACC__
#define NALU_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    cudaGetLastError(); // or it would be taken for torch's next launch's
    throw std::runtime_error(
        std::string("nalu_kernels: ") + what + " failed: " + cudaGetErrorString(status));
  }
}

// Blocks, for each of so many layers side by side: the second dimension of a grid.
struct Grid {
  int64_t blocks, units;

  Grid(int64_t of_layer, int64_t layers = 1) : blocks(of_layer), units(layers) {}
};

// So many threads a block; nothing for no blocks.
template <class... Parameters, class... Arguments>
inline void launch_of(
    int threads,
    int64_t shared_bytes,
    const Call& call,
    const Grid& grid,
    void (*kernel)(Parameters...),
    Arguments&&... arguments) {
  if (grid.blocks == 0) {
    return;
  }
  if (grid.blocks > kMostBlocks) {
    throw std::runtime_error("nalu_kernels: a layer of too many rows for one launch");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.units));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(call.stream());
  check(
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "a CUDA launch");
}

// The same of kThreads threads.
template <class... Parameters, class... Arguments>
inline void launch(
    const Call& call, const Grid& grid, void (*kernel)(Parameters...), Arguments&&... arguments) {
  launch_of(kThreads, 0, call, grid, kernel, std::forward<Arguments>(arguments)...);
}

// What blocks that stay on the GPU until the work is done may have, and how many there are.

inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// Half of what a processor has, for two blocks to run on it, beside `named` bytes of a kernel's named
// arrays.
inline int most_shared(int named) {
  const int half = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / 2;
  const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return (half < most ? half : most) - named;
}

// Blocks that the GPU runs at once, each with so much of `most` bytes of shared memory.
template <class... Parameters>
int64_t blocks_at_once(
    void (*kernel)(Parameters...), int threads, int64_t shared_bytes, int most) {
  // The same in every call: it is the kernel's, and others may launch it at this time.
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
      "cudaFuncSetAttribute");
  int blocks = 0;
  check(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &blocks, kernel, threads, static_cast<size_t>(shared_bytes)),
      "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  if (blocks == 0) {
    throw std::runtime_error("nalu_kernels: a layer of this size does not fit the GPU");
  }
  return static_cast<int64_t>(blocks) * attribute(cudaDevAttrMultiProcessorCount);
}

} // namespace cuda
} // namespace nalu
