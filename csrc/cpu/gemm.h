// The matrix products of small layers: C[m, n] = sum over k of A[m, k] B[k, n].
//
// Each element of C is summed in the same order whatever the tile it falls in, so its bits depend
// on nothing but the operands and the shape. Nothing is read or written outside the operands.
#pragma once

#include "simd.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Sums shorter than this lose few digits; blocks of them are added up in C.
constexpr int64_t kBlockK = 128;

// The tile of C that stays in registers while k runs: rows of A by vectors of B. Where C has few
// rows it is wider, so that enough sums are under way to hide the latency of one.
#if NALU_VECTOR_BYTES == 64
constexpr int kTileRows = 8, kTileVectors = 3, kWideVectors = 6;
#elif NALU_VECTOR_BYTES == 32
constexpr int kTileRows = 4, kTileVectors = 3, kWideVectors = 4;
#else
constexpr int kTileRows = 4, kTileVectors = 2, kWideVectors = 4;
#endif
constexpr int kWideRows = 2;

// Where K is long, a tile of fewer sums than this splits each into several.
constexpr int kChains = 4;

// A is read at any strides: as it is, or transposed.
template <class T>
struct Strided {
  const T* data;
  int64_t row_stride, col_stride;
};

// Rows of `columns` elements, `stride` apart, the last of them ending at `end`.
template <class T>
struct Dense {
  const T* data;
  int64_t stride;
  const T* end;
};

// sums[k % chains][i][j] over k; the last vector has `last` lanes in use.
template <class T, int chains, int rows, int vectors, class Count>
inline void multiply(
    Vec<T> (&sums)[chains][rows][vectors],
    int64_t begin,
    int64_t end,
    const Strided<T>& A,
    const Dense<T>& B,
    Count last) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t k = begin; k < end; k += chains) {
    NALU_UNROLL
    for (int c = 0; c < chains; ++c) {
      if (chains > 1 && k + c == end) {
        return;
      }
      const T* row = B.data + (k + c) * B.stride;
      Vec<T> b[vectors];
      NALU_UNROLL
      for (int j = 0; j + 1 < vectors; ++j) {
        b[j] = load<T>(row + j * L, Full<T>{});
      }
      b[vectors - 1] = load<T>(row + (vectors - 1) * L, last);
      NALU_UNROLL
      for (int i = 0; i < rows; ++i) {
        const T a = A.data[i * A.row_stride + (k + c) * A.col_stride];
        NALU_UNROLL
        for (int j = 0; j < vectors; ++j) {
          sums[c][i][j] += b[j] * a;
        }
      }
    }
  }
}

template <class T, bool tall, int rows, int vectors>
inline void gemm_tile(
    int64_t K,
    const Strided<T>& A,
    const Dense<T>& B,
    T* C,
    int64_t ldc,
    int64_t last,
    bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  constexpr int chains = tall && rows * vectors < kChains ? kChains / (rows * vectors) : 1;
  Vec<T> sums[chains][rows][vectors] = {};
  // The last vector of a row may be read whole, into the row behind it, where B does not end.
  const int64_t room = B.end - B.data - vectors * L;
  const int64_t whole = room < 0 ? 0 : room / B.stride + 1;
  const int64_t safe = last == L || whole > K ? K : whole;
  multiply<T>(sums, 0, safe, A, B, Full<T>{});
  multiply<T>(sums, safe, K, A, B, Partial{last});
  NALU_UNROLL
  for (int i = 0; i < rows; ++i) {
    NALU_UNROLL
    for (int j = 0; j < vectors; ++j) {
      Vec<T> sum = sums[0][i][j];
      NALU_UNROLL
      for (int c = 1; c < chains; ++c) {
        sum += sums[c][i][j];
      }
      T* to = C + i * ldc + j * L;
      if (j + 1 < vectors || last == L) {
        const Vec<T> before = accumulate ? load<T>(to, Full<T>{}) : Vec<T>{};
        store<T>(to, before + sum, Full<T>{});
      } else {
        const Vec<T> before = accumulate ? load<T>(to, Partial{last}) : Vec<T>{};
        store<T>(to, before + sum, Partial{last});
      }
    }
  }
}

// A column of tiles. Each pass takes as many rows as fit, the next passes what is left.
template <class T, bool tall, int vectors>
inline void gemm_column(
    int64_t M,
    int64_t K,
    const Strided<T>& A,
    const Dense<T>& B,
    T* C,
    int64_t ldc,
    int64_t last,
    bool accumulate) {
  int64_t m = 0;
  const auto pass = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    for (; m + R <= M; m += R) {
      const Strided<T> part{A.data + m * A.row_stride, A.row_stride, A.col_stride};
      gemm_tile<T, tall, R, vectors>(K, part, B, C + m * ldc, ldc, last, accumulate);
    }
  };
  if constexpr (vectors <= kTileVectors) {
    pass(std::integral_constant<int, kTileRows>{});
    pass(std::integral_constant<int, 4>{});
  }
  pass(std::integral_constant<int, kWideRows>{});
  pass(std::integral_constant<int, 1>{});
}

