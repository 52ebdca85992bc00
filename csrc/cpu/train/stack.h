// A stack's forward and backward over a block of rows. The rows lie along the vectors: a matrix of
// values is (features, rows).
//
// The mathematics of the layers is that of formulas.h, as in the operators.
#pragma once

#include "../elementwise.h"
#include "../gemm.h"

#include "../../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

// C[m, k] += sum over n of A[m, n] B[k, n], for dense rows of n numbers.
template <class T, int rows, int cols>
NALU_INLINE void dots_tile(int64_t N, const T* A, const T* B, T* C, int64_t ldc) {
  Vec<T> sums[rows][cols] = {};
  for_each_vector<T>(N, [&](int64_t n, auto count) {
    Vec<T> b[cols];
    NALU_UNROLL
    for (int j = 0; j < cols; ++j) {
      b[j] = load<T>(B + j * N + n, count);
    }
    NALU_UNROLL
    for (int i = 0; i < rows; ++i) {
      const Vec<T> a = load<T>(A + i * N + n, count);
      NALU_UNROLL
      for (int j = 0; j < cols; ++j) {
        sums[i][j] += a * b[j];
      }
    }
  });
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      C[i * ldc + j] += sum_lanes<T>(sums[i][j]);
    }
  }
}

template <class T, int rows>
inline void dots_rows(int64_t K, int64_t N, const T* A, const T* B, T* C) {
  int64_t k = 0;
  for (; k + 3 <= K; k += 3) {
    dots_tile<T, rows, 3>(N, A, B + k * N, C + k, K);
  }
  for (; k < K; ++k) {
    dots_tile<T, rows, 1>(N, A, B + k * N, C + k, K);
  }
}

template <class T>
inline void dots(int64_t M, int64_t K, int64_t N, const T* A, const T* B, T* C) {
  int64_t m = 0;
  for (; m + 4 <= M; m += 4) {
    dots_rows<T, 4>(K, N, A + m * N, B, C + m * K);
  }
  for (; m + 2 <= M; m += 2) {
    dots_rows<T, 2>(K, N, A + m * N, B, C + m * K);
  }
  for (; m < M; ++m) {
    dots_rows<T, 1>(K, N, A + m * N, B, C + m * K);
  }
}

// Y (O, n) = A (O, I) X (I, n).
template <class T>
inline void apply(int64_t O, int64_t I, int64_t n, const T* A, const T* X, T* Y) {
  gemm<T>(O, n, I, {A, I, 1}, {X, n, X + I * n}, Y, n, false);
}

// X (I, n) = or += A^T Y, for A (O, I).
template <class T>
inline void apply_transposed(
    int64_t O, int64_t I, int64_t n, const T* A, const T* Y, T* X, bool accumulate) {
  gemm<T>(I, n, O, {A, 1, I}, {Y, n, Y + O * n}, X, n, accumulate);
}

template <class T>
inline void add_row_sums(int64_t rows, int64_t n, const T* values, T* sums) {
  for (int64_t row = 0; row < rows; ++row) {
    Vec<T> sum{};
    for_each_vector<T>(n, [&](int64_t i, auto count) { sum += load<T>(values + row * n + i, count); });
    sums[row] += sum_lanes<T>(sum);
  }
}

// Hands out pieces of a thread's memory, or, with no memory, only counts what they come to.
template <class T>
class Arena {
 public:
  explicit Arena(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + 15) / 16 * 16;
    return piece;
  }
  int64_t used() const {
    return used_;
  }

 private:
  T* memory_;
  int64_t used_ = 0;
};

// A layer with what it keeps: of its parameters for a step, and of a block of rows for its backward.
template <class T>
struct Unit {
  StackLayer layer;
  int64_t at; // of its parameters and of their gradients
  // The factors of W (and W_mul), and the matrices that x is multiplied by, one under the other (W
  // and G), and that log |x| is; with their gradients.
  T *t, *s, *t_mul, *s_mul, *A, *A_mul, *grad_A, *grad_A_mul;
  // (in, n): log |x|, the gradient of x. (out + gates, n): a and z, and their gradients. (out, n): l
  // (then m), the gradient of l, y.
  T *logs, *grad_x, *sums, *grad_sums, *m, *grad_l, *y;
  const T* x;

