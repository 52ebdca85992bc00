// The operators on CUDA tensors.
#include "../operators.h"

#include "geometry.h"
#include "kernels.h"

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
};

} // namespace

} // namespace nalu

STABLE_TORCH_LIBRARY_IMPL(nalu_kernels, CUDA, m) {
  m.impl("nac_forward", nalu::nac_forward<nalu::Cuda>);
  m.impl("nac_backward", nalu::nac_backward<nalu::Cuda>);
  m.impl("nalu_forward", nalu::nalu_forward<nalu::Cuda>);
  m.impl("nalu_backward", nalu::nalu_backward<nalu::Cuda>);
}
