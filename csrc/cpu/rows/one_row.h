// The product of reduction.h of one row: its inputs lie along the vectors, where a batch has its rows.
//
// A lane multiplies every so many of the factors. What is left of an output for one of them is the
// product of those before it in its lane, of those behind it, and of the other lanes. As in any other
// order, what overflows on the way is lost, though the whole product is finite.
#pragma once

#include "../elementwise.h"

#include "../../factors.h"

namespace nalu {
namespace NALU_NAMESPACE {

constexpr int kOneRowOutputs = 4;

// What each lane's product is multiplied by to be that of all, and, last, the product of all.
template <class T>
struct Lanes {
  T others[kLanes<T>], all;

  NALU_INLINE explicit Lanes(Vec<T> products) {
    constexpr int64_t L = kLanes<T>;
    T of[L];
    store<T>(of, products, Full<T>{});
    all = 1;
    for (int64_t lane = 0; lane < L; ++lane) {
      others[lane] = all;
      all *= of[lane];
    }
    T behind = 1;
    for (int64_t lane = L - 1; lane >= 0; --lane) {
      others[lane] *= behind;
      behind *= of[lane];
    }
  }
};

// f(first input, lanes), from the last inputs to the first.
template <class T, class F>
NALU_INLINE void for_each_vector_backward(int64_t n, const F& f) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = n / L * L;
  if (i < n) {
    f(i, Partial{n - i});
  }
  while (i > 0) {
    i -= L;
    f(i, Full<T>{});
  }
}

// The factors of the inputs that a vector has not, whose weights and inputs are loaded as 0, are 1.
template <class T, class Factor>
inline void reduce_one_row(int64_t begin, int64_t end, int64_t I, const Factor& factor, T* y) {
  for_each_output_tile<kOneRowOutputs>(begin, end, [&](auto outputs, int64_t first) {
    constexpr int C = decltype(outputs)::value;
    Vec<T> products[C];
    NALU_UNROLL
    for (int c = 0; c < C; ++c) {
      products[c] = splat<Vec<T>>(1);
    }
    for_each_vector<T>(I, [&](int64_t i, auto lanes) {
      const auto input = factor.load_input(i, lanes);
      NALU_UNROLL
      for (int c = 0; c < C; ++c) {
        products[c] *= factor.value(factor.of((first + c) * I + i, lanes), input);
      }
    });
    for (int c = 0; c < C; ++c) {
      y[first + c] = Lanes<T>(products[c]).all;
    }
  });
}

// Numbers that reduce_gradient_of_one_row needs beside.
template <class T>
inline int64_t one_row_scratch(int64_t I) {
  return kOneRowOutputs * (I + kLanes<T>);
}

// From dy (O): adds to grad_W (O, I), and writes grad_x (I), or with `add` adds to it; either may be
// null.
template <class T, class Factor>
inline void reduce_gradient_of_one_row(
    int64_t begin,
    int64_t end,
    int64_t I,
    const Factor& factor,
    const T* dy,
    T* grad_W,
    T* grad_x,
    bool add,
    T* before) {
  for_each_output_tile<kOneRowOutputs>(begin, end, [&](auto outputs, int64_t first) {
    constexpr int C = decltype(outputs)::value;
    Vec<T> products[C];
    NALU_UNROLL
    for (int c = 0; c < C; ++c) {
      products[c] = splat<Vec<T>>(1);
    }
    for_each_vector<T>(I, [&](int64_t i, auto lanes) {
      const auto input = factor.load_input(i, lanes);
      NALU_UNROLL
      for (int c = 0; c < C; ++c) {
        store<T>(before + C * i + c * kLanes<T>, products[c], Full<T>{});
        products[c] *= factor.value(factor.of((first + c) * I + i, lanes), input);
      }
    });
    // From here on dy times the other lanes and the product of the factors behind.
    for (int c = 0; c < C; ++c) {
      products[c] = load<T>(Lanes<T>(products[c]).others, Full<T>{}) * dy[first + c];
    }
    for_each_vector_backward<T>(I, [&](int64_t i, auto lanes) {
      const auto input = factor.load_input(i, lanes);
      Vec<T> of_input{};
      NALU_UNROLL
      for (int c = 0; c < C; ++c) {
        const int64_t j = (first + c) * I + i;
        const auto terms = factor.of(j, lanes);
        const Vec<T> grad = products[c] * load<T>(before + C * i + c * kLanes<T>, Full<T>{});
        products[c] *= factor.value(terms, input);
        if (grad_W != nullptr) {
          const Vec<T> slope = factor.slope_of_weight(terms, input, grad);
          const Vec<T> more = factor.gradient_of_weight(j, slope, lanes);
          store<T>(grad_W + j, load<T>(grad_W + j, lanes) + more, lanes);
        }
        of_input += factor.slope_of_input(terms, input, grad);
      }
      if constexpr (Factor::has_slope_of_input) {
        if (grad_x != nullptr) {
          const bool sum = add || first > begin;
          store<T>(grad_x + i, sum ? load<T>(grad_x + i, lanes) + of_input : of_input, lanes);
        }
      }
    });
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
