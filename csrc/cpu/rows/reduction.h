// Products of factors over the inputs (see ../../factors.h), and their gradients, on a CPU: rows lie
// along the vectors, and a tile of outputs and vectors hides the latency of one multiplication.
//
// Nothing is divided by a factor: the product of the others is that of those before it, kept, and of
// those after it.
#pragma once

#include "../elementwise.h"
#include "../helped.h"

#include "one_row.h"

#include "../../factors.h"

namespace nalu {
namespace NALU_NAMESPACE {

constexpr int kReductionOutputs = 2, kReductionVectors = 4;

// f(vectors, first row, lanes of each), for tiles of rows.
template <class T, class F>
NALU_INLINE void for_each_row_tile(int64_t n, const F& f) {
  constexpr int64_t L = kLanes<T>, rows = kReductionVectors * L;
  int64_t k = 0;
  for (; k + rows <= n; k += rows) {
    f(std::integral_constant<int, kReductionVectors>{}, k, Full<T>{});
  }
  for_each_vector<T>(n - k, [&](int64_t rest, auto lanes) {
    f(std::integral_constant<int, 1>{}, k + rest, lanes);
  });
}

// What the weights of input i come to, of the outputs from `first`.
template <int C, class Factor>
struct TermsOf {
  decltype(std::declval<Factor>().of(0)) of[C];

  NALU_INLINE TermsOf(const Factor& factor, int64_t first, int64_t I, int64_t i) {
    NALU_UNROLL
    for (int c = 0; c < C; ++c) {
      of[c] = factor.of((first + c) * I + i);
    }
  }
};

// The products of a tile, of the outputs from `first` and the rows from `k`; `before` is given each as
// it is ahead of each factor, of one input after the other. What a tile reads is its own copy, which no
// store to memory may change.
template <class T, int C, int R, class Factor, class Lanes, class Before>
NALU_INLINE void multiply_tile(
    int64_t first,
    int64_t k,
    Lanes lanes,
    int64_t I,
    int64_t n,
    Factor factor,
    Vec<T> (&products)[C][R],
    Before before) {
  NALU_UNROLL
  for (int c = 0; c < C; ++c) {
    NALU_UNROLL
    for (int r = 0; r < R; ++r) {
      products[c][r] = splat<Vec<T>>(1);
    }
  }
  for (int64_t i = 0; i < I; ++i) {
    const TermsOf<C, Factor> terms(factor, first, I, i);
    NALU_UNROLL
    for (int r = 0; r < R; ++r) {
      const auto input = factor.load_input(i * n + k + r * kLanes<T>, lanes);
      NALU_UNROLL
      for (int c = 0; c < C; ++c) {
        before(products[c][r]);
        products[c][r] *= factor.value(terms.of[c], input);
      }
    }
  }
}

// The same of y (O, n).
template <class T, int C, int R, class Factor, class Lanes>
NALU_INLINE void reduce_tile(
    int64_t first, int64_t k, Lanes lanes, int64_t I, int64_t n, const Factor& factor, T* y) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> products[C][R];
  multiply_tile<T>(first, k, lanes, I, n, factor, products, [](Vec<T>) {});
  NALU_UNROLL
  for (int c = 0; c < C; ++c) {
    NALU_UNROLL
    for (int r = 0; r < R; ++r) {
      store<T>(y + (first + c) * n + k + r * L, products[c][r], lanes);
    }
  }
}

// Of y (O, n), over I inputs, the outputs from `begin` to `end`.
template <class T, class Factor>
inline void reduce_outputs(
    int64_t begin, int64_t end, int64_t I, int64_t n, const Factor& factor, T* y) {
  if (n == 1 && kLanes<T> > 1) {
    return reduce_one_row(begin, end, I, factor, y);
  }
  for_each_output_tile<kReductionOutputs>(begin, end, [&](auto outputs, int64_t first) {
    for_each_row_tile<T>(n, [&](auto vectors, int64_t k, auto lanes) {
      reduce_tile<T, decltype(outputs)::value, decltype(vectors)::value>(
          first, k, lanes, I, n, factor, y);
    });
  });
}

template <class T, class Factor>
inline void reduce(int64_t O, int64_t I, int64_t n, const Factor& factor, T* y) {
  if (is_helped()) {
    parallel(O, kReductionOutputs, [&](int64_t begin, int64_t end) {
      reduce_outputs(begin, end, I, n, factor, y);
    });
  } else {
    reduce_outputs(0, O, I, n, factor, y);
  }
}

// Numbers that reduce_gradient needs beside.
template <class T>
inline int64_t reduction_scratch(int64_t I, int64_t) {
  const int64_t of_rows = I * kReductionOutputs * (kReductionVectors + 1) * kLanes<T>;
  const int64_t of_one_row = one_row_scratch<T>(I);
  return of_rows > of_one_row ? of_rows : of_one_row;
}

// What reduce_gradient does for a tile: adds to `sums` (I, C, lanes), and needs `before` (I, R, C, lanes).
template <class T, int C, int R, bool of_inputs, class Factor, class Lanes>
NALU_INLINE void reduce_gradient_tile(
    int64_t first,
    int64_t k,
    Lanes lanes,
    int64_t I,
    int64_t n,
    Factor factor,
    const T* dy,
    T* grad_x,
    bool add,
    T* sums,
    T* before) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> products[C][R];
  T* to = before;
  multiply_tile<T>(first, k, lanes, I, n, factor, products, [&](Vec<T> product) {
    store<T>(to, product, Full<T>{});
    to += L;
  });
  // From here on dy times the product of the factors behind.
  NALU_UNROLL
  for (int c = 0; c < C; ++c) {
    NALU_UNROLL
    for (int r = 0; r < R; ++r) {
      products[c][r] = load<T>(dy + (first + c) * n + k + r * L, lanes);
    }
  }
  for (int64_t i = I - 1; i >= 0; --i) {
    const TermsOf<C, Factor> terms(factor, first, I, i);
    Vec<T> of_weight[C] = {};
    to = before + i * C * R * L;
    NALU_UNROLL
    for (int r = 0; r < R; ++r) {
      const auto input = factor.load_input(i * n + k + r * L, lanes);
      Vec<T> of_input{};
      NALU_UNROLL
      for (int c = 0; c < C; ++c, to += L) {
        const Vec<T> grad = products[c][r] * load<T>(to, Full<T>{});
        products[c][r] *= factor.value(terms.of[c], input);
        of_weight[c] += first_lanes<T>(factor.slope_of_weight(terms.of[c], input, grad), lanes);
        if constexpr (of_inputs) {
          of_input += factor.slope_of_input(terms.of[c], input, grad);
        }
      }
      if constexpr (of_inputs) {
        T* at = grad_x + i * n + k + r * L;
        store<T>(at, add ? load<T>(at, lanes) + of_input : of_input, lanes);
      }
    }
    NALU_UNROLL
    for (int c = 0; c < C; ++c) {
      T* sum = sums + (i * C + c) * L;
      store<T>(sum, load<T>(sum, Full<T>{}) + of_weight[c], Full<T>{});
    }
  }
}