// f(vectors as a compile-time number) for 1 <= vectors <= most.
template <int most, class F>
inline void with_vectors(int64_t vectors, const F& f) {
  if constexpr (most > 1) {
    if (vectors < most) {
      return with_vectors<most - 1>(vectors, f);
    }
  }
  f(std::integral_constant<int, most>{});
}

// C (M, N) = or, with accumulate, += A (M, K) B (K, N); `tall` where K is long.
template <class T, bool tall = false>
inline void gemm(
    int64_t M,
    int64_t N,
    int64_t K,
    const Strided<T>& A,
    const Dense<T>& B,
    T* C,
    int64_t ldc,
    bool accumulate) {
  // Columns fill the vectors where they are taken for rows.
  if (M > 1 && N == 1 && K == 1 && A.row_stride == 1 && ldc == 1) {
    return gemm<T>(1, M, 1, {B.data, 1, 1}, {A.data, M, A.data + M}, C, M, accumulate);
  }
  constexpr int64_t L = kLanes<T>;
  const int64_t most = M <= kWideRows ? kWideVectors : kTileVectors;
  const int64_t vectors = (N + L - 1) / L, columns = (vectors + most - 1) / most;
  int64_t k = 0;
  do {
    const int64_t depth = K - k < kBlockK ? K - k : kBlockK;
    const Strided<T> part{A.data + k * A.col_stride, A.row_stride, A.col_stride};
    int64_t n = 0;
    for (int64_t column = 0; column < columns; ++column) {
      // As even as it goes: a single vector left over would make a tile too small to be fast.
      const int64_t used = (vectors - n / L + columns - column - 1) / (columns - column);
      const int64_t last = N - n < used * L ? N - n - (used - 1) * L : L;
      const Dense<T> b{B.data + k * B.stride + n, B.stride, B.end};
      with_vectors<kWideVectors>(used, [&](auto number) {
        constexpr int V = decltype(number)::value;
        gemm_column<T, tall, V>(M, depth, part, b, C + n, ldc, last, accumulate);
      });
      n += used * L;
    }
    accumulate = true;
    k += depth;
  } while (k < K);
}

// The most columns of a B for gemm_narrow.
constexpr int kNarrow = 4;

// As many rows as a vector has lanes, or fewer: N vectors of C, each of the sums of lanes. With
// `room` a vector may be read whole that ends behind its row.
template <class T, int N, bool room, class Count>
inline void gemm_narrow_rows(
    Count rows, int64_t K, const T* A, const T* Bt, T* C, bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  NALU_UNROLL
  for (int j = 0; j < N; ++j) {
    Vec<T> sums[L] = {};
    for_each_vector<T>(K, [&](int64_t k, auto count) {
      NALU_UNROLL
      for (int i = 0; i < L; ++i) {
        const int64_t element = j * L + i, row = element / N, last = rows - 1;
        const T* from = A + (row < last ? row : last) * K + k;
        Vec<T> a;
        if constexpr (room) {
          a = first_lanes<T>(load<T>(from, Full<T>{}), count);
        } else {
          a = load<T>(from, count);
        }
        sums[i] += a * load<T>(Bt + element % N * K + k, count);
      }
    });
    const Vec<T> sum = sums_of_lanes<T>(sums);
    for_each_vector<T>(rows * N - j * L < L ? rows * N - j * L : L, [&](int64_t i, auto count) {
      T* to = C + j * L + i;
      store<T>(to, accumulate ? load<T>(to, count) + sum : sum, count);
    });
  }
}

// The same for a B (K, N) of few columns, given as its transpose Bt (N, K), and dense rows of A and
// C: the vectors lie along k.
template <class T>
inline void gemm_narrow(
    int64_t M, int64_t N, int64_t K, const T* A, const T* Bt, T* C, bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  const int64_t spare = M * K - K / L * L - L, with_room = spare < 0 ? 0 : spare / K + 1;
  with_vectors<kNarrow>(N, [&](auto number) {
    constexpr int columns = decltype(number)::value;
    int64_t m = 0;
    for (; m + L <= with_room; m += L) {
      gemm_narrow_rows<T, columns, true>(
          Full<T>{}, K, A + m * K, Bt, C + m * columns, accumulate);
    }
    const T* rest = A + m * K;
    T* to = C + m * columns;
    for_each_vector<T>(M - m, [&](int64_t r, auto rows) {
      gemm_narrow_rows<T, columns, false>(rows, K, rest + r * K, Bt, to + r * columns, accumulate);
    });
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