  int64_t weights() const {
    return layer.out * layer.in;
  }
  int64_t gate_weights() const {
    return layer.gates * layer.in;
  }
  bool linear_path() const {
    return layer.kind != Kind::nac_log_space;
  }
  // The matrix of the log-space path.
  const T* log_matrix() const {
    return layer.untied || layer.kind == Kind::nac_log_space ? A_mul : A;
  }
};

template <class T>
class Stack {
 public:
  // For blocks of up to `rows` rows. `units` has room for as many as there are layers.
  Stack(const Training& training, int64_t rows, Unit<T>* units, Arena<T>& arena)
      : units_(units), depth_(training.depth) {
    int64_t at = 0;
    for (int64_t i = 0; i < depth_; ++i) {
      Unit<T>& unit = units[i];
      unit = {};
      unit.layer = training.layers[i];
      unit.at = at;
      at += unit.layer.parameters();
      const int64_t in = unit.layer.in, out = unit.layer.out, gates = unit.layer.gates;
      const bool weighted = unit.layer.weighted(), log_space = unit.layer.log_space();
      if (weighted) {
        unit.t = arena.take(out * in);
        unit.s = arena.take(out * in);
        unit.A = arena.take((out + gates) * in);
        unit.grad_A = arena.take((out + gates) * in);
        if (unit.layer.untied) {
          unit.t_mul = arena.take(out * in);
          unit.s_mul = arena.take(out * in);
        }
        if (log_space) {
          unit.A_mul = arena.take(out * in);
          unit.grad_A_mul = arena.take(out * in);
          unit.logs = arena.take(in * rows);
        }
      }
      if (i > 0) {
        unit.grad_x = arena.take(in * rows);
      }
      unit.sums = arena.take((out + gates) * rows);
      unit.grad_sums = arena.take((out + gates) * rows);
      unit.m = arena.take(out * rows);
      unit.grad_l = arena.take(out * rows);
      unit.y = arena.take(out * rows);
    }
    grad_y_ = arena.take(training.outputs() * rows);
  }

  bool needs_logs() const {
    return units_[0].layer.log_space();
  }
  T* first_logs() const {
    return units_[0].logs;
  }
  T* grad_y() const {
    return grad_y_;
  }

  // What the step's parameters come to, before any row.
  void prepare(const T* parameters) {
    for (int64_t i = 0; i < depth_; ++i) {
      Unit<T>& unit = units_[i];
      if (!unit.layer.weighted()) {
        continue;
      }
      const T* from = parameters + unit.at;
      const int64_t count = unit.weights(), gates = unit.gate_weights();
      T* matrix = unit.layer.kind == Kind::nac_log_space ? unit.A_mul : unit.A;
      transform(count, from, from + count, unit.t, unit.s, matrix);
      if (unit.layer.gates > 0) {
        std::memcpy(unit.A + count, from + 2 * count, static_cast<size_t>(gates) * sizeof(T));
      }
      if (unit.layer.untied) {
        const T* mul = from + 2 * count + gates + (unit.layer.bias ? unit.layer.gates : 0);
        transform(count, mul, mul + count, unit.t_mul, unit.s_mul, unit.A_mul);
      }
    }
  }

  // The outputs (out, n). `logs` are those of x where the first layer needs them.
  const T* forward(const T* parameters, const T* x, const T* logs, int64_t n) {
    for (int64_t i = 0; i < depth_; ++i) {
      Unit<T>& unit = units_[i];
      unit.x = x;
      const T* own_logs = logs;
      if (unit.layer.log_space() && (i > 0 || logs == nullptr)) {
        take_logs(unit.layer, x, unit.layer.in * n, unit.logs);
        own_logs = unit.logs;
      }
      logs_ = i == 0 ? own_logs : logs_;
      forward(unit, parameters + unit.at, x, own_logs, n);
      x = unit.y;
    }
    return x;
  }

