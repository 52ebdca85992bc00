// Large layers: matrix products by torch's BLAS, everything between them in fused passes.
#pragma once

#include "column_sums.h"
#include "elementwise.h"
#include "gemm.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class T>
constexpr Dtype kDtype = std::is_same_v<T, double> ? Dtype::float64 : Dtype::float32;

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

// Rows as a matrix of T: in place where they are of that type, else a copy in `copy`.
template <class T, class S>
inline Matrix as_matrix(const Rows& from, int64_t rows, int64_t cols, const Buffer<T>& copy) {
  if constexpr (std::is_same_v<S, T>) {
    return {from.data, rows, cols, from.row_stride, from.col_stride};
  }
  parallel_rows(rows, cols, [&](int64_t begin, int64_t end) {
    pack<T, S>(from, cols, begin, end, copy.get() + begin * cols);
  });
  return matrix(copy.get(), rows, cols);
}

// log(|x| + eps) of strided rows.
template <class T, class S>
inline void log_abs_rows(const Rows& x, int64_t rows, int64_t cols, T eps, T* L) {
  parallel_rows(rows, cols, [&](int64_t begin, int64_t end) {
    T* to = L + begin * cols;
    pack<T, S>(x, cols, begin, end, to);
    log_abs((end - begin) * cols, to, eps, to);
  });
}

// Whether what goes by W_hat is W already, as BLAS takes it.
template <class T, class S>
inline bool is_weight(const void* M_hat) {
  return M_hat == nullptr && std::is_same_v<S, T>;
}

