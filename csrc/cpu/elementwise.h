// Everything in a layer that is not a matrix product: passes over rows or flat arrays, each read
// and written once.
#pragma once

#include <cstdlib>
#include <new>

#include "runtime.h"
#include "simd.h"

#include "../formulas.h"
#include "../layer.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Uninitialised scratch, aligned to a cache line. Large ones are aligned to huge pages and ask for
// them: the system hands out one instead of 512, which took longer than what is computed with them.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n) {
    if (n == 0) {
      return;
    }
    constexpr size_t line = 64, page = size_t{1} << 21;
    const size_t size = static_cast<size_t>(n) * sizeof(T), alignment = size < 2 * page ? line : page;
    memory_ = std::malloc(size + alignment);
    if (memory_ == nullptr) {
      throw std::bad_alloc();
    }
    const auto address = (reinterpret_cast<uintptr_t>(memory_) + alignment - 1) / alignment * alignment;
    data_ = reinterpret_cast<T*>(address);
#ifdef __linux__
    if (alignment == page) {
      madvise(data_, size / page * page, MADV_HUGEPAGE); // if it may not, pages are as they were
    }
#endif
  }
  ~Buffer() {
    std::free(memory_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const {
    return data_;
  }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
};

// f(begin, end) over [0, n) on several threads, in pieces of at least `grain`.
template <class F>
inline void parallel(int64_t n, int64_t grain, const F& f) {
  if (n <= grain) {
    if (n > 0) {
      f(int64_t{0}, n);
    }
    return;
  }
  const auto body = [](int64_t begin, int64_t end, void* context) {
    (*static_cast<const F*>(context))(begin, end);
  };
  parallel_for(n, grain, body, const_cast<F*>(&f));
}

template <class T>
constexpr Dtype kDtype = std::is_same_v<T, double> ? Dtype::float64 : Dtype::float32;

// Elements of a pass that computes exp, log or tanh that are worth a thread.
constexpr int64_t kGrain = 8192;

// The transpose of a (rows, cols) matrix whose elements, in their order, are weight(i): its rows from
// `begin` to `end`. Few of them are written at a time: at a distance of a power of two, many would share
// a set of the cache.
template <class T, class F>
inline void fill_transposed(
    int64_t rows, int64_t cols, int64_t begin, int64_t end, const F& weight, T* to) {
  constexpr int64_t L = kLanes<T>;
  for_each_vector<T>(end - begin, [=](int64_t first, auto width) {
    const int64_t col = begin + first;
    for_each_vector<T>(rows, [=](int64_t row, auto height) {
      Vec<T> block[L];
      NALU_UNROLL
      for (int64_t r = 0; r < L; ++r) {
        block[r] = r < height ? weight((row + r) * cols + col, width) : Vec<T>{};
      }
      transpose<T>(block);
      NALU_UNROLL
      for (int64_t c = 0; c < L; ++c) {
        if (c < width) {
          store<T>(to + (col + c) * rows + row, block[c], height);
        }
      }
    });
  });
}

template <class T, class F>
inline void fill_transposed(int64_t rows, int64_t cols, const F& weight, T* to) {
  fill_transposed(rows, cols, 0, cols, weight, to);
}

#if NALU_VECTOR_BYTES
// The transpose of a matrix of two columns, or of two rows: two vectors are taken apart, or brought
// together.
template <class T>
inline void transpose_pairs(const T* from, int64_t pairs, bool apart, T* to) {
  constexpr int64_t L = kLanes<T>;
  constexpr auto lanes = std::make_integer_sequence<int, L>{};
  int64_t i = 0;
  for (; i + L <= pairs; i += L) {
    if (apart) {
      const auto a = load<T>(from + 2 * i, Full<T>{}), b = load<T>(from + 2 * i + L, Full<T>{});
      store<T>(to + i, separate<Vec<T>, false>(a, b, lanes), Full<T>{});
      store<T>(to + pairs + i, separate<Vec<T>, true>(a, b, lanes), Full<T>{});
    } else {
      const auto a = load<T>(from + i, Full<T>{}), b = load<T>(from + pairs + i, Full<T>{});
      store<T>(to + 2 * i, interleave<Vec<T>, false>(a, b, lanes), Full<T>{});
      store<T>(to + 2 * i + L, interleave<Vec<T>, true>(a, b, lanes), Full<T>{});
    }
  }
  for (; i < pairs; ++i) {
    for (int64_t k = 0; k < 2; ++k) {
      const int64_t side = 2 * i + k, above = k * pairs + i;
      to[apart ? above : side] = from[apart ? side : above];
    }
  }
}
#endif

// The rows [begin, end) of S as a dense matrix of T.
template <class T, class S>
inline void pack(const Rows& from, int64_t cols, int64_t begin, int64_t end, T* to) {
  const S* data = static_cast<const S*>(from.data);
  if (from.col_stride == 1 && from.row_stride == cols) {
    const S* source = data + begin * cols;
    for_each_vector<T>((end - begin) * cols, [=](int64_t i, auto count) {
      store<T>(to + i, load<T>(source + i, count), count);
    });
    return;
  }
  if (from.col_stride == 1) {
    for (int64_t r = begin; r < end; ++r, to += cols) {
      const S* row = data + r * from.row_stride;
      for_each_vector<T>(cols, [=](int64_t c, auto count) {
        store<T>(to + c, load<T>(row + c, count), count);
      });
    }
  } else if (from.row_stride == 1) { // a transposed matrix
    const S* source = data + begin;
    const auto column = [=](int64_t i, auto count) {
      const int64_t rows = end - begin;
      return load<T>(source + i / rows * from.col_stride + i % rows, count);
    };
    fill_transposed<T>(cols, end - begin, column, to);
  } else {
    for (int64_t r = begin; r < end; ++r, to += cols) {
      const S* row = data + r * from.row_stride;
      for (int64_t c = 0; c < cols; ++c) {
        to[c] = widen(row[c * from.col_stride]);
      }
    }
  }
}

// Elements of W = tanh(W_hat) sigmoid(M_hat), computed as they are read.
template <class T, class S>
struct TransformedWeight {
  const S *W_hat, *M_hat;

  TransformedWeight(const void* w, const void* m)
      : W_hat(static_cast<const S*>(w)), M_hat(static_cast<const S*>(m)) {}

  template <class Count>
  Vec<T> operator()(int64_t i, Count count) const {
    return Weight(load<T>(W_hat + i, count), load<T>(M_hat + i, count)).value();
  }
};

// Elements of a parameter as they are.
template <class T, class S>
struct PlainWeight {
  const S* data;

  explicit PlainWeight(const void* from) : data(static_cast<const S*>(from)) {}

  template <class Count>
  Vec<T> operator()(int64_t i, Count count) const {
    return load<T>(data + i, count);
  }
};

// Elements of an NAU's parameter, within [-1, 1].
template <class T, class S>
struct ClampedWeight {
  const S* data;

  explicit ClampedWeight(const void* from) : data(static_cast<const S*>(from)) {}

  template <class Count>
  Vec<T> operator()(int64_t i, Count count) const {
    return clamped(load<T>(data + i, count));
  }
};

// f(the elements of W), which M_hat, where it is null, says are those of W_hat: as they are, or
// within [-1, 1].
template <class T, class S, class F>
inline void with_weight(const Layer& layer, const void* W_hat, const void* M_hat, const F& f) {
  if (M_hat != nullptr) {
    f(TransformedWeight<T, S>(W_hat, M_hat));
  } else if (layer.clamped) {
    f(ClampedWeight<T, S>(W_hat));
  } else {
    f(PlainWeight<T, S>(W_hat));
  }
}

// f(outputs, first output) from `begin` to `end`, for tiles of `most` outputs, and then of one.
template <int most, class F>
NALU_INLINE void for_each_output_tile(int64_t begin, int64_t end, const F& f) {
  int64_t o = begin;
  for (; o + most <= end; o += most) {
    f(std::integral_constant<int, most>{}, o);
  }
  for (; o < end; ++o) {
    f(std::integral_constant<int, 1>{}, o);
  }
}

template <class T>
inline void clear(T* values, int64_t count) {
  if (count > 0) { // else the pointer may be null, which memset must not be given
    std::memset(values, 0, static_cast<size_t>(count) * sizeof(T));
  }
}

// to[i] = weight(i)
template <class T, class F>
inline void fill(int64_t begin, int64_t end, const F& weight, T* to) {
  for_each_vector<T>(end - begin, [=](int64_t i, auto count) {
    store<T>(to + begin + i, weight(begin + i, count), count);
  });
}

// The gradients of W_hat and M_hat from W's, which is the sum of `parts` arrays `stride` apart; of W_hat
// alone, where M_hat is null, through its clamp.
template <class T, class S>
inline void transform_gradient(
    const void* W_hat,
    const void* M_hat,
    int64_t n,
    const T* grad,
    int64_t parts,
    int64_t stride,
    void* grad_W_hat,
    void* grad_M_hat) {
  const S* w = static_cast<const S*>(W_hat);
  const S* m = static_cast<const S*>(M_hat);
  parallel(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_vector<T>(end - begin, [=](int64_t i, auto count) {
      i += begin;
      Vec<T> sum = load<T>(grad + i, count);
      for (int64_t p = 1; p < parts; ++p) {
        sum += load<T>(grad + p * stride + i, count);
      }
      if (m == nullptr) {
        const Vec<T> passed = grad_clamped(sum, load<T>(w + i, count));
        store<T>(static_cast<S*>(grad_W_hat) + i, passed, count);
        return;
      }
      const Weight weight(load<T>(w + i, count), load<T>(m + i, count));
      if (grad_W_hat != nullptr) {
        store<T>(static_cast<S*>(grad_W_hat) + i, weight.grad_W_hat(sum), count);
      }
      if (grad_M_hat != nullptr) {
        store<T>(static_cast<S*>(grad_M_hat) + i, weight.grad_M_hat(sum), count);
      }
    });
  });
}

