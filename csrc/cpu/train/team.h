// What ../../train/ asks of a device, on a CPU: a training is one thread's, and its loops go over
// vectors. csrc/cuda/team.cuh has the same for the threads of a block.
#pragma once

#include "../elementwise.h"
#include "../gemm.h"
#include "../helped.h"
#include "../rows/reduction.h"

#include "random.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Of all who work on a training, the one that writes its single numbers.
inline bool is_leader() {
  return true;
}
inline void wait_for_all() {}

// Of what each of them has.
template <class T>
inline T sum_of_all(T part) {
  return part;
}

// f(i) for each i < n.
template <class F>
NALU_INLINE void for_each(int64_t n, const F& f) {
  for (int64_t i = 0; i < n; ++i) {
    f(i);
  }
}

// for_each_vector where there are many.
template <class T, class F>
NALU_INLINE void for_each_of_many_vectors(int64_t n, const F& f) {
  for_each_vector<T>(n, f);
}

// for_each_vector over a matrix, of weights or of values; where there is help, all threads'.
template <class T, class F>
NALU_INLINE void for_each_vector_of_matrix(int64_t n, const F& f) {
  if (is_helped()) {
    parallel(n, kGrain, [&](int64_t begin, int64_t end) {
      for_each_vector<T>(end - begin, [&](int64_t k, auto lanes) { f(begin + k, lanes); });
    });
  } else {
    for_each_vector<T>(n, f);
  }
}

// f(begin, end) over rows of n numbers: the same.
template <class F>
NALU_INLINE void for_rows(int64_t rows, int64_t n, const F& f) {
  if (is_helped()) {
    parallel(rows, 1 + kGrain / (n + 1), f);
  } else {
    f(int64_t{0}, rows);
  }
}

// f(row, k, lanes) over rows of n numbers, a vector of a row at a time.
template <class T, class F>
NALU_INLINE void for_each_vector_of_rows(int64_t rows, int64_t n, const F& f) {
  for_rows(rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for_each_vector<T>(n, [&](int64_t k, auto lanes) { f(row, k, lanes); });
    }
  });
}

// f(at, number, lanes) over rows of n numbers, beside which stands one of each row. Of one number each,
// the rows lie along the vectors.
template <class T, class F>
NALU_INLINE void for_each_vector_beside(int64_t rows, int64_t n, const T* numbers, const F& f) {
  if (n == 1) {
    for_each_vector<T>(rows, [&](int64_t k, auto lanes) { f(k, load<T>(numbers + k, lanes), lanes); });
    return;
  }
  for_each_vector_of_rows<T>(rows, n, [&](int64_t row, int64_t k, auto lanes) {
    f(row * n + k, splat<Vec<T>>(numbers[row]), lanes);
  });
}

template <class T>
inline void add_to(int64_t count, const T* more, T* sum) {
  for_each_vector<T>(count, [=](int64_t k, auto lanes) {
    store<T>(sum + k, load<T>(sum + k, lanes) + load<T>(more + k, lanes), lanes);
  });
}

template <class T>
inline void copy(const T* from, int64_t count, T* to) {
  if (count > 0) { // else the pointers may be null, which memcpy must not be given
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  }
}

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
  // A vector's worth of them together.
  constexpr int count = rows * cols;
  constexpr int64_t L = kLanes<T>;
  NALU_UNROLL
  for (int first = 0; first < count; first += L) {
    Vec<T> group[L] = {};
    const int here = count - first < L ? count - first : static_cast<int>(L);
    NALU_UNROLL
    for (int k = 0; k < here; ++k) {
      group[k] = sums[(first + k) / cols][(first + k) % cols];
    }
    T of[L];
    store<T>(of, sums_of_lanes<T>(group), Full<T>{});
    NALU_UNROLL
    for (int k = 0; k < here; ++k) {
      C[(first + k) / cols * ldc + (first + k) % cols] += of[k];
    }
  }
}

template <class T, int rows>
inline void dots_rows(int64_t K, int64_t N, const T* A, const T* B, T* C) {
  constexpr int cols = 8 / rows; // enough sums under way to hide the latency of one
  int64_t k = 0;
  for (; k + cols <= K; k += cols) {
    dots_tile<T, rows, cols>(N, A, B + k * N, C + k, K);
  }
  for (; k < K; ++k) {
    dots_tile<T, rows, 1>(N, A, B + k * N, C + k, K);
  }
}

