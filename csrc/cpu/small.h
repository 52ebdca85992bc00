// Small layers: everything in one pass over the rows, with this library's own products.
//
// The rows are cut into chunks whose size depends on the shape alone; a thread works through a
// chunk while it is in cache. Sums over rows are made chunk by chunk and added in order, so the
// result has the same bits for every number of threads. Each thread transforms the weights for
// itself: that takes less time than fetching them from another core's cache.
#pragma once

#include "column_sums.h"
#include "elementwise.h"
#include "gemm.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Weights of more elements than this are better served by torch's BLAS, at every batch size
// (measured around 100x100 to 200x200: benchmarks/ shows both sides).
constexpr int64_t kSmallWeight = 12288;

// A layer of one path alone has one product to a pass, and less between products to fuse. Its own
// product is faster than BLAS at every size where it is narrow: of one or two outputs, or three or
// four and few weights.
constexpr int64_t kSmallProduct = 2000000, kNarrowWeight = 256;

inline bool is_narrow(const Shape& s) {
  return s.O <= 2 || (s.O <= kNarrow && s.O * s.I <= kNarrowWeight);
}

inline bool is_small(const Layer& layer) {
  const Shape& s = layer.shape;
  const bool own_product = layer.gated() || is_narrow(s) || s.B * s.O * s.I <= kSmallProduct;
  return runs_alone() || (s.O * s.I <= kSmallWeight && own_product);
}

