// The sums of a matrix's columns. Each is a tree of short sums, so that few roundings follow one
// another; its order depends on the shape alone.
#pragma once

#include "simd.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Neighbouring vectors of a row; the last has `last` lanes in use.
template <class T, int vectors>
struct Strip {
  Vec<T> of[vectors] = {};

  template <class Count>
  void add_row(const T* row, Count last) {
    NALU_UNROLL
    for (int j = 0; j + 1 < vectors; ++j) {
      of[j] += load<T>(row + j * kLanes<T>, Full<T>{});
    }
    of[vectors - 1] += load<T>(row + (vectors - 1) * kLanes<T>, last);
  }
  void add(const Strip& other) {
    NALU_UNROLL
    for (int j = 0; j < vectors; ++j) {
      of[j] += other.of[j];
    }
  }
};

// Adds to a `sum` of zeros the sum of rows `stride` apart. It is not returned: where a pragma has
// switched on the target, GCC returns a struct of one vector without the vector's upper half.
template <class T, int vectors, class Count>
inline void sum_tree(
    int64_t rows, const T* from, int64_t stride, Count last, Strip<T, vectors>& sum) {
  constexpr int64_t kShort = 16;
  constexpr int kAtOnce = 4;
  if (rows > kShort) {
    const int64_t upper = (rows / 2 + kShort - 1) / kShort * kShort;
    Strip<T, vectors> rest;
    sum_tree(upper, from, stride, last, sum);
    sum_tree(rows - upper, from + upper * stride, stride, last, rest);
    sum.add(rest);
    return;
  }
  Strip<T, vectors> sums[kAtOnce];
  for (int64_t row = 0; row < rows; row += kAtOnce) {
    NALU_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (row + i < rows) {
        sums[i].add_row(from + (row + i) * stride, last);
      }
    }
  }
  sums[0].add(sums[1]);
  sums[2].add(sums[3]);
  sum.add(sums[0]);
  sum.add(sums[2]);
}

// The same of dense rows shorter than a vector: as many of them as a vector has lanes are one row
// of full vectors.
template <class T>
inline void narrow_column_sums(int64_t rows, int64_t cols, const T* from, T* sums) {
  constexpr int64_t L = kLanes<T>;
  const int64_t folded = rows / L, rest = rows % L;
  for (int64_t i = 0; i < L * cols; i += L) {
    Strip<T, 1> sum;
    sum_tree(folded, from + i, L * cols, Full<T>{}, sum);
    store<T>(sums + i, sum.of[0], Full<T>{});
  }
  for (int64_t i = 0; i < rest * cols; ++i) {
    sums[i] += from[folded * L * cols + i];
  }
  for (int64_t half = L / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half * cols; ++i) {
      sums[i] += sums[half * cols + i];
    }
  }
}

// to[c] = or, with accumulate, += the sum of from[r * stride + c] over r. `to` may be the first row.
template <class T>
inline void column_sums(
    int64_t rows, int64_t cols, const T* from, int64_t stride, T* to, bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  const auto put = [=](int64_t c, Vec<T> sum, auto count) {
    const Vec<T> before = accumulate ? load<T>(to + c, count) : Vec<T>{};
    store<T>(to + c, before + sum, count);
  };
  if (cols < L && stride == cols) {
    T sums[L * L];
    narrow_column_sums(rows, cols, from, sums);
    put(0, load<T>(sums, Partial{cols}), Partial{cols});
    return;
  }
  int64_t c = 0;
  for (; c + 2 * L <= cols; c += 2 * L) {
    Strip<T, 2> sum;
    sum_tree(rows, from + c, stride, Full<T>{}, sum);
    put(c, sum.of[0], Full<T>{});
    put(c + L, sum.of[1], Full<T>{});
  }
  for_each_vector<T>(cols - c, [=](int64_t i, auto count) {
    Strip<T, 1> sum;
    sum_tree(rows, from + c + i, stride, count, sum);
    put(c + i, sum.of[0], count);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
