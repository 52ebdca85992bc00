// What ../train/ asks of a device, on a GPU: the threads of a block work on one training, each on its
// own numbers. csrc/cpu/train/team.h has the same for a CPU's vectors.
//
// Every loop and sum here is called by all threads of a block and ends with a barrier. Sums are taken
// in an order that depends on sizes alone.
#pragma once

#include "scalar.cuh"

#include "../training.h"

#ifdef __CUDACC__
#define NALU_UNROLL _Pragma("unroll")
#define NALU_PRAGMA(text) _Pragma(#text)
#define NALU_UNROLL_BY(count) NALU_PRAGMA(unroll count)
#else
#define NALU_UNROLL
#define NALU_UNROLL_BY(count)
#endif

namespace nalu {
namespace device {

// As many threads as a launch says: 32, or kMostTeam.
constexpr int kMostTeam = 128;

NALU_INLINE int team() {
  return static_cast<int>(blockDim.x);
}

NALU_INLINE bool is_leader() {
  return threadIdx.x == 0;
}
NALU_INLINE void wait_for_all() {
  __syncthreads();
}

#ifdef __CUDACC__
NALU_INLINE uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
#endif

// Seconds, from whenever; the same for all.
NALU_INLINE double now() {
  __shared__ double time;
  __syncthreads(); // they have read the last one
  if (is_leader()) {
    time = 1e-9 * static_cast<double>(nanoseconds());
  }
  __syncthreads();
  return time;
}

template <class T>
NALU_INLINE T sum_of_all(T part) {
  __shared__ T parts[kMostTeam];
  const int own = static_cast<int>(threadIdx.x);
  __syncthreads(); // they have read the last one
  parts[own] = part;
  tree_sum(parts, 1, own, team());
  return parts[0];
}

// A vector of one number.
template <class T>
using Vec = T;
struct One {};
template <class T>
NALU_INLINE T load(const T* from, One) {
  return *from;
}
template <class T>
NALU_INLINE void store(T* to, T value, One) {
  *to = value;
}
template <class T>
NALU_INLINE T square_root(T value) {
  return std::sqrt(value);
}
template <class T>
NALU_INLINE T apart(T value) { // nothing here is contracted
  return value;
}

// f(i) for each i < n, so many at a time where a thread has as many. Few have more than one, and to
// unroll takes registers.
template <int at_a_time = 1, class F>
NALU_INLINE void for_each(int64_t n, const F& f) {
  NALU_UNROLL_BY(at_a_time)
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(n); i += team()) {
    f(i);
  }
  __syncthreads();
}

template <class T, class F>
NALU_INLINE void for_each_vector(int64_t n, const F& f) {
  for_each(n, [&](int64_t i) { f(i, One{}); });
}

// The same over a matrix, of weights or of values.
template <class T, class F>
NALU_INLINE void for_each_vector_of_matrix(int64_t n, const F& f) {
  for_each_vector<T>(n, f);
}

// for_each_vector where each thread has many, and each of them takes long.
template <class T, class F>
NALU_INLINE void for_each_of_many_vectors(int64_t n, const F& f) {
  for_each<4>(n, [&](int64_t i) { f(i, One{}); });
}

// f(row, k, lanes) over rows of n numbers.
template <class T, class F>
NALU_INLINE void for_each_vector_of_rows(int64_t rows, int64_t n, const F& f) {
  const int size = static_cast<int>(n);
  for_each(rows * n, [&](int64_t i) {
    const int row = static_cast<int>(i) / size;
    f(row, static_cast<int>(i) - row * size, One{});
  });
}

// f(at, number, lanes) over rows of n numbers, beside which stands one of each row.
template <class T, class F>
NALU_INLINE void for_each_vector_beside(int64_t rows, int64_t n, const T* numbers, const F& f) {
  for_each_vector_of_rows<T>(rows, n, [&](int64_t row, int64_t k, One lanes) {
    f(row * n + k, numbers[row], lanes);
  });
}

template <class T>
NALU_INLINE void copy(const T* from, int64_t count, T* to) {
  for_each(count, [&](int64_t i) { to[i] = from[i]; });
}
template <class T>
NALU_INLINE void clear(T* values, int64_t count) {
  for_each(count, [&](int64_t i) { values[i] = 0; });
}

// (columns, rows) from (rows, columns).
template <class T>
NALU_INLINE void transpose_rows(const T* from, int64_t rows, int64_t columns, T* to) {
  const int width = static_cast<int>(columns);
  for_each(rows * columns, [&](int64_t i) {
    const int row = static_cast<int>(i) / width, column = static_cast<int>(i) - row * width;
    to[column * rows + row] = from[i];
  });
}

template <class T>
NALU_INLINE T sum_of_squares(const T* values, int64_t count) {
  T sum = 0;
  for_each(count, [&](int64_t i) { sum += values[i] * values[i]; });
  return sum_of_all(sum);
}

// Sums of a thread's own: so many of neighbouring rows of a matrix share what they are multiplied by.
constexpr int kTile = 4;

NALU_INLINE int tiles_of(int rows) {
  return (rows + kTile - 1) / kTile;
}

// C (M, n) = or, with `add`, += A B (K, n), of an A whose element (m, k) stands at m row_step +
// k column_step.
template <class T>
NALU_INLINE void product(
    int64_t M_,
    int64_t K_,
    int64_t n_,
    const T* A,
    int64_t row_step_,
    int64_t column_step_,
    const T* B,
    T* C,
    bool add) {
  const int M = static_cast<int>(M_), K = static_cast<int>(K_), n = static_cast<int>(n_);
  const int row_step = static_cast<int>(row_step_), column_step = static_cast<int>(column_step_);
  for_each(tiles_of(M) * n, [&](int64_t item) {
    const int tile = static_cast<int>(item) / n, r = static_cast<int>(item) - tile * n;
    const int first = tile * kTile, height = M - first < kTile ? M - first : kTile;
    const T* a = A + first * row_step;
    T sums[kTile] = {};
    for (int k = 0; k < K; ++k) {
      const T b = B[k * n + r];
      NALU_UNROLL
      for (int j = 0; j < kTile; ++j) {
        if (j < height) {
          sums[j] = fused(a[j * row_step + k * column_step], b, sums[j]);
        }
      }
    }
    NALU_UNROLL
    for (int j = 0; j < kTile; ++j) {
      if (j < height) {
        T* to = C + (first + j) * n + r;
        *to = add ? *to + sums[j] : sums[j];
      }
    }
  });
}

// Y (O, n) = or, with `add`, += A (O, I) X (I, n).
template <class T>
NALU_INLINE void apply(int64_t O, int64_t I, int64_t n, const T* A, const T* X, T* Y, bool add) {
  product(O, I, n, A, I, 1, X, Y, add);
}

// X (I, n) = or, with `add`, += A^T Y, for A (O, I).
template <class T>
NALU_INLINE void apply_transposed(
    int64_t O, int64_t I, int64_t n, const T* A, const T* Y, T* X, bool add) {
  product(I, O, n, A, 1, I, Y, X, add);
}

// sums[j] += the sum over [begin, end) of A[j, i] b[i], for `height` rows of N numbers.
template <class T>
NALU_INLINE void add_dots(
    int begin, int end, int N, int height, const T* A, const T* b, T (&sums)[kTile]) {
  for (int i = begin; i < end; ++i) {
    const T right = b[i];
    NALU_UNROLL
    for (int j = 0; j < kTile; ++j) {
      if (j < height) {
        sums[j] = fused(A[j * N + i], right, sums[j]);
      }
    }
  }
}

// Parts of sums, of which a thread has up to kTile at a time.
constexpr int kMostParts = 16; // of a sum: about the square root of a block's rows
template <class T>
NALU_INLINE T* partial_sums() {
  __shared__ T partial[kMostTeam * kTile];
  return partial;
}
// Of each of so few sums that there are threads for several.
NALU_INLINE int parts_of(int sums) {
  const int most = sums > 0 ? team() / sums : 0;
  return most < kMostParts ? most : kMostParts;
}

// C[m, k] += sum over n of A[m, n] B[k, n], for dense rows of n numbers.
template <class T>
NALU_INLINE void dots(int64_t M_, int64_t K_, int64_t N_, const T* A, const T* B, T* C) {
  const int M = static_cast<int>(M_), K = static_cast<int>(K_), N = static_cast<int>(N_);
  const int items = tiles_of(M) * K;
  const auto height = [=](int item) {
    const int left = M - item / K * kTile;
    return left < kTile ? left : kTile;
  };
  if (2 * items > team()) {
    for_each(items, [&](int64_t i) {
      const int item = static_cast<int>(i), k = item % K, first = item / K * kTile;
      T sums[kTile] = {};
      // Neighbours begin one number further on, which takes each bank of shared memory once.
      const int begin = k % N;
      add_dots(begin, N, N, height(item), A + first * N, B + k * N, sums);
      add_dots(0, begin, N, height(item), A + first * N, B + k * N, sums);
      NALU_UNROLL
      for (int j = 0; j < kTile; ++j) {
        if (j < height(item)) {
          C[(first + j) * K + k] += sums[j];
        }
      }
    });
    return;
  }
  const int parts = parts_of(items);
  T* const partial = partial_sums<T>();
  for_each(parts * items, [&](int64_t i) {
    const int part = static_cast<int>(i) / items, item = static_cast<int>(i) - part * items;
    const int k = item % K, first = item / K * kTile;
    T sums[kTile] = {};
    const int begin = part * N / parts, end = (part + 1) * N / parts;
    add_dots(begin, end, N, height(item), A + first * N, B + k * N, sums);
    NALU_UNROLL
    for (int j = 0; j < kTile; ++j) {
      partial[(part * items + item) * kTile + j] = sums[j];
    }
  });
  for_each(items * kTile, [&](int64_t i) {
    const int item = static_cast<int>(i) / kTile, j = static_cast<int>(i) % kTile;
    if (j < height(item)) {
      T sum = 0;
      for (int part = 0; part < parts; ++part) {
        sum += partial[(part * items + item) * kTile + j];
      }
      C[(item / K * kTile + j) * K + item % K] += sum;
    }
  });
}

// add(item, the sum of term(item, r) over 0 <= r < n), for each item.
template <class T, class Term, class Add>
NALU_INLINE void sum_rows(int items, int n, const Term& term, const Add& add) {
  const int parts = 2 * items > team() ? 1 : parts_of(items);
  T* const partial = partial_sums<T>();
  for_each(items * parts, [&](int64_t i) {
    const int item = static_cast<int>(i) / parts, part = static_cast<int>(i) - item * parts;
    T sum = 0;
    int r = parts == 1 ? item % n : part; // as in `dots`
    NALU_UNROLL_BY(1)
    for (int k = part; k < n; k += parts) {
      sum += term(item, r);
      r += parts;
      r = r < n ? r : r - n;
    }
    if (parts == 1) {
      add(item, sum);
    } else {
      partial[i] = sum;
    }
  });
  if (parts > 1) {
    for_each(items, [&](int64_t i) {
      const int item = static_cast<int>(i);
      T sum = 0;
      for (int part = 0; part < parts; ++part) {
        sum += partial[item * parts + part];
      }
      add(item, sum);
    });
  }
}

template <class T>
NALU_INLINE void add_row_sums(int64_t rows, int64_t n, const T* values, T* sums) {
  const int width = static_cast<int>(n);
  sum_rows<T>(
      static_cast<int>(rows),
      width,
      [&](int row, int i) { return values[row * width + i]; },
      [&](int row, T sum) { sums[row] += sum; });
}

// y (O, n), a product of factors (../factors.h) over I inputs.
template <class T, class Factor>
NALU_INLINE void reduce(int64_t O, int64_t I, int64_t n, const Factor& factor, T* y) {
  const int inputs = static_cast<int>(I), rows = static_cast<int>(n);
  for_each(O * n, [&](int64_t item) {
    const int o = static_cast<int>(item) / rows, r = static_cast<int>(item) - o * rows;
    T product = 1;
    for (int i = 0; i < inputs; ++i) {
      const auto input = factor.load_input(i * rows + r, One{});
      product *= factor.value(factor.of(o * inputs + i), input);
    }
    y[item] = product;
  });
}

// Numbers that reduce_gradient needs beside: of as many outputs at a time as there are threads for.
template <class T>
NALU_BOTH int64_t reduction_scratch(int64_t I, int64_t n) {
  return I * (n > kMostTeam ? n : kMostTeam);
}

// From dy (O, n): adds to grad_W (O, I), and writes grad_x (I, n), or with `add` adds to it; either may
// be null. Nothing is divided by a factor: the product of the others is that of those before it, kept,
// and of those after it.
template <class T, class Factor>
NALU_INLINE void reduce_gradient(
    int64_t O,
    int64_t I,
    int64_t n,
    const Factor& factor,
    const T* dy,
    T* grad_W,
    T* grad_x,
    bool add,
    T* scratch) {
  const int outputs = static_cast<int>(O), inputs = static_cast<int>(I), rows = static_cast<int>(n);
  if (O == 0 && grad_x != nullptr && !add) {
    clear(grad_x, I * n);
  }
  const int at_a_time = rows < kMostTeam ? kMostTeam / rows : 1;
  for (int first = 0; first < outputs; first += at_a_time) {
    const int height = outputs - first < at_a_time ? outputs - first : at_a_time;
    // The gradients of the factors (height, I, n).
    for_each(height * rows, [&](int64_t item) {
      const int o = static_cast<int>(item) / rows, r = static_cast<int>(item) - o * rows;
      const int terms = (first + o) * inputs;
      T* const grads = scratch + o * inputs * rows + r;
      T product = 1;
      for (int i = 0; i < inputs; ++i) {
        grads[i * rows] = product;
        product *= factor.value(factor.of(terms + i), factor.load_input(i * rows + r, One{}));
      }
      T behind = dy[(first + o) * rows + r]; // times the product of the factors behind
      for (int i = inputs - 1; i >= 0; --i) {
        grads[i * rows] *= behind;
        behind *= factor.value(factor.of(terms + i), factor.load_input(i * rows + r, One{}));
      }
    });
    if constexpr (Factor::has_slope_of_input) {
      if (grad_x != nullptr) {
        for_each(inputs * rows, [&](int64_t item) {
          const int at = static_cast<int>(item), i = at / rows;
          const auto input = factor.load_input(at, One{});
          T sum = add || first > 0 ? grad_x[at] : T(0);
          NALU_UNROLL_BY(1)
          for (int o = 0; o < height; ++o) {
            const auto terms = factor.of((first + o) * inputs + i);
            sum += factor.slope_of_input(terms, input, scratch[o * inputs * rows + at]);
          }
          grad_x[at] = sum;
        });
      }
    }
    if (grad_W != nullptr) {
      sum_rows<T>(
          height * inputs,
          rows,
          [&](int item, int r) {
            const auto input = factor.load_input(item % inputs * rows + r, One{});
            const auto terms = factor.of(first * inputs + item);
            return factor.slope_of_weight(terms, input, scratch[item * rows + r]);
          },
          [&](int item, T sum) {
            const int j = first * inputs + item;
            grad_W[j] += factor.gradient_of_weight(j, sum, One{});
          });
    }
  }
}

NALU_INLINE void multiply_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
  const uint64_t product = static_cast<uint64_t>(a) * b;
  high = static_cast<uint32_t>(product >> 32);
  low = static_cast<uint32_t>(product);
}

