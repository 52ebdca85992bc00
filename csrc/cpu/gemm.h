// The matrix product of small layers: C[m, n] = sum over k of A[m, k] B[k, n].
//
// B's rows lie along the vector lanes, A's elements are broadcast, a tile of C stays in registers.
// Each element of C is summed in the order of k, in blocks of kBlockK, whatever the tile it falls
// in, so its bits depend on nothing but the operands.
//
// B may be read up to one vector beyond its last element (Buffer leaves room); C never is.
#pragma once

#include "simd.h"

#if defined(__clang__)
#define NALU_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define NALU_UNROLL _Pragma("GCC unroll 16")
#else
#define NALU_UNROLL
#endif

namespace nalu {
namespace NALU_NAMESPACE {

// A read at any strides: as it is, or transposed.
template <class T>
struct Operand {
  const T* data;
  int64_t row_stride, col_stride;
};

// Sums shorter than this lose few digits; blocks of them are added up in C.
constexpr int64_t kBlockK = 128;

// The tile that fills the registers: rows of A by vectors of B.
#if NALU_VECTOR_BYTES == 64
constexpr int kTileRows = 8, kTileVectors = 3;
#elif NALU_VECTOR_BYTES == 32
constexpr int kTileRows = 4, kTileVectors = 3;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

template <class T, int rows, int vectors>
inline void gemm_tile(
    int64_t K,
    Operand<T> A,
    const T* B,
    int64_t ldb,
    T* C,
    int64_t ldc,
    int64_t last,
    bool accumulate) {
  using V = Vec<T>;
  constexpr int64_t L = kLanes<T>;
  V sums[rows][vectors] = {};
  for (int64_t k = 0; k < K; ++k) {
    V b[vectors];
    NALU_UNROLL
    for (int j = 0; j < vectors; ++j) {
      b[j] = load<T>(B + k * ldb + j * L, Full<T>{});
    }
    NALU_UNROLL
    for (int i = 0; i < rows; ++i) {
      const T a = A.data[i * A.row_stride + k * A.col_stride];
      NALU_UNROLL
      for (int j = 0; j < vectors; ++j) {
        sums[i][j] += b[j] * a;
      }
    }
  }
  NALU_UNROLL
  for (int i = 0; i < rows; ++i) {
    NALU_UNROLL
    for (int j = 0; j < vectors; ++j) {
      T* to = C + i * ldc + j * L;
      const int64_t count = j + 1 < vectors ? L : last;
      V sum = sums[i][j];
      if (count == L) {
        sum += accumulate ? load<T>(to, Full<T>{}) : V{};
        store<T>(to, sum, Full<T>{});
      } else {
        sum += accumulate ? load<T>(to, count) : V{};
        store<T>(to, sum, count);
      }
    }
  }
}

template <class T, int vectors>
inline void gemm_columns(
    int64_t M,
    int64_t K,
    Operand<T> A,
    const T* B,
    int64_t ldb,
    T* C,
    int64_t ldc,
    int64_t last,
    bool accumulate) {
  int64_t m = 0;
  const auto rows_of = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    for (; m + R <= M; m += R) {
      const Operand<T> part{A.data + m * A.row_stride, A.row_stride, A.col_stride};
      gemm_tile<T, R, vectors>(K, part, B, ldb, C + m * ldc, ldc, last, accumulate);
    }
  };
  rows_of(std::integral_constant<int, kTileRows>{});
  rows_of(std::integral_constant<int, 4>{});
  rows_of(std::integral_constant<int, 1>{});
}

// C (M, N) = or, with accumulate, += A (M, K) B (K, N); B's and C's columns are contiguous.
template <class T>
inline void gemm(
    int64_t M,
    int64_t N,
    int64_t K,
    Operand<T> A,
    const T* B,
    int64_t ldb,
    T* C,
    int64_t ldc,
    bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  int64_t k = 0;
  do {
    const int64_t depth = K - k < kBlockK ? K - k : kBlockK;
    const Operand<T> part{A.data + k * A.col_stride, A.row_stride, A.col_stride};
    for (int64_t n = 0; n < N; n += kTileVectors * L) {
      const int64_t left = N - n;
      const int64_t vectors = (left + L - 1) / L;
      const int64_t used = vectors < kTileVectors ? vectors : kTileVectors;
      const int64_t last = vectors > kTileVectors ? L : left - (used - 1) * L;
      const T* b = B + k * ldb + n;
      if (used == 3) {
        if constexpr (kTileVectors >= 3) {
          gemm_columns<T, 3>(M, depth, part, b, ldb, C + n, ldc, last, accumulate);
        }
      } else if (used == 2) {
        gemm_columns<T, 2>(M, depth, part, b, ldb, C + n, ldc, last, accumulate);
      } else {
        gemm_columns<T, 1>(M, depth, part, b, ldb, C + n, ldc, last, accumulate);
      }
    }
    accumulate = true;
    k += depth;
  } while (k < K);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
