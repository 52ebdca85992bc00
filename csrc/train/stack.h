// A stack's forward and backward over a block of rows, for every device. A matrix of values is
// (features, rows): the rows lie along a CPU's vectors and a GPU's threads.
//
// The mathematics of the layers is that of formulas.h, as in the operators. What walks over the
// numbers is the including file's team.h or team.cuh; its loops and sums end with all their results
// in place.
#pragma once

#include "../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

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

  NALU_BOTH int64_t weights() const {
    return layer.out * layer.in;
  }
  NALU_BOTH int64_t gate_weights() const {
    return layer.gates * layer.in;
  }
  // The matrix of the log-space path.
  NALU_DEVICE const T* log_matrix() const {
    return layer.untied || layer.kind == Kind::nac_log_space ? A_mul : A;
  }
};

template <class T>
class Stack {
 public:
  // For blocks of up to `rows` rows. `units` has room for as many as there are layers.
  NALU_BOTH Stack(const Training& training, int64_t rows, Unit<T>* units, Arena<T>& arena)
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
          unit.grad_l = arena.take(out * rows);
        }
        if (gates > 0) {
          unit.sums = arena.take((out + gates) * rows);
          unit.grad_sums = arena.take((out + gates) * rows);
          unit.m = arena.take(out * rows);
        }
      }
      unit.y = arena.take(out * rows);
      if (i > 0) {
        unit.grad_x = arena.take(in * rows);
      }
      if (log_space) {
        unit.logs = arena.take(in * rows);
      }
    }
    grad_y_ = arena.take(training.outputs() * rows);
  }

  NALU_DEVICE T* grad_y() const {
    return grad_y_;
  }

  // What the step's parameters come to, before any row.
  NALU_DEVICE void prepare(const T* parameters) {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      if (!unit.layer.weighted()) {
        continue;
      }
      const T* from = parameters + unit.at;
      const int64_t count = unit.weights(), gates = unit.gate_weights();
      T* matrix = unit.layer.kind == Kind::nac_log_space ? unit.A_mul : unit.A;
      transform(count, from, from + count, unit.t, unit.s, matrix);
      if (unit.layer.gates > 0) {
        copy(from + 2 * count, gates, unit.A + count);
      }
      if (unit.layer.untied) {
        const T* mul = from + 2 * count + gates + (unit.layer.bias ? unit.layer.gates : 0);
        transform(count, mul, mul + count, unit.t_mul, unit.s_mul, unit.A_mul);
      }
    }
  }

  // The outputs (out, n). `logs` are those of x where the first layer needs them; null: not yet taken.
  NALU_DEVICE const T* forward(const T* parameters, const T* x, const T* logs, int64_t n) {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      if (unit.layer.log_space() && logs == nullptr) {
        take_logs(unit.layer, x, unit.layer.in * n, unit.logs);
        logs = unit.logs;
      }
      forward(unit, parameters + unit.at, x, logs, n);
      x = unit.y;
      logs = nullptr;
    }
    return x;
  }

  NALU_DEVICE void clear_gradients(T* gradients, int64_t parameters) {
    clear(gradients, parameters);
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      if (unit.layer.weighted()) {
        clear(unit.grad_A, unit.weights() + unit.gate_weights());
        if (unit.grad_A_mul != nullptr) {
          clear(unit.grad_A_mul, unit.weights());
        }
      }
    }
  }

  // From grad_y(), for the rows x of the last forward, which took their logarithms; adds to the
  // gradients of the matrices, and to those of biases.
  NALU_DEVICE void backward(const T* parameters, const T* x, T* gradients, int64_t n) {
    const T* dy = grad_y_;
    for (int64_t i = depth_ - 1; i >= 0; --i) {
      const Unit<T>& unit = units_[i];
      const T* own_x = i > 0 ? units_[i - 1].y : x;
      backward(unit, parameters + unit.at, gradients + unit.at, own_x, dy, n, i > 0);
      dy = unit.grad_x;
    }
  }

  // From the gradients of the matrices to those of the parameters, after all rows.
  NALU_DEVICE void finish(T* gradients) {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
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
        copy(unit.grad_A + count, gates, to + 2 * count);
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

  NALU_DEVICE static void take_logs(const StackLayer& layer, const T* x, int64_t count, T* logs) {
    const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
    if (static_cast<T>(layer.eps) >= std::numeric_limits<T>::min()) {
      take_logs<true>(x, count, eps, logs);
    } else {
      take_logs<false>(x, count, eps, logs);
    }
  }

 private:
  template <bool normal>
  NALU_DEVICE static void take_logs(const T* x, int64_t count, Vec<T> eps, T* logs) {
    for_each_of_many_vectors<T>(count, [&](int64_t k, auto lanes) {
      store<T>(logs + k, log_abs<normal>(load<T>(x + k, lanes), eps), lanes);
    });
  }

  NALU_DEVICE static void transform(int64_t count, const T* W_hat, const T* M_hat, T* t, T* s, T* W) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Weight<Vec<T>> weight(load<T>(W_hat + k, lanes), load<T>(M_hat + k, lanes));
      store<T>(t + k, weight.t, lanes);
      store<T>(s + k, weight.s, lanes);
      store<T>(W + k, weight.value(), lanes);
    });
  }

  NALU_DEVICE static void transform_gradient(
      int64_t count, const T* grad_W, const T* t, const T* s, T* grad_W_hat, T* grad_M_hat) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> grad = load<T>(grad_W + k, lanes);
      const auto weight = Weight<Vec<T>>::of(load<T>(t + k, lanes), load<T>(s + k, lanes));
      store<T>(grad_W_hat + k, weight.grad_W_hat(grad), lanes);
      store<T>(grad_M_hat + k, weight.grad_M_hat(grad), lanes);
    });
  }

  NALU_DEVICE void forward(
      const Unit<T>& unit, const T* parameters, const T* x, const T* logs, int64_t n) {
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
          for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto count) {
            T* y = unit.y + o * n + k;
            store<T>(y, load<T>(y, count) + parameters[out * in + o], count);
          });
        }
        break;
      case Kind::relu:
      case Kind::relu6:
        rectify(x, out * n, layer.kind == Kind::relu6, unit.y);
        break;
    }
  }

  // sums become a and g, m the product, y their mixture.
  NALU_DEVICE static void gate(const Unit<T>& unit, const T* bias, int64_t n) {
    const int64_t out = unit.layer.out, gates = unit.layer.gates;
    for_each_vector_of_rows<T>(gates, n, [&](int64_t o, int64_t k, auto count) {
      T* z = unit.sums + (out + o) * n + k;
      Vec<T> sum = load<T>(z, count);
      sum = bias != nullptr ? sum + bias[o] : sum;
      store<T>(z, sigmoid(sum), count);
    });
    for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto count) {
      const T *a = unit.sums + o * n + k, *g = unit.sums + (out + (gates == 1 ? 0 : o)) * n + k;
      T *m = unit.m + o * n + k, *y = unit.y + o * n + k;
      const Vec<T> product = exp(load<T>(m, count));
      store<T>(m, product, count);
      store<T>(y, mix(load<T>(a, count), product, load<T>(g, count)), count);
    });
  }

  NALU_DEVICE static void rectify(const T* x, int64_t count, bool six, T* y) {
    const Vec<T> zero{}, top = splat<Vec<T>>(6);
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      Vec<T> v = load<T>(x + k, lanes);
      v = v < zero ? zero : v; // a NaN passes both
      v = six ? (v > top ? top : v) : v;
      store<T>(y + k, v, lanes);
    });
  }

  NALU_DEVICE void backward(
      const Unit<T>& unit,
      const T* parameters,
      T* gradients,
      const T* x,
      const T* dy,
      int64_t n,
      bool wants_x) {
    const StackLayer& layer = unit.layer;
    const int64_t in = layer.in, out = layer.out, gates = layer.gates;
    switch (layer.kind) {
      case Kind::nac:
        dots<T>(out, in, n, dy, x, unit.grad_A);
        if (wants_x) {
          apply_transposed<T>(out, in, n, unit.A, dy, unit.grad_x, false);
        }
        break;
      case Kind::nac_log_space:
        for_each_vector<T>(out * n, [&](int64_t k, auto count) {
          store<T>(unit.grad_l + k, load<T>(dy + k, count) * load<T>(unit.y + k, count), count);
        });
        dots<T>(out, in, n, unit.grad_l, unit.logs, unit.grad_A_mul);
        if (wants_x) {
          apply_transposed<T>(out, in, n, unit.A_mul, unit.grad_l, unit.grad_x, false);
          through_logs(layer, x, in * n, unit.grad_x, nullptr);
        }
        break;
      case Kind::nalu:
        gate_gradient(unit, dy, n);
        dots<T>(out + gates, in, n, unit.grad_sums, x, unit.grad_A);
        dots<T>(out, in, n, unit.grad_l, unit.logs, unit.grad_A_mul);
        if (layer.bias) {
          T* to = gradients + 2 * unit.weights() + unit.gate_weights();
          add_row_sums<T>(gates, n, unit.grad_sums + out * n, to);
        }
        if (wants_x) {
          // The log-space path's own gradient needs room of its own until it has gone through the
          // logarithm: that of the logarithms, which are read no more.
          apply_transposed<T>(out + gates, in, n, unit.A, unit.grad_sums, unit.grad_x, false);
          apply_transposed<T>(out, in, n, unit.log_matrix(), unit.grad_l, unit.logs, false);
          through_logs(layer, x, in * n, unit.logs, unit.grad_x);
        }
        break;
      case Kind::linear:
        dots<T>(out, in, n, dy, x, gradients);
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
          rectify_gradient(x, dy, out * n, layer.kind == Kind::relu6, unit.grad_x);
        }
        break;
    }
  }

  NALU_DEVICE static void gate_gradient(const Unit<T>& unit, const T* dy, int64_t n) {
    const int64_t out = unit.layer.out, gates = unit.layer.gates, each = out / gates;
    for_each_vector_of_rows<T>(gates, n, [&](int64_t gate, int64_t k, auto count) {
      const int64_t z = (out + gate) * n + k;
      const Vec<T> g = load<T>(unit.sums + z, count);
      Vec<T> grad_g{};
      for (int64_t o = gate * each; o < (gate + 1) * each; ++o) {
        const int64_t at = o * n + k;
        const MixGradient<Vec<T>> grad(
            load<T>(dy + at, count), load<T>(unit.sums + at, count), load<T>(unit.m + at, count), g);
        store<T>(unit.grad_sums + at, grad.a, count);
        store<T>(unit.grad_l + at, grad.l, count);
        grad_g += grad.g;
      }
      store<T>(unit.grad_sums + z, grad_sigmoid(grad_g, g), count);
    });
  }

  // The gradient of log(|x| + eps) becomes that of x, in place, or is added to `sum`.
  NALU_DEVICE static void through_logs(const StackLayer& layer, const T* x, int64_t count, T* grad, T* sum) {
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
  NALU_DEVICE static void rectify_gradient(const T* x, const T* dy, int64_t count, bool six, T* grad) {
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
};

} // namespace NALU_NAMESPACE
} // namespace nalu