// What reduce_gradient does, for the outputs from `begin` to `end`.
template <class T, class Factor>
inline void reduce_gradient_of_outputs(
    int64_t begin,
    int64_t end,
    int64_t I,
    int64_t n,
    const Factor& factor,
    const T* dy,
    T* grad_W,
    T* grad_x,
    bool add,
    T* scratch) {
  if (n == 1 && kLanes<T> > 1) {
    return reduce_gradient_of_one_row(
        begin, end, I, factor, dy, grad_W, grad_x, add, scratch);
  }
  constexpr int64_t L = kLanes<T>;
  for_each_output_tile<kReductionOutputs>(begin, end, [&](auto outputs, int64_t first) {
    constexpr int C = decltype(outputs)::value;
    T* const sums = scratch;
    T* const before = scratch + I * C * L;
    clear(sums, I * C * L);
    const auto gradient = [&](auto of_inputs) {
      for_each_row_tile<T>(n, [&](auto vectors, int64_t k, auto lanes) {
        reduce_gradient_tile<T, C, decltype(vectors)::value, decltype(of_inputs)::value>(
            first, k, lanes, I, n, factor, dy, grad_x, add || first > begin, sums, before);
      });
    };
    if constexpr (Factor::has_slope_of_input) {
      grad_x != nullptr ? gradient(std::true_type{}) : gradient(std::false_type{});
    } else {
      gradient(std::false_type{});
    }
    if (grad_W != nullptr) {
      for (int c = 0; c < C; ++c) {
        for_each_vector<T>(I, [&](int64_t i, auto lanes) {
          Vec<T> each[L] = {};
          for (int64_t j = 0; j < lanes; ++j) {
            each[j] = load<T>(sums + ((i + j) * C + c) * L, Full<T>{});
          }
          const int64_t j = (first + c) * I + i;
          const Vec<T> more = factor.gradient_of_weight(j, sums_of_lanes<T>(each), lanes);
          store<T>(grad_W + j, load<T>(grad_W + j, lanes) + more, lanes);
        });
      }
    }
  });
}

// From dy (O, n): adds to grad_W (O, I), and writes grad_x (I, n), or with `add` adds to it; either may
// be null.
template <class T, class Factor>
inline void reduce_gradient(
    int64_t O,
    int64_t I,
    int64_t n,
    const Factor& factor,
    const T* dy,
    T* grad_W,
    T* grad_x,
    bool add,
    T* scratch) {
  if (O == 0 && grad_x != nullptr && !add) {
    clear(grad_x, I * n);
  }
  if (!is_helped()) {
    reduce_gradient_of_outputs<T>(0, O, I, n, factor, dy, grad_W, grad_x, add, scratch);
    return;
  }
  // Pieces of the outputs, each with its own sum for the inputs: the threads' number is no matter.
  const bool of_input = Factor::has_slope_of_input && grad_x != nullptr;
  const int64_t most = 8, size = (O + most - 1) / most, count = I * n;
  const Buffer<T> sums(of_input ? most * count : 0);
  parallel(most, 1, [&](int64_t first, int64_t last) {
    const Buffer<T> own(reduction_scratch<T>(I, n));
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t begin = piece * size, end = begin + size < O ? begin + size : O;
      T* sum = of_input ? sums.get() + piece * count : nullptr;
      reduce_gradient_of_outputs(begin, end, I, n, factor, dy, grad_W, sum, false, own.get());
    }
  });
  for (int64_t piece = 0; of_input && piece * size < O; ++piece) {
    const T* sum = sums.get() + piece * count;
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> more = load<T>(sum + k, lanes);
      store<T>(grad_x + k, add || piece > 0 ? load<T>(grad_x + k, lanes) + more : more, lanes);
    });
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