// The sum of `parts` arrays, rounded to S.
template <class T, class S>
inline void sum_parts(int64_t n, const T* from, int64_t parts, int64_t stride, void* to) {
  for_each_vector<T>(n, [=](int64_t i, auto count) {
    Vec<T> sum = load<T>(from + i, count);
    for (int64_t p = 1; p < parts; ++p) {
      sum += load<T>(from + p * stride + i, count);
    }
    store<T>(static_cast<S*>(to) + i, sum, count);
  });
}

// L = log(|x| + eps)
template <class T>
inline void log_abs(int64_t n, const T* x, T eps, T* L) {
  with_normal(eps, [=](auto normal) {
    for_each_vector<T>(n, [=](int64_t i, auto count) {
      const Vec<T> of = load<T>(x + i, count);
      store<T>(L + i, log_abs<decltype(normal)::value>(of, splat<Vec<T>>(eps)), count);
    });
  });
}

template <class T, class S>
inline void fill_rows(int64_t rows, int64_t cols, const void* bias, T* to) {
  for (int64_t r = 0; r < rows; ++r, to += cols) {
    for (int64_t c = 0; c < cols; ++c) {
      to[c] = widen(static_cast<const S*>(bias)[c]);
    }
  }
}

// One storage type to another, through the compute type T.
template <class T, class From, class To>
inline void convert(int64_t n, const From* from, To* to) {
  for_each_vector<T>(
      n, [=](int64_t i, auto count) { store<T>(to + i, load<T>(from + i, count), count); });
}