// W, which is made in `scratch` where it is not there already.
template <class T, class S>
inline const T* as_weight(const void* W_hat, const void* M_hat, int64_t n, T* scratch) {
  if (is_weight<T, S>(M_hat)) {
    return static_cast<const T*>(W_hat);
  }
  with_weight<T, S>(W_hat, M_hat, [&](const auto& weight) { parallel_fill(n, weight, scratch); });
  return scratch;
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
inline void forward_large(const Layer& layer, void* output, const Saved& saved) {
  using T = Compute<S>;
  constexpr bool same = std::is_same_v<S, T>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr;
  const bool keep = saved.a != nullptr;
  const bool direct = same && !gated; // the product goes straight to the output
  S* y = static_cast<S*>(output);

  Buffer<T> a_scratch(keep || direct || !linear ? 0 : B * O);
  Buffer<T> m_scratch(keep || direct || !log_space ? 0 : B * O);
  Buffer<T> g_scratch(keep ? 0 : B * gates);
  T* a = keep ? static_cast<T*>(saved.a) : a_scratch.get();
  T* m = keep ? static_cast<T*>(saved.m) : m_scratch.get();
  T* g = keep ? static_cast<T*>(saved.g) : g_scratch.get();
  if (direct) {
    a = m = static_cast<T*>(output);
  }

  Buffer<T> W_scratch(is_weight<T, S>(layer.M_hat) ? 0 : O * I);
  const T* W = as_weight<T, S>(layer.W_hat, layer.M_hat, O * I, W_scratch.get());
  if (linear) {
    Buffer<T> copy(same ? 0 : B * I), G_copy(same ? 0 : gates * I);
    const Matrix x = as_matrix<T, S>(layer.input, B, I, copy);
    matmul(kDtype<T>, x, transposed(matrix(W, O, I)), a, false);
    if (gated) {
      const bool biased = layer.gate_bias != nullptr;
      if (biased) {
        fill_rows<T, S>(B, gates, layer.gate_bias, g);
      }
      const T* G = as_compute<T, S>(layer.G, gates * I, G_copy);
      matmul(kDtype<T>, x, transposed(matrix(G, gates, I)), g, biased);
    }
  }
  if (log_space) {
    if (untied) {
      W = as_weight<T, S>(layer.W_hat_mul, layer.M_hat_mul, O * I, W_scratch.get());
    }
    Buffer<T> L(B * I);
    log_abs_rows<T, S>(layer.input, B, I, static_cast<T>(layer.eps), L.get());
    matmul(kDtype<T>, matrix(L.get(), B, I), transposed(matrix(W, O, I)), m, false);
  }
  parallel_rows(B, O, [&](int64_t begin, int64_t end) {
    const int64_t i = begin * O, n = (end - begin) * O;
    if (gated) {
      mix_rows(end - begin, O, gates, a + i, m + i, g + begin * gates, y + i);
    } else if (log_space) {
      exp_rows(n, m + i, y + i);
    } else if (!direct) {
      convert<T>(n, a + i, y + i);
    }
  });
}

template <class S>
inline void backward_large(
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  using T = Compute<S>;
  constexpr bool same = std::is_same_v<S, T>;
  constexpr Dtype dtype = kDtype<T>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr;
  const bool want_x = grads.input != nullptr;
  const bool want_W = grads.W_hat != nullptr || grads.M_hat != nullptr;
  const bool want_W_mul = grads.W_hat_mul != nullptr || grads.M_hat_mul != nullptr;
  const bool want_W_log = untied ? want_W_mul : want_W;
  const T eps = static_cast<T>(layer.eps);

  const bool as_it_is = same && !log_space; // da is the output's gradient
  Buffer<T> da(as_it_is ? 0 : B * O), dl(log_space ? B * O : 0), dz(B * gates);
  parallel_rows(as_it_is ? 0 : B, O, [&](int64_t begin, int64_t end) {
    const int64_t i = begin * O;
    pack<T, S>(grad_output, O, begin, end, da.get() + i);
    if (gated) {
      mix_gradient(
          end - begin,
          O,
          gates,
          da.get() + i,
          static_cast<const T*>(saved.a) + i,
          static_cast<const T*>(saved.m) + i,
          static_cast<const T*>(saved.g) + begin * gates,
          da.get() + i,
          dl.get() + i,
          dz.get() + begin * gates);
    } else if (log_space) {
      exp_gradient(
          (end - begin) * O, da.get() + i, static_cast<const S*>(output) + i, dl.get() + i);
    }
  });
  const Matrix dA = as_it_is
      ? Matrix{grad_output.data, B, O, grad_output.row_stride, grad_output.col_stride}
      : matrix(da.get(), B, O);
  const Matrix dL = matrix(dl.get(), B, O);
  const Matrix dZ = matrix(dz.get(), B, gates);

  if (want_x) {
    Buffer<T> W(O * I), G_copy(same ? 0 : gates * I);
    const bool direct = same && linear && !log_space; // the product is the gradient itself
    Buffer<T> dx(linear && !direct ? B * I : 0), dx_log(log_space ? B * I : 0);
    parallel_fill(O * I, TransformedWeight<T, S>(layer.W_hat, layer.M_hat), W.get());
    const Matrix weight = matrix(W.get(), O, I);
    if (linear) {
      matmul(dtype, dA, weight, direct ? static_cast<T*>(grads.input) : dx.get(), false);
    }
    if (gated) {
      const T* G = as_compute<T, S>(layer.G, gates * I, G_copy);
      matmul(dtype, dZ, matrix(G, gates, I), dx.get(), true);
    }
    if (log_space) {
      if (untied) {
        parallel_fill(O * I, TransformedWeight<T, S>(layer.W_hat_mul, layer.M_hat_mul), W.get());
      }
      matmul(dtype, dL, weight, dx_log.get(), false);
    }
    parallel_rows(direct ? 0 : B, I, [&](int64_t begin, int64_t end) {
      Buffer<T> x(log_space ? (end - begin) * I : 0);
      if (log_space) {
        pack<T, S>(layer.input, I, begin, end, x.get());
      }
      const int64_t i = begin * I;
      const T* linear_part = linear ? dx.get() + i : nullptr;
      const T* log_part = log_space ? dx_log.get() + i : nullptr;
      S* to = static_cast<S*>(grads.input) + i;
      input_gradient((end - begin) * I, linear_part, log_part, x.get(), eps, to);
    });
  }

  Buffer<T> dW(want_W || want_W_mul ? O * I : 0);
  const auto finish = [&](const void* W_hat, const void* M_hat, void* grad_W, void* grad_M) {
    transform_gradient<T, S>(W_hat, M_hat, O * I, dW.get(), 1, 0, grad_W, grad_M);
  };
  if (linear && (want_W || grads.G != nullptr)) {
    Buffer<T> copy(same ? 0 : B * I), dG(same || grads.G == nullptr ? 0 : gates * I);
    const Matrix x = as_matrix<T, S>(layer.input, B, I, copy);
    if (want_W) {
      matmul(dtype, transposed(dA), x, dW.get(), false);
      if (untied) {
        finish(layer.W_hat, layer.M_hat, grads.W_hat, grads.M_hat);
      }
    }
    if (grads.G != nullptr) {
      T* to = dG.get();
      if constexpr (same) {
        to = static_cast<T*>(grads.G);
      }
      matmul(dtype, transposed(dZ), x, to, false);
      if constexpr (!same) {
        convert<T>(gates * I, to, static_cast<S*>(grads.G));
      }
    }
  }
  if (log_space && want_W_log) {
    Buffer<T> L(B * I);
    log_abs_rows<T, S>(layer.input, B, I, eps, L.get());
    matmul(dtype, transposed(dL), matrix(L.get(), B, I), dW.get(), linear && !untied);
  }
  if (untied && want_W_mul) {
    finish(layer.W_hat_mul, layer.M_hat_mul, grads.W_hat_mul, grads.M_hat_mul);
  } else if (!untied && want_W) {
    finish(layer.W_hat, layer.M_hat, grads.W_hat, grads.M_hat);
  }
  if (grads.gate_bias != nullptr) {
    Buffer<T> sums(gates);
    parallel(gates, 64, [&](int64_t begin, int64_t end) {
      column_sums(B, end - begin, dz.get() + begin, gates, sums.get() + begin, false);
    });
    convert<T>(gates, sums.get(), static_cast<S*>(grads.gate_bias));
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
