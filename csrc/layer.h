// What the operators hand to the kernels: plain pointers and sizes, no torch.
#pragma once

#include <cstdint>

namespace nalu {

enum class Dtype { float32, float64, bfloat16, float16 };

// B rows of input, I in_features, O out_features; gates is O, 1 (one per row) or 0 (no gate).
struct Shape {
  int64_t B, I, O, gates;
};

// Strides count elements. The rows of an input or an output gradient may lie anywhere.
struct Rows {
  const void* data;
  int64_t row_stride, col_stride;
};

// A linear path a = x W^T, a log-space path exp(log(|x| + eps) W_mul^T), or both under a gate.
struct Layer {
  Dtype dtype;
  Shape shape;
  bool linear, log_space; // both: a NALU
  bool clamped; // W_hat within [-1, 1] is the weight
  double eps;
  Rows input;
  // Contiguous (O, I), G (gates, I), gate_bias (gates). W_hat_mul is null where one weight serves
  // both paths. Where M_hat (M_hat_mul) is null, W_hat (W_hat_mul) is W itself: a forward on a CPU
  // takes it so; and so does a backward on a CPU if it is `clamped`, an NAU's.
  const void *W_hat, *M_hat, *G, *gate_bias, *W_hat_mul, *M_hat_mul;

  constexpr bool gated() const {
    return linear && log_space;
  }
  constexpr bool untied() const {
    return W_hat_mul != nullptr;
  }
};

constexpr Rows dense_rows(const void* data, int64_t cols) {
  return {data, cols, 1};
}

// Where the values that a NALU's backward needs are kept, in the compute type: a (B, O), m (B, O),
// g (B, gates). All null where no gradient will be asked for.
struct Saved {
  void *a, *m, *g;
};

struct Gradients {
  // Contiguous, of the layer's dtype; null where not wanted.
  void *input, *W_hat, *M_hat, *G, *gate_bias, *W_hat_mul, *M_hat_mul;
};

// What a backward reads beside the layer, and what it writes.
struct Backward {
  Rows grad_output;
  const void* output; // what the forward returned; read only by a layer of the log-space path alone
  Saved saved;
  Gradients grads;
};

// Which gradients a backward has to make: those asked for, and those of W and W_mul behind them,
// with what each path adds.
struct Wanted {
  bool input, W, W_mul, G, bias;
  bool W_linear, W_log; // a weight's gradient through the linear path, and through the log-space path

  constexpr Wanted(const Layer& layer, const Gradients& grads)
      : input(grads.input != nullptr),
        W(grads.W_hat != nullptr || grads.M_hat != nullptr),
        W_mul(grads.W_hat_mul != nullptr || grads.M_hat_mul != nullptr),
        G(grads.G != nullptr),
        bias(grads.gate_bias != nullptr),
        W_linear(layer.linear && W),
        W_log(layer.log_space && (layer.untied() ? W_mul : W)) {}
};

} // namespace nalu
