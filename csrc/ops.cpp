// The operators' schemas, the same for every device. The kernels are registered in cpu/ (and, in a
// module of its own, cuda/); the Python side of the contract is nalu_kernels/operators.py.
//
// The layer's tensors always come last and in one order. Bit i of `needed` says
// whether the i-th of them wants a gradient; the results are the gradients in that order, undefined
// (None) where not wanted.
// `output` is what nac_forward returned in log space, None otherwise. `saved` is flat: the linear path's
// output a (B O), the log-space path's m (B O) and the gate g (B gates), in the compute type;
// empty if `save` is false.
//
// transform gives W itself, and the forwards "of_W" take it instead of W_hat and M_hat, for
// inference, where it stays the same.
#include "torch.h"

STABLE_TORCH_LIBRARY_FRAGMENT(nalu_kernels, m) {
  m.def("nac_forward(float eps, bool log_space, Tensor input, Tensor W_hat, Tensor M_hat) -> Tensor");
  m.def(
      "nac_backward(float eps, int needed, Tensor grad_output, Tensor? output, Tensor input, "
      "Tensor W_hat, Tensor M_hat) -> (Tensor, Tensor, Tensor)");
  m.def(
      "nalu_forward(float eps, bool save, Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, "
      "Tensor? gate_bias=None, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) -> "
      "(Tensor, Tensor)");
  m.def(
      "nalu_backward(float eps, int needed, Tensor grad_output, Tensor saved, Tensor input, "
      "Tensor W_hat, Tensor M_hat, Tensor G, Tensor? gate_bias=None, Tensor? W_hat_mul=None, "
      "Tensor? M_hat_mul=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("transform(Tensor W_hat, Tensor M_hat) -> Tensor");
  m.def("nac_of_W(float eps, bool log_space, Tensor input, Tensor W) -> Tensor");
  m.def(
      "nalu_of_W(float eps, Tensor input, Tensor W, Tensor G, Tensor? gate_bias=None, "
      "Tensor? W_mul=None) -> Tensor");
  m.def("cpu_capability() -> str");
}