// Contiguous parameters as T: in place, or converted into `copy`.
template <class T, class S>
inline const T* as_compute(const void* from, int64_t n, const Buffer<T>& copy) {
  if constexpr (std::is_same_v<S, T>) {
    return static_cast<const T*>(from);
  }
  convert<T>(n, static_cast<const S*>(from), copy.get());
  return copy.get();
}

// y = exp(l)
template <class T, class S>
inline void exp_rows(int64_t n, const T* l, S* y) {
  for_each_vector<T>(
      n, [=](int64_t i, auto count) { store<T>(y + i, exp(load<T>(l + i, count)), count); });
}

// f(offset, count, gate) over rows x cols, where gate(values) loads the gate of those elements:
// one for each, or one for each row.
template <class T, class F>
inline void for_each_gated(int64_t rows, int64_t cols, int64_t gates, const F& f) {
  if (gates == cols) {
    for_each_vector<T>(rows * cols, [&](int64_t i, auto count) {
      f(i, count, [&](const T* g) { return load<T>(g + i, count); });
    });
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    for_each_vector<T>(cols, [=](int64_t i, auto count) {
      f(r * cols + i, count, [&](const T* g) { return splat<Vec<T>>(g[r]); });
    });
  }
}

// y = g a + (1 - g) m, turning l into m = exp(l) and z into g = sigmoid(z) where they lie.
template <class T, class S>
inline void mix_rows(
    int64_t rows, int64_t cols, int64_t gates, const T* a, T* l_to_m, T* z_to_g, S* y) {
  for_each_vector<T>(rows * gates, [=](int64_t i, auto count) {
    store<T>(z_to_g + i, sigmoid(load<T>(z_to_g + i, count)), count);
  });
  for_each_gated<T>(rows, cols, gates, [&](int64_t i, auto count, auto gate) {
    const Vec<T> m = exp(load<T>(l_to_m + i, count));
    store<T>(l_to_m + i, m, count);
    store<T>(y + i, mix(load<T>(a + i, count), m, gate(z_to_g)), count);
  });
}

