// Small layers: everything in one pass over the rows, with this library's own products.
//
// The rows are cut into chunks whose size depends on the shape alone; a thread works through a
// chunk while it is in cache. Sums over rows are made chunk by chunk and added in order, so the
// result has the same bits for every number of threads.
#pragma once

#include "elementwise.h"
#include "gemm.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Above these, torch's BLAS on whole matrices is faster (benchmarks/ has the crossover).
constexpr int64_t kSmallProduct = int64_t{1} << 22, kSmallWeight = int64_t{1} << 16;

inline bool is_small(const Shape& s) {
  return s.O * s.I <= kSmallWeight && s.B * s.O * s.I <= kSmallProduct;
}

// Rows that take one thread about `nanoseconds`: long enough to be worth sending to a thread,
// short enough to stay in cache.
inline int64_t rows_per_chunk(const Shape& s, int64_t nanoseconds) {
  const int64_t row = 4 + 2 * s.I + 6 * s.O + 3 * s.I * s.O / 16;
  const int64_t rows = nanoseconds / row / 16 * 16;
  const int64_t bounded = rows < 16 ? 16 : rows > 1024 ? 1024 : rows;
  return bounded < s.B ? bounded : s.B;
}

inline int64_t divide_up(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

// W (O, I) as (I, O): the product's right-hand side.
template <class T>
inline void transpose(int64_t O, int64_t I, const T* from, T* to) {
  constexpr int64_t block = 16;
  for (int64_t i0 = 0; i0 < I; i0 += block) {
    const int64_t i1 = i0 + block < I ? i0 + block : I;
    for (int64_t o = 0; o < O; ++o) {
      for (int64_t i = i0; i < i1; ++i) {
        to[i * O + o] = from[o * I + i];
      }
    }
  }
}

template <class T>
inline T* row_of(void* plane, int64_t row, int64_t cols) {
  return static_cast<T*>(plane) + row * cols;
}

// Rows that are dense in memory and need no conversion are read in place, others are packed.
template <class T, class S>
inline Operand<T> read_rows(
    const Rows& rows, int64_t cols, int64_t begin, int64_t end, const Buffer<T>& packed) {
  if constexpr (std::is_same_v<S, T>) {
    if (rows.col_stride == 1 && rows.row_stride == cols) {
      return {static_cast<const T*>(rows.data) + begin * cols, cols, 1};
    }
  }
  pack<T, S>(rows, cols, begin, end, packed.get());
  return {packed.get(), cols, 1};
}

template <class S>
inline void forward_small(const Layer& layer, void* output, const Saved& saved) {
  using T = Compute<S>;
  const auto [B, I, O, gates] = layer.shape;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr;
  const T eps = static_cast<T>(layer.eps);

  Buffer<T> scratch((O > gates ? O : gates) * I), W(O * I), W_mul(untied ? O * I : 0), G(gates * I);
  transform<T, S>(layer.W_hat, layer.M_hat, O * I, scratch.get());
  transpose(O, I, scratch.get(), W.get());
  if (untied) {
    transform<T, S>(layer.W_hat_mul, layer.M_hat_mul, O * I, scratch.get());
    transpose(O, I, scratch.get(), W_mul.get());
  }
  if (gated) {
    convert<T>(gates * I, static_cast<const S*>(layer.G), scratch.get());
    transpose(gates, I, scratch.get(), G.get());
  }
  const T* W_log = untied ? W_mul.get() : W.get();

  const int64_t size = rows_per_chunk(layer.shape, 30000);
  parallel(B > 0 ? divide_up(B, size) : 0, 1, [&](int64_t first, int64_t last) {
    // What is neither kept nor the output itself.
    const bool a_is_output = !gated && linear && std::is_same_v<S, T>;
    const bool keep = saved.a != nullptr;
    Buffer<T> packed(size * I), L(log_space ? size * I : 0);
    Buffer<T> planes(keep || a_is_output ? 0 : size * (O * (linear + log_space) + gates));
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * size, end = begin + size < B ? begin + size : B;
      const int64_t rows = end - begin;
      S* y = row_of<S>(output, begin, O);
      T* a = keep ? row_of<T>(saved.a, begin, O) : planes.get();
      T* m = keep ? row_of<T>(saved.m, begin, O) : planes.get() + (linear ? size * O : 0);
      T* g = keep ? row_of<T>(saved.g, begin, gates) : m + size * O;
      if constexpr (std::is_same_v<S, T>) {
        a = a_is_output ? y : a;
      }
      const Operand<T> x = read_rows<T, S>(layer.input, I, begin, end, packed);
      if (linear) {
        gemm(rows, O, I, x, W.get(), O, a, O, false);
      }
      if (log_space) {
        log_abs(rows * I, x.data, eps, L.get());
        gemm(rows, O, I, {L.get(), I, 1}, W_log, O, m, O, false);
      }
      if (gated) {
        const bool biased = layer.gate_bias != nullptr;
        if (biased) {
          fill_rows<T, S>(rows, gates, layer.gate_bias, g);
        }
        gemm(rows, gates, I, x, G.get(), gates, g, gates, biased);
        mix_rows(rows, O, gates, a, m, g, y);
      } else if (log_space) {
        exp_rows(rows * O, m, y);
      } else if (!a_is_output) {
        convert<T>(rows * O, a, y);
      }
    }
  });
}