inline int64_t divide_up(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

// The batch in chunks of equal size: two from 8 us of one thread's work on, more where each keeps
// 20 us or where a chunk would leave the cache. Measured: a parallel region costs 1 us, and what one
// core has written costs another as much again to read.
inline int64_t rows_per_chunk(const Layer& layer) {
  const Shape& s = layer.shape;
  const double B = static_cast<double>(s.B);
  const double I = static_cast<double>(s.I), O = static_cast<double>(s.O);
  const bool narrow_product = !layer.log_space && s.O <= kNarrow;
  const double nanoseconds =
      B * (narrow_product ? (1 + O + I * O / 10) / 2 : 5 + I / 2 + 1.5 * O + I * O / 30);
  int64_t chunks = nanoseconds < 8e3 ? 1 : 2;
  while (static_cast<double>(2 * chunks) * 20e3 <= nanoseconds) {
    chunks *= 2;
  }
  constexpr int64_t most = 1024;
  const int64_t rows = divide_up(divide_up(s.B, chunks), 8) * 8;
  const int64_t bounded = rows < most ? rows : most;
  return bounded < s.B ? bounded : s.B;
}

// The right-hand side of y = x W^T, laid out for the product that suits its shape.
template <class T>
class Projection {
 public:
  Projection(int64_t out, int64_t in)
      : out_(out), in_(in), narrow_(out <= kNarrow && out * in > 1), data_(out * in) {}

  // W[i] = weight(i)
  template <class F>
  void fill_with(const F& weight) {
    narrow_ ? fill(0, out_ * in_, weight, data_.get())
            : fill_transposed(out_, in_, weight, data_.get());
  }

  void operator()(int64_t rows, const T* x, T* y, bool accumulate = false) const {
    if (narrow_) {
      gemm_narrow(rows, out_, in_, x, data_.get(), y, accumulate);
    } else {
      const Dense<T> Wt{data_.get(), out_, data_.get() + in_ * out_};
      gemm(rows, out_, in_, {x, in_, 1}, Wt, y, out_, accumulate);
    }
  }

 private:
  int64_t out_, in_;
  bool narrow_;
  Buffer<T> data_;
};

template <class T>
inline T* row_of(void* plane, int64_t row, int64_t cols) {
  return static_cast<T*>(plane) + row * cols;
}

// Rows as dense T, a chunk at a time: in place where they are that already, else packed.
template <class T, class S>
class RowReader {
 public:
  RowReader(const Rows& rows, int64_t cols, int64_t most)
      : rows_(rows),
        cols_(cols),
        in_place_(std::is_same_v<S, T> && rows.col_stride == 1 && rows.row_stride == cols),
        packed_(in_place_ ? 0 : most * cols) {}

  const T* operator()(int64_t begin, int64_t end) const {
    if (in_place_) {
      return static_cast<const T*>(rows_.data) + begin * cols_;
    }
    pack<T, S>(rows_, cols_, begin, end, packed_.get());
    return packed_.get();
  }

 private:
  const Rows& rows_;
  int64_t cols_;
  bool in_place_;
  Buffer<T> packed_;
};

template <class S>
inline void forward_small(const Layer& layer, void* output, const Saved& saved) {
  using T = Compute<S>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = layer.gated();
  const bool untied = layer.untied();
  const T eps = static_cast<T>(layer.eps);

  const int64_t size = rows_per_chunk(layer);
  parallel(B > 0 ? divide_up(B, size) : 0, 1, [&](int64_t first, int64_t last) {
    Projection<T> W(O, I), W_mul(untied ? O : 0, I), G(gates, I);
    const auto fill_W = [&](Projection<T>& to, const void* W_hat, const void* M_hat) {
      with_weight<T, S>(layer, W_hat, M_hat, [&](const auto& weight) { to.fill_with(weight); });
    };
    fill_W(W, layer.W_hat, layer.M_hat);
    if (untied) {
      fill_W(W_mul, layer.W_hat_mul, layer.M_hat_mul);
    }
    if (gated) {
      G.fill_with(PlainWeight<T, S>(layer.G));
    }
    const Projection<T>& W_log = untied ? W_mul : W;

    // What is neither kept nor the output itself.
    const bool a_is_output = !gated && linear && std::is_same_v<S, T>;
    const bool keep = saved.a != nullptr;
    const RowReader<T, S> input(layer.input, I, size);
    Buffer<T> L(log_space ? size * I : 0);
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
      const T* x = input(begin, end);
      if (linear) {
        W(rows, x, a);
      }
      if (log_space) {
        log_abs(rows * I, x, eps, L.get());
        W_log(rows, L.get(), m);
      }
      if (gated) {
        const bool biased = layer.gate_bias != nullptr;
        if (biased) {
          fill_rows<T, S>(rows, gates, layer.gate_bias, g);
        }
        G(rows, x, g, biased);
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
inline void backward_small(const Layer& layer, const Backward& backward) {
  using T = Compute<S>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = layer.gated();
  const bool untied = layer.untied();
  const Saved& saved = backward.saved;
  const Gradients& grads = backward.grads;
  const Wanted want(layer, grads);
  const T eps = static_cast<T>(layer.eps);

  const int64_t weight = O * I;
  // The sums over one part's rows: of W, of W_mul, of G, of the gate's bias.
  const int64_t at_W_mul = want.W ? weight : 0;
  const int64_t at_G = at_W_mul + (want.W_mul ? weight : 0);
  const int64_t at_bias = at_G + (want.G ? gates * I : 0);
  const int64_t stride = at_bias + (want.bias ? gates : 0);
  // A part is a run of chunks with sums of its own; few parts, so that the sums stay small.
  const int64_t size = rows_per_chunk(layer);
  const int64_t chunks = B > 0 ? divide_up(B, size) : 1;
  constexpr int64_t most_parts = 64;
  const int64_t chunks_per_part = divide_up(chunks, most_parts);
  const int64_t parts = divide_up(chunks, chunks_per_part);
  Buffer<T> sums(parts * stride);
  if (B == 0) {
    clear(sums.get(), stride);
  }

  parallel(B > 0 ? parts : 0, 1, [&](int64_t first_part, int64_t last_part) {
    Buffer<T> W(want.input ? weight : 0), W_mul(want.input && untied ? weight : 0);
    Buffer<T> G_copy(want.input && !std::is_same_v<S, T> ? gates * I : 0);
    const T* G = nullptr;
    if (want.input) {
      with_weight<T, S>(layer, layer.W_hat, layer.M_hat, [&](const auto& made) {
        fill(0, weight, made, W.get());
      });
      if (untied) {
        fill(0, weight, TransformedWeight<T, S>(layer.W_hat_mul, layer.M_hat_mul), W_mul.get());
      }
      G = as_compute<T, S>(layer.G, gates * I, G_copy);
    }
    const T* W_log = untied ? W_mul.get() : W.get();

    const RowReader<T, S> input(layer.input, I, size), grad(backward.grad_output, O, size);
    Buffer<T> L(want.W_log ? size * I : 0);
    Buffer<T> da_gated(gated ? size * O : 0), dl(log_space ? size * O : 0), dz(size * gates);
    // Of the linear path alone the product is the gradient itself.
    const bool direct = std::is_same_v<S, T> && !log_space;
    Buffer<T> dx(want.input && linear && !direct ? size * I : 0);
    Buffer<T> dx_log(want.input && log_space ? size * I : 0);
    const int64_t first = first_part * chunks_per_part, end_chunk = last_part * chunks_per_part;
    const int64_t last = end_chunk < chunks ? end_chunk : chunks;
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * size, end = begin + size < B ? begin + size : B;
      const int64_t rows = end - begin;
      T* sum = sums.get() + chunk / chunks_per_part * stride;
      const bool add = chunk % chunks_per_part != 0;
      const T* x = input(begin, end);
      const T* dy = grad(begin, end);
      const T* da = gated ? da_gated.get() : dy;
      if (gated) {
        mix_gradient(
            rows,
            O,
            gates,
            dy,
            row_of<T>(saved.a, begin, O),
            row_of<T>(saved.m, begin, O),
            row_of<T>(saved.g, begin, gates),
            da_gated.get(),
            dl.get(),
            dz.get());
      } else if (log_space) {
        exp_gradient(rows * O, dy, static_cast<const S*>(backward.output) + begin * O, dl.get());
      }
      if (want.input) {
        const auto times = [&](const T* left, int64_t K, const T* right, T* to, bool accumulate) {
          gemm(rows, I, K, {left, K, 1}, {right, I, right + K * I}, to, I, accumulate);
        };
        T* through_sum = direct ? row_of<T>(grads.input, begin, I) : dx.get();
        if (linear) {
          times(da, O, W.get(), through_sum, false);
        }
        if (gated) {
          times(dz.get(), gates, G, through_sum, true);
        }
        if (log_space) {
          times(dl.get(), O, W_log, dx_log.get(), false);
        }
        if (!direct) {
          S* to = row_of<S>(grads.input, begin, I);
          input_gradient(rows * I, dx.get(), dx_log.get(), x, eps, to);
        }
      }
      // left^T right, summed over the chunk's rows
      const auto over_rows = [&](const T* left, int64_t M, const T* right, T* to, bool accumulate) {
        gemm<T, true>(M, I, rows, {left, 1, M}, {right, I, right + rows * I}, to, I, accumulate);
      };
      if (want.W_linear) {
        over_rows(da, O, x, sum, add);
      }
      if (want.W_log) {
        log_abs(rows * I, x, eps, L.get());
        over_rows(dl.get(), O, L.get(), untied ? sum + at_W_mul : sum, add || (linear && !untied));
      }
      if (want.G) {
        over_rows(dz.get(), gates, x, sum + at_G, add);
      }
      if (want.bias) {
        column_sums(rows, gates, dz.get(), gates, sum + at_bias, add);
      }
    }
  });

  if (want.W) {
    transform_gradient<T, S>(
        layer.W_hat, layer.M_hat, weight, sums.get(), parts, stride, grads.W_hat, grads.M_hat);
  }
  if (want.W_mul) {
    transform_gradient<T, S>(
        layer.W_hat_mul,
        layer.M_hat_mul,
        weight,
        sums.get() + at_W_mul,
        parts,
        stride,
        grads.W_hat_mul,
        grads.M_hat_mul);
  }
  if (want.G) {
    sum_parts<T, S>(gates * I, sums.get() + at_G, parts, stride, grads.G);
  }
  if (want.bias) {
    T* sum = sums.get() + at_bias;
    column_sums(parts, gates, sum, stride, sum, false);
    convert<T>(gates, sum, static_cast<S*>(grads.gate_bias));
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
