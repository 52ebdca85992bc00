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

// W = tanh(W_hat) sigmoid(M_hat) of a layer, and what its backward needs.
template <class T>
struct Transformed {
  int64_t at; // of W_hat and, behind it, M_hat, among the layer's parameters
  T *t, *s, *W;
  const T *grad_W, *grad_W_too; // null: only one product has W
};

// y (rows, n) = A x, for A (rows, in), or of log |x| in place of x.
template <class T>
struct Product {
  bool of_logs;
  int64_t rows;
  const T* A; // null: the layer's first parameter, whose gradient grad_A is then
  T *grad_A, *y;
  const T* grad_y; // null: the gradient of the layer's output
};

// A layer: weights that are transformed, products, and, by its kind, what joins them; with all that
// it keeps, of its parameters for a step and of a block of rows for its backward.
template <class T>
struct alignas(16) Unit {
  StackLayer layer;
  int64_t at; // of its parameters and of their gradients
  int weight_count, product_count;
  Transformed<T> weights[2];
  Product<T> products[2];
  T *gates, *grad_gates; // (gates, in), below W in the same matrix
  // (in, n): log |x|, the gradient of x. (out + gates, n): a and z, and their gradients. (out, n): l,
  // then m; the gradient of l; y.
  T *logs, *grad_x, *sums, *grad_sums, *m, *grad_l, *y;