template <class T>
inline void dots(int64_t M, int64_t K, int64_t N, const T* A, const T* B, T* C) {
  if (is_helped()) {
    nalu::matmul(kDtype<T>, matrix(A, M, N), transposed(matrix(B, K, N)), C, true);
    return;
  }
  if (N == 1) { // nothing to sum: along the rows of C
    for (int64_t m = 0; m < M; ++m) {
      const Vec<T> a = splat<Vec<T>>(A[m]);
      T* row = C + m * K;
      for_each_vector<T>(K, [=](int64_t k, auto count) {
        store<T>(row + k, load<T>(row + k, count) + a * load<T>(B + k, count), count);
      });
    }
    return;
  }
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

// Y (O, n) = or, with `add`, += A (O, I) X (I, n).
template <class T>
inline void apply(int64_t O, int64_t I, int64_t n, const T* A, const T* X, T* Y, bool add) {
  if (is_helped()) {
    nalu::matmul(kDtype<T>, matrix(A, O, I), matrix(X, I, n), Y, add);
    return;
  }
  if (n == 1) { // the inputs lie along the vectors, where else the rows do
    gemm_narrow(O, 1, I, A, X, Y, add);
    return;
  }
  gemm<T>(O, n, I, {A, I, 1}, {X, n, X + I * n}, Y, n, add);
}

// X (I, n) = or, with `add`, += A^T Y, for A (O, I).
template <class T>
inline void apply_transposed(
    int64_t O, int64_t I, int64_t n, const T* A, const T* Y, T* X, bool add) {
  if (is_helped()) {
    nalu::matmul(kDtype<T>, transposed(matrix(A, O, I)), matrix(Y, O, n), X, add);
    return;
  }
  if (n == 1) {
    gemm<T>(1, I, O, {Y, O, 1}, {A, I, A + O * I}, X, I, add);
    return;
  }
  gemm<T>(I, n, O, {A, 1, I}, {Y, n, Y + O * n}, X, n, add);
}

template <class T>
inline void add_row_sums(int64_t rows, int64_t n, const T* values, T* sums) {
  if (n == 1) {
    add_to(rows, values, sums);
    return;
  }
  for_rows(rows, n, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      Vec<T> sum{};
      const T* of = values + row * n;
      for_each_vector<T>(n, [&](int64_t i, auto count) { sum += load<T>(of + i, count); });
      sums[row] += sum_lanes<T>(sum);
    }
  });
}

template <class T>
inline T sum_of_squares(const T* values, int64_t count) {
  Vec<T> squares{};
  for_each_vector<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(values + k, lanes);
    squares += v * v;
  });
  return sum_lanes<T>(squares);
}

template <class T>
inline void transpose_rows(const T* from, int64_t rows, int64_t columns, T* to) {
  if (rows == 1 || columns == 1) {
    copy(from, rows * columns, to);
    return;
  }
#if NALU_VECTOR_BYTES
  if (rows == 2 || columns == 2) {
    transpose_pairs(from, columns == 2 ? rows : columns, columns == 2, to);
    return;
  }
#endif
  const auto number = [=](int64_t i, auto count) { return load<T>(from + i, count); };
  for_rows(columns, rows, [=](int64_t begin, int64_t end) {
    fill_transposed<T>(rows, columns, begin, end, number, to);
  });
}

template <class V>
NALU_INLINE V square_root(V v) {
#if NALU_VECTOR_BYTES == 64 // the masks keep GCC from warning of its own header
  if constexpr (sizeof(Scalar<V>) == 4) {
    return bitcast<V>(_mm512_maskz_sqrt_ps(0xffff, bitcast<__m512>(v)));
  } else {
    return bitcast<V>(_mm512_maskz_sqrt_pd(0xff, bitcast<__m512d>(v)));
  }
#elif NALU_VECTOR_BYTES == 32
  if constexpr (sizeof(Scalar<V>) == 4) {
    return bitcast<V>(_mm256_sqrt_ps(bitcast<__m256>(v)));
  } else {
    return bitcast<V>(_mm256_sqrt_pd(bitcast<__m256d>(v)));
  }
#elif NALU_VECTOR_BYTES
  for (int64_t i = 0; i < kLanes<Scalar<V>>; ++i) {
    v[i] = std::sqrt(v[i]);
  }
  return v;
#else
  return std::sqrt(v);
#endif
}

// Hands out pieces of a thread's memory, or, with no memory, only counts what they come to.
template <class T>
class Arena {
 public:
  // Pieces are multiples of `unit` numbers.
  explicit Arena(T* memory, int64_t unit = 16) : memory_(memory), unit_(unit) {}
  T* take(int64_t count) {
    T* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + unit_ - 1) / unit_ * unit_;
    return piece;
  }
  int64_t used() const {
    return used_;
  }

 private:
  T* memory_;
  int64_t unit_, used_ = 0;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
