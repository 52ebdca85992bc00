// The sums of a matrix's columns. Each is a tree of short sums, so that few roundings follow one
// another; its order depends on the shape alone.
#pragma once

#include "simd.h"

namespace nalu {
namespace NALU_NAMESPACE {

// One vector of columns, of rows `stride` apart.
template <class T, class Count>
inline Vec<T> sum_tree(int64_t rows, const T* from, int64_t stride, Count count) {
  constexpr int64_t kShort = 16, kAtOnce = 4;
  if (rows > kShort) {
    const int64_t upper = (rows / 2 + kShort - 1) / kShort * kShort;
    return sum_tree<T>(upper, from, stride, count) +
        sum_tree<T>(rows - upper, from + upper * stride, stride, count);
  }
  Vec<T> sums[kAtOnce] = {};
  for (int64_t row = 0; row < rows; row += kAtOnce) {
    NALU_UNROLL
    for (int64_t i = 0; i < kAtOnce; ++i) {
      if (row + i < rows) {
        sums[i] += load<T>(from + (row + i) * stride, count);
      }
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The same of dense rows shorter than a vector: as many of them as a vector has lanes are one row
// of full vectors.
template <class T>
inline void narrow_column_sums(int64_t rows, int64_t cols, const T* from, T* sums) {
  constexpr int64_t L = kLanes<T>;
  const int64_t folded = rows / L, rest = rows % L;
  for (int64_t i = 0; i < L * cols; i += L) {
    store<T>(sums + i, sum_tree<T>(folded, from + i, L * cols, Full<T>{}), Full<T>{});
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
  T narrow[L * L];
  const bool is_narrow = cols < L && stride == cols;
  if (is_narrow) {
    narrow_column_sums(rows, cols, from, narrow);
  }
  for_each_vector<T>(cols, [=, &narrow](int64_t c, auto count) {
    const Vec<T> before = accumulate ? load<T>(to + c, count) : Vec<T>{};
    const Vec<T> sum = is_narrow ? load<T>(narrow + c, count)
                                 : sum_tree<T>(rows, from + c, stride, count);
    store<T>(to + c, before + sum, count);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