  // Where its parameters begin that come after W_hat and M_hat.
  NALU_BOTH int64_t after_weights() const {
    return 2 * layer.out * layer.in;
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
      lay_out(unit, rows, arena);
      if (i > 0) {
        unit.grad_x = arena.take(unit.layer.in * rows);
      }
      if (unit.layer.log_space()) {
        unit.logs = arena.take(unit.layer.in * rows);
      }
    }
    grad_y_ = arena.take(training.outputs() * rows);
  }

  NALU_INLINE T* grad_y() const {
    return grad_y_;
  }

  // What the step's parameters come to, before any row.
  NALU_DEVICE void prepare(const T* parameters) const {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      const T* own = parameters + unit.at;
      const int64_t count = unit.layer.out * unit.layer.in;
      for (int w = 0; w < unit.weight_count; ++w) {
        const Transformed<T> weight = unit.weights[w];
        transform(count, own + weight.at, own + weight.at + count, weight);
      }
      if (unit.gates != nullptr) {
        copy(own + unit.after_weights(), unit.layer.gates * unit.layer.in, unit.gates);
      }
    }
  }

  // The outputs (out, n). `logs` are those of x where the first layer needs them; null: not yet taken.
  NALU_DEVICE const T* forward(const T* parameters, const T* x, const T* logs, int64_t n) const {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      if (unit.layer.log_space() && logs == nullptr) {
        take_logs(unit.layer, x, unit.layer.in * n, unit.logs);
        logs = unit.logs;
      }
      const T* own = parameters + unit.at;
      for (int p = 0; p < unit.product_count; ++p) {
        const Product<T> product = unit.products[p];
        const T *A = product.A != nullptr ? product.A : own, *of = product.of_logs ? logs : x;
        apply<T>(product.rows, unit.layer.in, n, A, of, product.y);
      }
      join(unit, own, x, n);
      x = unit.y;
      logs = nullptr;
    }
    return x;
  }

  NALU_DEVICE void clear_gradients(T* gradients, int64_t parameters) const {
    clear(gradients, parameters);
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      for (int p = 0; p < unit.product_count; ++p) {
        if (unit.products[p].grad_A != nullptr) {
          clear(unit.products[p].grad_A, unit.products[p].rows * unit.layer.in);
        }
      }
    }
  }

  // From grad_y(), for the rows x of the last forward, which took their logarithms; adds to the
  // gradients of the matrices, and to those of biases.
  NALU_DEVICE void backward(const T* parameters, const T* x, T* gradients, int64_t n) const {
    const T* dy = grad_y_;
    for (int64_t i = depth_ - 1; i >= 0; --i) {
      const Unit<T>& unit = units_[i];
      const T *own_x = i > 0 ? units_[i - 1].y : x, *own = parameters + unit.at;
      T* own_gradients = gradients + unit.at;
      part(unit, own_x, dy, own_gradients, n);
      for (int p = 0; p < unit.product_count; ++p) {
        const Product<T> product = unit.products[p];
        const T *A = product.A != nullptr ? product.A : own, *of = product.of_logs ? unit.logs : own_x;
        const T* grad = product.grad_y != nullptr ? product.grad_y : dy;
        T* grad_A = product.grad_A != nullptr ? product.grad_A : own_gradients;
        dots<T>(product.rows, unit.layer.in, n, grad, of, grad_A);
        if (i > 0) { // the gradient of the logarithms takes their place
          T* to = product.of_logs ? unit.logs : unit.grad_x;
          apply_transposed<T>(product.rows, unit.layer.in, n, A, grad, to);
          if (product.of_logs) {
            through_logs(unit.layer, own_x, unit.layer.in * n, unit.logs, p > 0, unit.grad_x);
          }
        }
      }
      dy = unit.grad_x;
    }
  }

  // From the gradients of the matrices to those of the parameters, after all rows.
  NALU_DEVICE void finish(T* gradients) const {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      T* to = gradients + unit.at;
      const int64_t count = unit.layer.out * unit.layer.in;
      for (int w = 0; w < unit.weight_count; ++w) {
        const Transformed<T> weight = unit.weights[w];
        transform_gradient(count, weight, to + weight.at, to + weight.at + count);
      }
      if (unit.gates != nullptr) {
        copy(unit.grad_gates, unit.layer.gates * unit.layer.in, to + unit.after_weights());
      }
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

  // Memory, and what is made of what.
  NALU_BOTH static void lay_out(Unit<T>& unit, int64_t rows, Arena<T>& arena) {
    const StackLayer& layer = unit.layer;
    const int64_t in = layer.in, out = layer.out, gates = layer.gates, size = out * in;
    unit.y = arena.take(out * rows);
    if (layer.kind == Kind::linear) {
      unit.products[unit.product_count++] = {false, out, nullptr, nullptr, unit.y, nullptr};
      return;
    }
    if (!layer.weighted()) {
      return;
    }
    const bool gated = layer.kind == Kind::nalu;
    T *A = arena.take((out + gates) * in), *grad_A = arena.take((out + gates) * in);
    Transformed<T>& weight = unit.weights[unit.weight_count++];
    weight = {0, arena.take(size), arena.take(size), A, grad_A, nullptr};
    if (layer.log_space()) {
      unit.grad_l = arena.take(out * rows);
    }
    if (!gated) {
      const bool logs = layer.log_space();
      unit.products[unit.product_count++] = {
          logs, out, A, grad_A, unit.y, logs ? unit.grad_l : nullptr};
      return;
    }
    unit.gates = A + size;
    unit.grad_gates = grad_A + size;
    unit.sums = arena.take((out + gates) * rows);
    unit.grad_sums = arena.take((out + gates) * rows);
    unit.m = arena.take(out * rows);
    const T* A_mul = A;
    T* grad_A_mul = arena.take(size);
    if (layer.untied) {
      const int64_t at = unit.after_weights() + gates * in + (layer.bias ? gates : 0);
      T* own = arena.take(size);
      unit.weights[unit.weight_count++] = {
          at, arena.take(size), arena.take(size), own, grad_A_mul, nullptr};
      A_mul = own;
    } else {
      weight.grad_W_too = grad_A_mul;
    }
    unit.products[unit.product_count++] = {
        false, out + gates, A, grad_A, unit.sums, unit.grad_sums};
    unit.products[unit.product_count++] = {true, out, A_mul, grad_A_mul, unit.m, unit.grad_l};
  }

  NALU_DEVICE static void transform(
      int64_t count, const T* W_hat, const T* M_hat, const Transformed<T>& to) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Weight<Vec<T>> weight(load<T>(W_hat + k, lanes), load<T>(M_hat + k, lanes));
      store<T>(to.t + k, weight.t, lanes);
      store<T>(to.s + k, weight.s, lanes);
      store<T>(to.W + k, weight.value(), lanes);
    });
  }

  NALU_DEVICE static void transform_gradient(
      int64_t count, const Transformed<T>& from, T* grad_W_hat, T* grad_M_hat) {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      Vec<T> grad = load<T>(from.grad_W + k, lanes);
      grad = from.grad_W_too != nullptr ? grad + load<T>(from.grad_W_too + k, lanes) : grad;
      const auto weight = Weight<Vec<T>>::of(load<T>(from.t + k, lanes), load<T>(from.s + k, lanes));
      store<T>(grad_W_hat + k, weight.grad_W_hat(grad), lanes);
      store<T>(grad_M_hat + k, weight.grad_M_hat(grad), lanes);
    });
  }

  // From the products to the layer's output.
  NALU_DEVICE static void join(const Unit<T>& unit, const T* parameters, const T* x, int64_t n) {
    const StackLayer& layer = unit.layer;
    const int64_t out = layer.out;
    switch (layer.kind) {
      case Kind::nac:
        break;
      case Kind::nac_log_space:
        for_each_vector<T>(out * n, [&](int64_t k, auto count) {
          store<T>(unit.y + k, exp(load<T>(unit.y + k, count)), count);
        });
        break;
      case Kind::nalu:
        gate(unit, layer.bias ? parameters + unit.after_weights() + layer.gates * layer.in : nullptr, n);
        break;
      case Kind::linear:
        if (layer.bias) {
          const T* bias = parameters + out * layer.in;
          for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto count) {
            T* y = unit.y + o * n + k;
            store<T>(y, load<T>(y, count) + bias[o], count);
          });
        }
        break;
      case Kind::relu:
      case Kind::relu6:
        rectify(x, out * n, layer.kind == Kind::relu6, unit.y);
        break;
    }
  }

  // From the gradient of the layer's output to those of the products, and of a bias; of a layer
  // without products, to that of x.
  NALU_DEVICE static void part(
      const Unit<T>& unit, const T* x, const T* dy, T* gradients, int64_t n) {
    const StackLayer& layer = unit.layer;
    const int64_t in = layer.in, out = layer.out, gates = layer.gates;
    switch (layer.kind) {
      case Kind::nac:
        break;
      case Kind::nac_log_space:
        for_each_vector<T>(out * n, [&](int64_t k, auto count) {
          store<T>(unit.grad_l + k, load<T>(dy + k, count) * load<T>(unit.y + k, count), count);
        });
        break;
      case Kind::nalu:
        gate_gradient(unit, dy, n);
        if (layer.bias) {
          T* to = gradients + unit.after_weights() + gates * in;
          add_row_sums<T>(gates, n, unit.grad_sums + out * n, to);
        }
        break;
      case Kind::linear:
        if (layer.bias) {
          add_row_sums<T>(out, n, dy, gradients + out * in);
        }
        break;
      case Kind::relu:
      case Kind::relu6:
        if (unit.grad_x != nullptr) {
          rectify_gradient(x, dy, out * n, layer.kind == Kind::relu6, unit.grad_x);
        }
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

  // The gradient of log(|x| + eps) becomes that of x, or is added to it.
  NALU_DEVICE static void through_logs(
      const StackLayer& layer, const T* x, int64_t count, const T* grad, bool add, T* grad_x) {
    const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> of_x = grad_log_abs(load<T>(grad + k, lanes), load<T>(x + k, lanes), eps);
      store<T>(grad_x + k, add ? load<T>(grad_x + k, lanes) + of_x : of_x, lanes);
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