  void clear_gradients(T* gradients, int64_t parameters) {
    std::memset(gradients, 0, static_cast<size_t>(parameters) * sizeof(T));
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      if (unit.layer.weighted()) {
        const int64_t count = unit.weights() + unit.gate_weights();
        std::memset(unit.grad_A, 0, static_cast<size_t>(count) * sizeof(T));
        if (unit.grad_A_mul != nullptr) {
          std::memset(unit.grad_A_mul, 0, static_cast<size_t>(unit.weights()) * sizeof(T));
        }
      }
    }
  }

  // From grad_y(), for the rows of the last forward; adds to the gradients of the matrices, and to
  // those of biases.
  void backward(const T* parameters, T* gradients, int64_t n) {
    const T* dy = grad_y_;
    for (int64_t i = depth_ - 1; i >= 0; --i) {
      Unit<T>& unit = units_[i];
      const T* logs = i == 0 ? logs_ : unit.logs;
      backward(unit, parameters + unit.at, gradients + unit.at, logs, dy, n, i > 0);
      dy = unit.grad_x;
    }
  }

  // From the gradients of the matrices to those of the parameters, after all rows.
  void finish(T* gradients) {
    for (int64_t i = 0; i < depth_; ++i) {
      Unit<T>& unit = units_[i];
      if (!unit.layer.weighted()) {
        continue;
      }
      T* to = gradients + unit.at;
      const int64_t count = unit.weights(), gates = unit.gate_weights();
      if (unit.layer.kind == Kind::nac_log_space) {
        transform_gradient(count, unit.grad_A_mul, unit.t, unit.s, to, to + count);
        continue;
      }
      if (unit.layer.kind == Kind::nalu) {
        std::memcpy(to + 2 * count, unit.grad_A + count, static_cast<size_t>(gates) * sizeof(T));
        if (unit.layer.untied) {
          T* mul = to + 2 * count + gates + (unit.layer.bias ? unit.layer.gates : 0);
          transform_gradient(count, unit.grad_A_mul, unit.t_mul, unit.s_mul, mul, mul + count);
        } else {
          for_each_vector<T>(count, [&](int64_t k, auto lanes) {
            const Vec<T> both = load<T>(unit.grad_A + k, lanes) + load<T>(unit.grad_A_mul + k, lanes);
            store<T>(unit.grad_A + k, both, lanes);
          });
        }
      }
      transform_gradient(count, unit.grad_A, unit.t, unit.s, to, to + count);
    }
  }

  static void take_logs(const StackLayer& layer, const T* x, int64_t count, T* logs) {
    const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
    const auto take = [&](auto normal) {
      for_each_vector<T>(count, [&](int64_t k, auto lanes) {
        store<T>(logs + k, log_abs<decltype(normal)::value>(load<T>(x + k, lanes), eps), lanes);
      });
    };
    if (static_cast<T>(layer.eps) >= std::numeric_limits<T>::min()) {
      take(std::true_type{});
    } else {
      take(std::false_type{});
    }
  }

 private:
  static void transform(int64_t count, const T* W_hat, const T* M_hat, T* t, T* s, T* W) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Weight<Vec<T>> weight(load<T>(W_hat + k, lanes), load<T>(M_hat + k, lanes));
      store<T>(t + k, weight.t, lanes);
      store<T>(s + k, weight.s, lanes);
      store<T>(W + k, weight.value(), lanes);
    });
  }

  static void transform_gradient(
      int64_t count, const T* grad_W, const T* t, const T* s, T* grad_W_hat, T* grad_M_hat) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> grad = load<T>(grad_W + k, lanes);
      const auto weight = Weight<Vec<T>>::of(load<T>(t + k, lanes), load<T>(s + k, lanes));
      store<T>(grad_W_hat + k, weight.grad_W_hat(grad), lanes);
      store<T>(grad_M_hat + k, weight.grad_M_hat(grad), lanes);
    });
  }

  void forward(Unit<T>& unit, const T* parameters, const T* x, const T* logs, int64_t n) {
    const StackLayer& layer = unit.layer;
    const int64_t in = layer.in, out = layer.out, gates = layer.gates;
    switch (layer.kind) {
      case Kind::nac:
        apply<T>(out, in, n, unit.A, x, unit.y);
        break;
      case Kind::nac_log_space:
        apply<T>(out, in, n, unit.A_mul, logs, unit.y);
        for_each_vector<T>(out * n, [&](int64_t k, auto count) {
          store<T>(unit.y + k, exp(load<T>(unit.y + k, count)), count);
        });
        break;
      case Kind::nalu:
        apply<T>(out + gates, in, n, unit.A, x, unit.sums);
        apply<T>(out, in, n, unit.log_matrix(), logs, unit.m);
        gate(unit, layer.bias ? parameters + 2 * unit.weights() + unit.gate_weights() : nullptr, n);
        break;
      case Kind::linear:
        apply<T>(out, in, n, parameters, x, unit.y);
        if (layer.bias) {
          for (int64_t o = 0; o < out; ++o) {
            for_each_vector<T>(n, [&](int64_t k, auto count) {
              T* y = unit.y + o * n + k;
              store<T>(y, load<T>(y, count) + parameters[out * in + o], count);
            });
          }
        }
        break;
      case Kind::relu:
      case Kind::relu6:
        rectify(x, out * n, layer.kind == Kind::relu6, unit.y);
        break;
    }
  }

  // sums become a and g, m the product, y their mixture.
  static void gate(Unit<T>& unit, const T* bias, int64_t n) {
    const int64_t out = unit.layer.out, gates = unit.layer.gates;
    for (int64_t o = 0; o < gates; ++o) {
      T* z = unit.sums + (out + o) * n;
      const T shift = bias != nullptr ? bias[o] : T(0);
      for_each_vector<T>(n, [&](int64_t k, auto count) {
        Vec<T> sum = load<T>(z + k, count);
        sum = bias != nullptr ? sum + shift : sum;
        store<T>(z + k, sigmoid(sum), count);
      });
    }
    for (int64_t o = 0; o < out; ++o) {
      const T *a = unit.sums + o * n, *g = unit.sums + (out + (gates == 1 ? 0 : o)) * n;
      T *m = unit.m + o * n, *y = unit.y + o * n;
      for_each_vector<T>(n, [&](int64_t k, auto count) {
        const Vec<T> product = exp(load<T>(m + k, count));
        store<T>(m + k, product, count);
        store<T>(y + k, mix(load<T>(a + k, count), product, load<T>(g + k, count)), count);
      });
    }
  }

  static void rectify(const T* x, int64_t count, bool six, T* y) {
    const Vec<T> zero{}, top = splat<Vec<T>>(6);
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      Vec<T> v = load<T>(x + k, lanes);
      v = v < zero ? zero : v; // a NaN passes both
      v = six ? (v > top ? top : v) : v;
      store<T>(y + k, v, lanes);
    });
  }

  void backward(
      Unit<T>& unit,
      const T* parameters,
      T* gradients,
      const T* logs,
      const T* dy,
      int64_t n,
      bool wants_x) {
    const StackLayer& layer = unit.layer;
    const int64_t in = layer.in, out = layer.out, gates = layer.gates;
    switch (layer.kind) {
      case Kind::nac:
        dots<T>(out, in, n, dy, unit.x, unit.grad_A);
        if (wants_x) {
          apply_transposed<T>(out, in, n, unit.A, dy, unit.grad_x, false);
        }
        break;
      case Kind::nac_log_space:
        for_each_vector<T>(out * n, [&](int64_t k, auto count) {
          store<T>(unit.grad_l + k, load<T>(dy + k, count) * load<T>(unit.y + k, count), count);
        });
        dots<T>(out, in, n, unit.grad_l, logs, unit.grad_A_mul);
        if (wants_x) {
          apply_transposed<T>(out, in, n, unit.A_mul, unit.grad_l, unit.grad_x, false);
          through_logs(layer, unit.x, in * n, unit.grad_x, nullptr);
        }
        break;
      case Kind::nalu:
        gate_gradient(unit, dy, n);
        dots<T>(out + gates, in, n, unit.grad_sums, unit.x, unit.grad_A);
        dots<T>(out, in, n, unit.grad_l, logs, unit.grad_A_mul);
        if (layer.bias) {
          T* to = gradients + 2 * unit.weights() + unit.gate_weights();
          add_row_sums<T>(gates, n, unit.grad_sums + out * n, to);
        }
        if (wants_x) {
          // The log-space path's own gradient needs room of its own until it has gone through the
          // logarithm: that of the logarithms, which are read no more.
          apply_transposed<T>(out + gates, in, n, unit.A, unit.grad_sums, unit.grad_x, false);
          apply_transposed<T>(out, in, n, unit.log_matrix(), unit.grad_l, unit.logs, false);
          through_logs(layer, unit.x, in * n, unit.logs, unit.grad_x);
        }
        break;
      case Kind::linear:
        dots<T>(out, in, n, dy, unit.x, gradients);
        if (layer.bias) {
          add_row_sums<T>(out, n, dy, gradients + out * in);
        }
        if (wants_x) {
          apply_transposed<T>(out, in, n, parameters, dy, unit.grad_x, false);
        }
        break;
      case Kind::relu:
      case Kind::relu6:
        if (wants_x) {
          rectify_gradient(unit.x, dy, out * n, layer.kind == Kind::relu6, unit.grad_x);
        }
        break;
    }
  }

  static void gate_gradient(Unit<T>& unit, const T* dy, int64_t n) {
    const int64_t out = unit.layer.out, gates = unit.layer.gates;
    const bool shared = gates == 1 && out != 1;
    T* grad_z = unit.grad_sums + out * n;
    if (shared) {
      std::memset(grad_z, 0, static_cast<size_t>(n) * sizeof(T));
    }
    for (int64_t o = 0; o < out; ++o) {
      const int64_t place = o * n, gate = (gates == 1 ? 0 : o) * n;
      for_each_vector<T>(n, [&](int64_t k, auto count) {
        const Vec<T> g = load<T>(unit.sums + out * n + gate + k, count);
        const MixGradient<Vec<T>> grad(
            load<T>(dy + place + k, count),
            load<T>(unit.sums + place + k, count),
            load<T>(unit.m + place + k, count),
            g);
        store<T>(unit.grad_sums + place + k, grad.a, count);
        store<T>(unit.grad_l + place + k, grad.l, count);
        T* to = grad_z + gate + k;
        if (shared) {
          store<T>(to, load<T>(to, count) + grad.g, count);
        } else {
          store<T>(to, grad_sigmoid(grad.g, g), count);
        }
      });
    }
    if (shared) {
      for_each_vector<T>(n, [&](int64_t k, auto count) {
        const Vec<T> g = load<T>(unit.sums + out * n + k, count);
        store<T>(grad_z + k, grad_sigmoid(load<T>(grad_z + k, count), g), count);
      });
    }
  }

  // The gradient of log(|x| + eps) becomes that of x, in place, or is added to `sum`.
  static void through_logs(const StackLayer& layer, const T* x, int64_t count, T* grad, T* sum) {
    const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> of_x = grad_log_abs(load<T>(grad + k, lanes), load<T>(x + k, lanes), eps);
      if (sum != nullptr) {
        store<T>(sum + k, load<T>(sum + k, lanes) + of_x, lanes);
      } else {
        store<T>(grad + k, of_x, lanes);
      }
    });
  }

  // As torch has it: 0 at the corners; a NaN in x lets the gradient pass at ReLU only.
  static void rectify_gradient(const T* x, const T* dy, int64_t count, bool six, T* grad) {
    const Vec<T> zero{}, top = splat<Vec<T>>(6);
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> v = load<T>(x + k, lanes), g = load<T>(dy + k, lanes);
      const Vec<T> passed = six ? (v > zero ? (v < top ? g : zero) : zero) : (v <= zero ? zero : g);
      store<T>(grad + k, passed, lanes);
    });
  }

  Unit<T>* units_;
  int64_t depth_;
  T* grad_y_;
  const T* logs_ = nullptr;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
