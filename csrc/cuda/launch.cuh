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

// `blocks` blocks of kThreads threads; nothing for no blocks.
template <class... Parameters, class... Arguments>
inline void launch(
    const Call& call, int64_t blocks, void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (blocks == 0) {
    return;
  }
  if (blocks > kMostBlocks) {
    throw std::runtime_error("nalu_kernels: a layer of too many rows for one launch");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(call.stream());
  const cudaError_t status =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (status != cudaSuccess) {
    cudaGetLastError(); // or it would be taken for torch's next launch's
    throw std::runtime_error(
        std::string("nalu_kernels: a CUDA launch failed: ") + cudaGetErrorString(status));
  }
}

} // namespace cuda
} // namespace nalu
