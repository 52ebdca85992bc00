// The operators' schemas, the same for every device. The kernels are registered in cpu/ (and, in a
// module of its own, cuda/); the Python side of the contract is dispatch.Operators.
//
// `needed` says which of the inputs before it want a gradient, in the order of the results; a
// gradient that is not wanted comes back undefined (None). `saved` is flat: the linear path's
// output a (B O), the log-space path's m (B O) and the gate g (B gates), in the compute type;
// empty if `save` is false.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(nalu_kernels, m) {
  m.def("nac_forward(Tensor input, Tensor W_hat, Tensor M_hat, bool log_space, float eps) -> Tensor");
  m.def(
      "nac_backward(Tensor grad_output, Tensor input, Tensor W_hat, Tensor M_hat, Tensor? output, "
      "float eps, bool[] needed) -> (Tensor, Tensor, Tensor)");
  m.def(
      "nalu_forward(Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, Tensor? gate_bias, "
      "Tensor? W_hat_mul, Tensor? M_hat_mul, float eps, bool save) -> (Tensor, Tensor)");
  m.def(
      "nalu_backward(Tensor grad_output, Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, "
      "Tensor? W_hat_mul, Tensor? M_hat_mul, Tensor saved, float eps, bool[] needed) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("cpu_capability() -> str");
}