template <class S>
inline void backward_small(
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  using T = Compute<S>;
  const auto [B, I, O, gates] = layer.shape;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr;
  const bool want_x = grads.input != nullptr;
  const bool want_W = grads.W_hat != nullptr || grads.M_hat != nullptr;
  const bool want_W_mul = grads.W_hat_mul != nullptr || grads.M_hat_mul != nullptr;
  const bool want_G = grads.G != nullptr, want_bias = grads.gate_bias != nullptr;
  const bool want_W_log = untied ? want_W_mul : want_W;
  const T eps = static_cast<T>(layer.eps);

  const int64_t weight = O * I;
  Buffer<T> W(want_x ? weight : 0), W_mul(want_x && untied ? weight : 0);
  Buffer<T> G(want_x ? gates * I : 0);
  if (want_x) {
    transform<T, S>(layer.W_hat, layer.M_hat, weight, W.get());
    if (untied) {
      transform<T, S>(layer.W_hat_mul, layer.M_hat_mul, weight, W_mul.get());
    }
    if (gated) {
      convert<T>(gates * I, static_cast<const S*>(layer.G), G.get());
    }
  }
  const T* W_log = untied ? W_mul.get() : W.get();

  // The sums over one chunk's rows: of W, of W_mul, of G, of the gate's bias.
  const int64_t at_W_mul = want_W ? weight : 0;
  const int64_t at_G = at_W_mul + (want_W_mul ? weight : 0);
  const int64_t at_bias = at_G + (want_G ? gates * I : 0);
  const int64_t stride = at_bias + (want_bias ? gates : 0);
  const int64_t size = rows_per_chunk(layer.shape, 60000);
  const int64_t chunks = B > 0 ? divide_up(B, size) : 1;
  Buffer<T> sums(chunks * stride);
  if (B == 0) {
    std::memset(sums.get(), 0, sizeof(T) * static_cast<size_t>(stride));
  }

  parallel(B > 0 ? chunks : 0, 1, [&](int64_t first, int64_t last) {
    Buffer<T> x(size * I), L(log_space && want_W_log ? size * I : 0);
    Buffer<T> da(size * O), dl(log_space ? size * O : 0), dz(size * gates);
    Buffer<T> dx(want_x && linear ? size * I : 0), dx_log(want_x && log_space ? size * I : 0);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * size, end = begin + size < B ? begin + size : B;
      const int64_t rows = end - begin;
      T* sum = sums.get() + chunk * stride;
      pack<T, S>(layer.input, I, begin, end, x.get());
      pack<T, S>(grad_output, O, begin, end, da.get());
      if (gated) {
        mix_gradient(
            rows,
            O,
            gates,
            da.get(),
            row_of<T>(saved.a, begin, O),
            row_of<T>(saved.m, begin, O),
            row_of<T>(saved.g, begin, gates),
            da.get(),
            dl.get(),
            dz.get());
      } else if (log_space) {
        exp_gradient(
            rows * O, da.get(), static_cast<const S*>(output) + begin * O, dl.get());
      }
      if (want_x) {
        if (linear) {
          gemm(rows, I, O, {da.get(), O, 1}, W.get(), I, dx.get(), I, false);
        }
        if (gated) {
          gemm(rows, I, gates, {dz.get(), gates, 1}, G.get(), I, dx.get(), I, true);
        }
        if (log_space) {
          gemm(rows, I, O, {dl.get(), O, 1}, W_log, I, dx_log.get(), I, false);
        }
        input_gradient(
            rows * I, dx.get(), dx_log.get(), x.get(), eps, row_of<S>(grads.input, begin, I));
      }
      if (linear && want_W) {
        gemm(O, I, rows, {da.get(), 1, O}, x.get(), I, sum, I, false);
      }
      if (log_space && want_W_log) {
        log_abs(rows * I, x.get(), eps, L.get());
        T* to = untied ? sum + at_W_mul : sum;
        gemm(O, I, rows, {dl.get(), 1, O}, L.get(), I, to, I, linear && !untied);
      }
      if (want_G) {
        gemm(gates, I, rows, {dz.get(), 1, gates}, x.get(), I, sum + at_G, I, false);
      }
      if (want_bias) {
        const T one = 1;
        gemm(1, gates, rows, {&one, 0, 0}, dz.get(), gates, sum + at_bias, gates, false);
      }
    }
  });

  if (want_W) {
    transform_gradient<T, S>(
        layer.W_hat, layer.M_hat, weight, sums.get(), chunks, stride, grads.W_hat, grads.M_hat);
  }
  if (want_W_mul) {
    transform_gradient<T, S>(
        layer.W_hat_mul,
        layer.M_hat_mul,
        weight,
        sums.get() + at_W_mul,
        chunks,
        stride,
        grads.W_hat_mul,
        grads.M_hat_mul);
  }
  if (want_G) {
    sum_parts<T, S>(gates * I, sums.get() + at_G, chunks, stride, grads.G);
  }
  if (want_bias) {
    sum_parts<T, S>(gates, sums.get() + at_bias, chunks, stride, grads.gate_bias);
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
