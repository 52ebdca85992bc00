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
// The unrolls take a cell's steps at once: input (steps, batch, features), hx (batch, state), lengths
// (batch) int64, reset (steps, batch) bool. Their output is the states (steps, batch, state), or the
// last alone; saved, of the input's dtype, is empty, for the states are all that a backward needs, or of
// the last alone those that rows/unroll.h counts. The backward's saved is the one or the other.
//
// Those of units are independent layers side by side: all tensors have a dimension of units before
// their own. Of a nac in log space the backward's saved is the output.
//
// transform gives W itself, and the forwards "of_W" take it instead of W_hat and M_hat, for
// inference, where it stays the same.
//
// train goes on with R trainings; nalu_kernels/sweep/kernel.py calls it. All tensors are
// contiguous; parameters and samples are float32 or float64, the tables of numbers int64 or float64.
// program, layers, settings and constants are on the CPU, all others on the device that trains; there,
// if it is a GPU, the numbers of starts and progress are not checked.
//   program (layers, 8): kind (see training.h), in, out, gates, bias, untied, option, modified
//   layers (layers, 3): eps, omega, scale
//   settings (12): batch size, steps, steps between tests, optimizer, loss, whether a solved run
//     stops, source, operation, distribution, subset's length, first step of given data, until
//   constants (6): uniform: two parts' low and high, the same twice for one part; normal: mean,
//     standard deviation, p_low, p_width, least, most; exponential: mean
//   seeds (R); starts (R, 2) of the operands' subsets
//   hyper (R, 23): see training.h; beta2 is RMSprop's alpha
//   x, y: given (R, S, batch, ...), a table (N, ...), or empty; the tests' (n, ...), without y where
//     it follows from x
//   parameters (R, P); moments (R, 2, P); best (R, P)
//   progress (R, 2): steps done, status; scores (R, 6): least error inside, the error outside there,
//     the step, the first step below the threshold, seconds, the step of the last beginning; curves
//     (R, tests, 4): inside, outside, and of the steps since the last test the losses' sum and that of
//     their squares, where a run may begin anew
// It returns after so many seconds (on a GPU the kernel does), or when no run can go on before the
// step `until`.
// draw gives the u's of the random stream, (seeds, rows, columns).
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
  m.def("nau_forward(bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nau_backward(int needed, Tensor grad_output, Tensor saved, Tensor input, Tensor W) -> "
      "(Tensor, Tensor)");
  m.def("nmu_forward(bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nmu_backward(int needed, Tensor grad_output, Tensor saved, Tensor input, Tensor W) -> "
      "(Tensor, Tensor)");
  m.def(
      "inalu_forward(float eps, float omega, bool per_sample, bool save, Tensor input, Tensor W_hat, Tensor M_hat, "
      "Tensor g, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) -> (Tensor, Tensor)");
  m.def(
      "inalu_backward(float eps, float omega, bool per_sample, int needed, Tensor grad_output, Tensor saved, "
      "Tensor input, Tensor W_hat, Tensor M_hat, Tensor g, Tensor? W_hat_mul=None, "
      "Tensor? M_hat_mul=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "npu_forward(float eps, bool straight_through, bool save, Tensor input, Tensor W_re, "
      "Tensor g, Tensor? W_im=None) -> (Tensor, Tensor)");
  m.def(
      "npu_backward(float eps, bool straight_through, int needed, Tensor grad_output, "
      "Tensor saved, Tensor input, Tensor W_re, Tensor g, Tensor? W_im=None) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def("nru_forward(bool training, bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nru_backward(bool training, int needed, Tensor grad_output, Tensor saved, Tensor input, "
      "Tensor W) -> (Tensor, Tensor)");
  m.def("nmru_forward(float eps, bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nmru_backward(float eps, int needed, Tensor grad_output, Tensor saved, Tensor input, "
      "Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nac_unroll_forward(float eps, bool log_space, bool last_only, bool save, Tensor input, "
      "Tensor W_hat, Tensor M_hat, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) "
      "-> (Tensor, Tensor)");
  m.def(
      "nac_unroll_backward(float eps, bool log_space, bool last_only, int needed, Tensor "
      "grad_output, Tensor saved, Tensor input, Tensor W_hat, Tensor M_hat, Tensor? hx=None, "
      "Tensor? lengths=None, Tensor? reset=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor)");
  m.def(
      "nalu_unroll_forward(float eps, bool last_only, bool save, Tensor input, Tensor W_hat, "
      "Tensor M_hat, Tensor G, Tensor? gate_bias=None, Tensor? W_hat_mul=None, Tensor? "
      "M_hat_mul=None, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) -> (Tensor, "
      "Tensor)");
  m.def(
      "nalu_unroll_backward(float eps, bool last_only, int needed, Tensor grad_output, Tensor "
      "saved, Tensor input, Tensor W_hat, Tensor M_hat, Tensor G, Tensor? gate_bias=None, "
      "Tensor? W_hat_mul=None, Tensor? M_hat_mul=None, Tensor? hx=None, Tensor? lengths=None, "
      "Tensor? reset=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor)");
  m.def(
      "nau_unroll_forward(bool last_only, bool save, Tensor input, Tensor W, Tensor? hx=None, "
      "Tensor? lengths=None, Tensor? reset=None) -> (Tensor, Tensor)");
  m.def(
      "nau_unroll_backward(bool last_only, int needed, Tensor grad_output, Tensor saved, "
      "Tensor input, Tensor W, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "nmu_unroll_forward(bool last_only, bool save, Tensor input, Tensor W, Tensor? hx=None, "
      "Tensor? lengths=None, Tensor? reset=None) -> (Tensor, Tensor)");
  m.def(
      "nmu_unroll_backward(bool last_only, int needed, Tensor grad_output, Tensor saved, "
      "Tensor input, Tensor W, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "inalu_unroll_forward(float eps, float omega, bool per_sample, bool last_only, bool "
      "save, Tensor input, Tensor W_hat, Tensor M_hat, Tensor g, Tensor? W_hat_mul=None, "
      "Tensor? M_hat_mul=None, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) -> "
      "(Tensor, Tensor)");
  m.def(
      "inalu_unroll_backward(float eps, float omega, bool per_sample, bool last_only, int "
      "needed, Tensor grad_output, Tensor saved, Tensor input, Tensor W_hat, Tensor M_hat, "
      "Tensor g, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None, Tensor? hx=None, Tensor? "
      "lengths=None, Tensor? reset=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor)");
  m.def(
      "npu_unroll_forward(float eps, bool straight_through, bool last_only, bool save, Tensor "
      "input, Tensor W_re, Tensor g, Tensor? W_im=None, Tensor? hx=None, Tensor? lengths=None, "
      "Tensor? reset=None) -> (Tensor, Tensor)");
  m.def(
      "npu_unroll_backward(float eps, bool straight_through, bool last_only, int needed, "
      "Tensor grad_output, Tensor saved, Tensor input, Tensor W_re, Tensor g, Tensor? "
      "W_im=None, Tensor? hx=None, Tensor? lengths=None, Tensor? reset=None) -> (Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "nac_units_forward(float eps, bool log_space, bool save, Tensor input, Tensor W_hat, "
      "Tensor M_hat) -> (Tensor, Tensor)");
  m.def(
      "nac_units_backward(float eps, bool log_space, int needed, Tensor grad_output, Tensor "
      "saved, Tensor input, Tensor W_hat, Tensor M_hat) -> (Tensor, Tensor, Tensor)");
  m.def(
      "nalu_units_forward(float eps, bool save, Tensor input, Tensor W_hat, Tensor M_hat, "
      "Tensor G, Tensor? gate_bias=None, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) -> "
      "(Tensor, Tensor)");
  m.def(
      "nalu_units_backward(float eps, int needed, Tensor grad_output, Tensor saved, Tensor "
      "input, Tensor W_hat, Tensor M_hat, Tensor G, Tensor? gate_bias=None, Tensor? "
      "W_hat_mul=None, Tensor? M_hat_mul=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor)");
  m.def(
      "nau_units_forward(bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nau_units_backward(int needed, Tensor grad_output, Tensor saved, Tensor input, Tensor "
      "W) -> (Tensor, Tensor)");
  m.def(
      "nmu_units_forward(bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nmu_units_backward(int needed, Tensor grad_output, Tensor saved, Tensor input, Tensor "
      "W) -> (Tensor, Tensor)");
  m.def(
      "inalu_units_forward(float eps, float omega, bool per_sample, bool save, Tensor input, "
      "Tensor W_hat, Tensor M_hat, Tensor g, Tensor? W_hat_mul=None, Tensor? M_hat_mul=None) "
      "-> (Tensor, Tensor)");
  m.def(
      "inalu_units_backward(float eps, float omega, bool per_sample, int needed, Tensor "
      "grad_output, Tensor saved, Tensor input, Tensor W_hat, Tensor M_hat, Tensor g, Tensor? "
      "W_hat_mul=None, Tensor? M_hat_mul=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor)");
  m.def(
      "npu_units_forward(float eps, bool straight_through, bool save, Tensor input, Tensor "
      "W_re, Tensor g, Tensor? W_im=None) -> (Tensor, Tensor)");
  m.def(
      "npu_units_backward(float eps, bool straight_through, int needed, Tensor grad_output, "
      "Tensor saved, Tensor input, Tensor W_re, Tensor g, Tensor? W_im=None) -> (Tensor, "
      "Tensor, Tensor, Tensor)");
  m.def(
      "nru_units_forward(bool training, bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nru_units_backward(bool training, int needed, Tensor grad_output, Tensor saved, Tensor "
      "input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nmru_units_forward(float eps, bool save, Tensor input, Tensor W) -> (Tensor, Tensor)");
  m.def(
      "nmru_units_backward(float eps, int needed, Tensor grad_output, Tensor saved, Tensor "
      "input, Tensor W) -> (Tensor, Tensor)");
  m.def("transform(Tensor W_hat, Tensor M_hat) -> Tensor");
  m.def("nac_of_W(float eps, bool log_space, Tensor input, Tensor W) -> Tensor");
  m.def(
      "nalu_of_W(float eps, Tensor input, Tensor W, Tensor G, Tensor? gate_bias=None, "
      "Tensor? W_mul=None) -> Tensor");
  m.def(
      "train(Tensor program, Tensor layers, Tensor settings, Tensor constants, Tensor seeds, "
      "Tensor starts, Tensor hyper, Tensor x, Tensor y, Tensor x_inside, Tensor y_inside, "
      "Tensor x_outside, Tensor y_outside, Tensor(a!) parameters, Tensor(b!) moments, "
      "Tensor(c!) best, Tensor(d!) progress, Tensor(e!) scores, Tensor(f!) curves, "
      "float seconds, int threads) -> ()");
  m.def("draw(Tensor seeds, int stream, int step, int rows, int columns) -> Tensor");
  m.def("cpu_capability() -> str");
}