// Hands out pieces of a block's memory: shared as long as it lasts, then global. Without any it only
// counts.
template <class T>
class Arena {
 public:
  // Pieces are multiples of `unit` numbers.
  NALU_BOTH Arena(T* shared, int64_t shared_size, T* global, int64_t unit = 4)
      : shared_(shared), global_(global), unit_(unit), shared_left_(shared_size) {}
  NALU_BOTH T* take(int64_t count) {
    count = (count + unit_ - 1) / unit_ * unit_;
    if (count <= shared_left_) {
      shared_left_ -= count;
      shared_used_ += count;
      return shared_ == nullptr ? nullptr : shared_ + shared_used_ - count;
    }
    global_used_ += count;
    return global_ == nullptr ? nullptr : global_ + global_used_ - count;
  }
  NALU_BOTH int64_t shared_used() const {
    return shared_used_;
  }
  NALU_BOTH int64_t global_used() const {
    return global_used_;
  }

 private:
  T *shared_, *global_;
  int64_t unit_, shared_left_, shared_used_ = 0, global_used_ = 0;
};

} // namespace device
} // namespace nalu

#include "../factors.h"
#include "../stream.h"
#include "../train/inputs.h"

namespace nalu {
namespace device {

// The rows [begin, end) of a step's batch, as (columns, end - begin).
template <class T>
NALU_INLINE void draw_batch(
    const Inputs<T>& inputs,
    int64_t seed,
    int64_t stream,
    int64_t step,
    int64_t begin,
    int64_t end,
    int64_t columns,
    T* x) {
  const int n = static_cast<int>(end - begin), width = static_cast<int>(columns);
  const auto fill = [&](const auto& value) {
    for_each(n, [&](int64_t r) {
      const uint32_t row[] = {static_cast<uint32_t>(begin + r)};
      RowGenerator<uint32_t> generator(seed, stream, step, row);
      T* to = x + r;
      for (int column = 0; column < width; ++column, to += n) {
        uint32_t bits[1];
        generator.next(bits);
        *to = value(bits[0]);
      }
    });
  };
  if (inputs.plain) {
    const T low = inputs.low[0], part = inputs.width[0] * T(0x1p-24); // a power of two
    fill([=](uint32_t bits) { return low + part * static_cast<T>(bits); });
  } else {
    fill([&](uint32_t bits) { return inputs.value(bits); });
  }
}

} // namespace device
} // namespace nalu

#include "../train/update.h"

#include "../train/train.h"
