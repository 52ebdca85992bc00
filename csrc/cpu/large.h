// The passes of large layers (see ../large.h), with products by torch's BLAS.
#pragma once

#include "column_sums.h"
#include "elementwise.h"

#include "../large.h"

namespace nalu {
namespace NALU_NAMESPACE {

// f(begin, end) over the rows of a (rows, cols) pass, on several threads.
template <class F>
inline void parallel_rows(int64_t rows, int64_t cols, const F& f) {
  parallel(rows, 1 + kGrain / (cols + 1), f);
}

// to[i] = weight(i), on several threads.
template <class T, class F>
inline void parallel_fill(int64_t n, const F& weight, T* to) {
  parallel(n, kGrain, [&](int64_t begin, int64_t end) { fill(begin, end, weight, to); });
}

template <class S>
inline void transform_of(const Layer& layer, void* W) {
  const int64_t n = layer.shape.O * layer.shape.I;
  using T = Compute<S>;
  parallel(n, kGrain, [&](int64_t begin, int64_t end) {
    const TransformedWeight<T, S> weight(layer.W_hat, layer.M_hat);
    for_each_vector<T>(end - begin, [=](int64_t i, auto count) {
      store<T>(static_cast<S*>(W) + begin + i, weight(begin + i, count), count);
    });
  });
}

template <class S>
class LargePasses {
 public:
  using Number = Compute<S>;
  static constexpr bool same = std::is_same_v<S, Number>;

  explicit LargePasses(const Layer& layer) : layer_(layer), s_(layer.shape) {}

  static Buffer<Number> scratch(int64_t n) {
    return Buffer<Number>(n);
  }

  static bool readable(const Rows&, int64_t, int64_t) {
    return same;
  }

  static void matmul(Number* C, const Matrix& A, const Matrix& B, bool accumulate, Product) {
    nalu::matmul(kDtype<T>, A, B, C, accumulate);
  }

  void prepare(const Operands<Number>& to) const {
    const auto fill_W = [&](const void* W_hat, const void* M_hat, T* W) {
      if (W != nullptr) {
        with_weight<T, S>(
            layer_, W_hat, M_hat, [&](const auto& weight) { parallel_fill(s_.O * s_.I, weight, W); });
      }
    };
    fill_W(layer_.W_hat, layer_.M_hat, to.W);
    fill_W(layer_.W_hat_mul, layer_.M_hat_mul, to.W_mul);
    if (to.G != nullptr) {
      convert<T>(s_.gates * s_.I, static_cast<const S*>(layer_.G), to.G);
    }
    if (to.x != nullptr) {
      parallel_rows(s_.B, s_.I, [&](int64_t begin, int64_t end) {
        pack<T, S>(layer_.input, s_.I, begin, end, to.x + begin * s_.I);
      });
    }
    if (to.L != nullptr) {
      parallel_rows(s_.B, s_.I, [&](int64_t begin, int64_t end) {
        T* L = to.L + begin * s_.I;
        pack<T, S>(layer_.input, s_.I, begin, end, L);
        log_abs((end - begin) * s_.I, L, eps(), L);
      });
    }
  }

  bool put_bias(Number* z) const {
    if (layer_.gate_bias == nullptr) {
      return false;
    }
    fill_rows<T, S>(s_.B, s_.gates, layer_.gate_bias, z);
    return true;
  }

  static bool gate_in_place() {
    return true;
  }

  void outputs(Number* a, Number* l, Number* z, Number*, void* output) const {
    parallel_rows(s_.B, s_.O, [&](int64_t begin, int64_t end) {
      const int64_t i = begin * s_.O, n = (end - begin) * s_.O;
      S* y = static_cast<S*>(output) + i;
      if (layer_.gated()) {
        mix_rows(end - begin, s_.O, s_.gates, a + i, l + i, z + begin * s_.gates, y);
      } else if (layer_.log_space) {
        exp_rows(n, l + i, y);
      } else {
        convert<T>(n, a + i, y);
      }
    });
  }

  void factors(const Backward& backward, Number* da, Number* dl, Number* dz) const {
    const int64_t O = s_.O, gates = s_.gates;
    parallel_rows(s_.B, O, [&](int64_t begin, int64_t end) {
      const int64_t i = begin * O;
      T* dy = (layer_.linear ? da : dl) + i;
      pack<T, S>(backward.grad_output, O, begin, end, dy);
      if (layer_.gated()) {
        mix_gradient(
            end - begin,
            O,
            gates,
            dy,
            static_cast<const T*>(backward.saved.a) + i,
            static_cast<const T*>(backward.saved.m) + i,
            static_cast<const T*>(backward.saved.g) + begin * gates,
            dy,
            dl + i,
            dz + begin * gates);
      } else if (layer_.log_space) {
        exp_gradient((end - begin) * O, dy, static_cast<const S*>(backward.output) + i, dy);
      }
    });
  }

  void input_gradient(const Number* through_sum, const Number* through_log, void* dx) const {
    parallel_rows(s_.B, s_.I, [&](int64_t begin, int64_t end) {
      const int64_t i = begin * s_.I, n = (end - begin) * s_.I;
      const Buffer<T> x(layer_.log_space ? n : 0);
      if (layer_.log_space) {
        pack<T, S>(layer_.input, s_.I, begin, end, x.get());
      }
      const T* sum_part = layer_.linear ? through_sum + i : nullptr;
      const T* log_part = layer_.log_space ? through_log + i : nullptr;
      NALU_NAMESPACE::input_gradient(
          n, sum_part, log_part, x.get(), eps(), static_cast<S*>(dx) + i);
    });
  }

  void weight_gradients(
      const Number* dW,
      const Number* dW_mul,
      const Number* dG,
      const Number* dz,
      const Gradients& grads) const {
    const int64_t weights = s_.O * s_.I;
    if (dW != nullptr) {
      transform_gradient<T, S>(
          layer_.W_hat, layer_.M_hat, weights, dW, 1, 0, grads.W_hat, grads.M_hat);
    }
    if (dW_mul != nullptr) {
      transform_gradient<T, S>(
          layer_.W_hat_mul,
          layer_.M_hat_mul,
          weights,
          dW_mul,
          1,
          0,
          grads.W_hat_mul,
          grads.M_hat_mul);
    }
    if (dG != nullptr) {
      convert<T>(s_.gates * s_.I, dG, static_cast<S*>(grads.G));
    }
    if (grads.gate_bias != nullptr) {
      const Buffer<T> sums(s_.gates);
      parallel(s_.gates, 64, [&](int64_t begin, int64_t end) {
        column_sums(s_.B, end - begin, dz + begin, s_.gates, sums.get() + begin, false);
      });
      convert<T>(s_.gates, sums.get(), static_cast<S*>(grads.gate_bias));
    }
  }

 private:
  using T = Number;

  T eps() const {
    return static_cast<T>(layer_.eps);
  }

  const Layer& layer_;
  const Shape& s_;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
