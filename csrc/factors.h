// The factors of the layers whose output is a product over the inputs,
//   y[o] = f(x[1], w[o, 1]) f(x[2], w[o, 2]) ...
// for every device and vector width. V holds one input of several rows, and a weight is one number; or,
// of one row, V holds several inputs, and so many weights go with them.
//
// A Factor has
//   Terms<T> of(j): what the weight number j, of (out, in), comes to
//   Terms<V> of(j, lanes): the same of it and the next
//   Input load(at, lanes): an input of (in, rows)
//   value(terms, input): f
//   slope_of_weight(terms, input, grad): grad df/dw, but for what gradient_of_weight does
//   gradient_of_weight(j, sum, lanes): of the sum of these over rows, for weight number j and the next
//   slope_of_input(terms, input, grad): grad df/dx, if has_slope_of_input
// Before including this file define NALU_NAMESPACE, NALU_INLINE and NALU_DEVICE, and declare in that
// namespace: exp, sign and splat for V, and load.
#pragma once

#include <limits>

namespace nalu {
namespace NALU_NAMESPACE {

// f = w x + 1 - w: 1 for a weight of 0, x for one of 1. With `forgiving`, an infinite x too is 1 for a
// weight of 0.
// Source: Madsen and Johansen 2020, "Neural Arithmetic Units", equation 9.
template <class T, bool forgiving>
struct SelectingFactor {
  static constexpr bool has_slope_of_input = true;
  const T *W, *x;