// The gradients of a, l and z from the output's, dy; da may be dy's own memory.
template <class T>
inline void mix_gradient(
    int64_t rows,
    int64_t cols,
    int64_t gates,
    const T* dy,
    const T* a,
    const T* m,
    const T* g,
    T* da,
    T* dl,
    T* dz) {
  if (gates == cols) {
    for_each_vector<T>(rows * cols, [=](int64_t i, auto count) {
      const Vec<T> gate = load<T>(g + i, count);
      const MixGradient grad(
          load<T>(dy + i, count), load<T>(a + i, count), load<T>(m + i, count), gate);
      store<T>(da + i, grad.a, count);
      store<T>(dl + i, grad.l, count);
      store<T>(dz + i, grad_sigmoid(grad.g, gate), count);
    });
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> sums{};
    for_each_vector<T>(cols, [&](int64_t c, auto count) {
      const int64_t i = r * cols + c;
      const MixGradient grad(
          load<T>(dy + i, count),
          load<T>(a + i, count),
          load<T>(m + i, count),
          splat<Vec<T>>(g[r]));
      store<T>(da + i, grad.a, count);
      store<T>(dl + i, grad.l, count);
      sums += first_lanes<T>(grad.g, count);
    });
    const Vec<T> total = splat<Vec<T>>(sum_lanes<T>(sums));
    store<T>(dz + r, grad_sigmoid(total, splat<Vec<T>>(g[r])), Partial{1});
  }
}

// dl = dy m
template <class T, class S>
inline void exp_gradient(int64_t n, const T* dy, const S* m, T* dl) {
  for_each_vector<T>(n, [=](int64_t i, auto count) {
    store<T>(dl + i, load<T>(dy + i, count) * load<T>(m + i, count), count);
  });
}

// dx = linear + log_space sign(x) / (|x| + eps); either may be null.
template <class T, class S>
inline void input_gradient(
    int64_t n, const T* linear, const T* log_space, const T* x, T eps, S* dx) {
  for_each_vector<T>(n, [=](int64_t i, auto count) {
    Vec<T> sum{};
    if (log_space != nullptr) {
      const Vec<T> grad = load<T>(log_space + i, count);
      sum = grad_log_abs(grad, load<T>(x + i, count), splat<Vec<T>>(eps));
    }
    if (linear != nullptr) {
      sum += load<T>(linear + i, count);
    }
    store<T>(dx + i, sum, count);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