  template <class N>
  struct Terms {
    N w, rest;
  };
  NALU_INLINE Terms<T> of(int64_t j) const {
    return {W[j], T(1) - W[j]};
  }
  template <class Lanes>
  NALU_INLINE Terms<Vec<T>> of(int64_t j, Lanes lanes) const {
    const Vec<T> w = load<T>(W + j, lanes);
    return {w, T(1) - w};
  }
  template <class Lanes>
  NALU_INLINE Vec<T> load_input(int64_t at, Lanes lanes) const {
    return load<T>(x + at, lanes);
  }
  template <class N>
  NALU_INLINE static Vec<T> seen(const Terms<N>& terms, Vec<T> x_) {
    if constexpr (forgiving) {
      const Vec<T> one = splat<Vec<T>>(1);
      const Vec<T> infinity = splat<Vec<T>>(std::numeric_limits<T>::infinity());
      return terms.w == 0 ? (x_ == infinity ? one : x_) : x_;
    }
    return x_;
  }
  template <class N>
  NALU_INLINE Vec<T> value(const Terms<N>& terms, Vec<T> x_) const {
    return seen(terms, x_) * terms.w + terms.rest;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_weight(const Terms<N>& terms, Vec<T> x_, Vec<T> grad) const {
    return grad * seen(terms, x_) - grad;
  }
  template <class Lanes>
  NALU_INLINE Vec<T> gradient_of_weight(int64_t, Vec<T> sum, Lanes) const {
    return sum;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_input(const Terms<N>& terms, Vec<T>, Vec<T> grad) const {
    return grad * terms.w;
  }
};

// f = (w x n + 1 - w) / (w n + 1 - w), of positive noise n: near 1 or x, where the products of what is
// above and of what is below would leave the range of T.
// Source: Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication Units with
// Reversible Stochasticity".
template <class T>
struct NoisyFactor {
  static constexpr bool has_slope_of_input = true;
  const T *W, *x, *noise;

  template <class N>
  struct Terms {
    N w, rest;
  };
  struct Input {
    Vec<T> x, noise;
  };
  NALU_INLINE Terms<T> of(int64_t j) const {
    return {W[j], T(1) - W[j]};
  }
  template <class Lanes>
  NALU_INLINE Terms<Vec<T>> of(int64_t j, Lanes lanes) const {
    const Vec<T> w = load<T>(W + j, lanes);
    return {w, T(1) - w};
  }
  template <class Lanes>
  NALU_INLINE Input load_input(int64_t at, Lanes lanes) const {
    return {load<T>(x + at, lanes), load<T>(noise + at, lanes)};
  }
  template <class N>
  NALU_INLINE static Vec<T> below(const Terms<N>& terms, const Input& input) {
    return input.noise * terms.w + terms.rest;
  }
  template <class N>
  NALU_INLINE Vec<T> value(const Terms<N>& terms, const Input& input) const {
    return ((input.x * input.noise) * terms.w + terms.rest) / below(terms, input);
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_weight(const Terms<N>& terms, const Input& input, Vec<T> grad) const {
    const Vec<T> part = below(terms, input), one = splat<Vec<T>>(1);
    return grad * ((input.noise * (input.x - one)) / (part * part));
  }
  template <class Lanes>
  NALU_INLINE Vec<T> gradient_of_weight(int64_t, Vec<T> sum, Lanes) const {
    return sum;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_input(const Terms<N>& terms, const Input& input, Vec<T> grad) const {
    return grad * ((input.noise * terms.w) / below(terms, input));
  }
};

// f = |w| s + 1 - |w|, which has no slope in s, the sign of x.
// Source: Schlör, Ring and Hotho 2020, "iNALU", equation 8.
template <class T>
struct SignFactor {
  static constexpr bool has_slope_of_input = false;
  const T *W, *signs;

  template <class N>
  struct Terms {
    N part, rest;
  };
  template <class N>
  NALU_INLINE static Terms<N> terms(N w) {
    const N zero{}, part = w < zero ? -w : w;
    return {part, T(1) - part};
  }
  NALU_INLINE Terms<T> of(int64_t j) const {
    return terms(W[j]);
  }
  template <class Lanes>
  NALU_INLINE Terms<Vec<T>> of(int64_t j, Lanes lanes) const {
    return terms(load<T>(W + j, lanes));
  }
  template <class Lanes>
  NALU_INLINE Vec<T> load_input(int64_t at, Lanes lanes) const {
    return load<T>(signs + at, lanes);
  }
  template <class N>
  NALU_INLINE Vec<T> value(const Terms<N>& terms, Vec<T> s) const {
    return s * terms.part + terms.rest;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_weight(const Terms<N>&, Vec<T> s, Vec<T> grad) const {
    return grad * s - grad;
  }
  template <class Lanes>
  NALU_INLINE Vec<T> gradient_of_weight(int64_t j, Vec<T> sum, Lanes lanes) const {
    return sum * sign(load<T>(W + j, lanes));
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_input(const Terms<N>&, Vec<T>, Vec<T> grad) const {
    return grad;
  }
};

// f = a p + 1 - a, with p = sign(x) |x|^w and an a that is near 1 for every weight but 0. `part` is a
// and `slope` da/dw, of each weight. A sign of 0 is that of a positive number, and what a weight of 0
// makes of it is 1.
// Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
// Modules" (the NRU).
template <class T>
struct PowerFactor {
  static constexpr bool has_slope_of_input = true;
  const T *W, *part, *slope, *x, *logs; // logs: of |x|

  template <class N>
  struct Terms {
    N w, part, rest, slope;
  };
  struct Input {
    Vec<T> x, log;
  };
  NALU_INLINE Terms<T> of(int64_t j) const {
    return {W[j], part[j], T(1) - part[j], slope[j]};
  }
  template <class Lanes>
  NALU_INLINE Terms<Vec<T>> of(int64_t j, Lanes lanes) const {
    const Vec<T> a = load<T>(part + j, lanes);
    return {load<T>(W + j, lanes), a, T(1) - a, load<T>(slope + j, lanes)};
  }
  template <class Lanes>
  NALU_INLINE Input load_input(int64_t at, Lanes lanes) const {
    return {load<T>(x + at, lanes), load<T>(logs + at, lanes)};
  }
  // |x|^w: 1 for a w of 0 and for an |x| of 1, whatever the other is.
  template <class N>
  NALU_INLINE static Vec<T> size(N w, const Input& input) {
    const Vec<T> zero{}, one = splat<Vec<T>>(1);
    const Vec<T> of_any = w == 0 ? one : exp(input.log * w);
    return input.log == zero ? one : of_any;
  }
  template <class N>
  NALU_INLINE static Vec<T> power(N w, const Input& input) {
    const Vec<T> zero{}, p = size(w, input);
    return input.x < zero ? -p : p;
  }
  template <class N>
  NALU_INLINE Vec<T> value(const Terms<N>& terms, const Input& input) const {
    return power(terms.w, input) * terms.part + terms.rest;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_weight(const Terms<N>& terms, const Input& input, Vec<T> grad) const {
    const Vec<T> zero{}, p = power(terms.w, input);
    Vec<T> through_power = (grad * terms.part) * (p * input.log);
    through_power = terms.w >= 0 ? (input.x == zero ? zero : through_power) : through_power;
    return through_power + (grad * p - grad) * terms.slope;
  }
  template <class Lanes>
  NALU_INLINE Vec<T> gradient_of_weight(int64_t, Vec<T> sum, Lanes) const {
    return sum;
  }
  template <class N>
  NALU_INLINE Vec<T> slope_of_input(const Terms<N>& terms, const Input& input, Vec<T> grad) const {
    const Vec<T> zero{};
    const N w = terms.w;
    // Not w p / x: p may leave the range of T where this does not.
    const Vec<T> rate = size(w - T(1), input) * w;
    return w == 0 ? zero : (grad * terms.part) * rate;
  }
};

} // namespace NALU_NAMESPACE
} // namespace nalu
