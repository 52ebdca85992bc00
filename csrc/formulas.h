// The mathematics of a NALU, once, for every device and every vector width.
//
// V is a float, a double or a vector of them. Before including this file define NALU_NAMESPACE,
// NALU_INLINE and NALU_DEVICE, and declare in that namespace: exp, log<normal>, tanh, abs, sign and
// splat for V, and kOneLog, whether log<true> serves for all numbers.
//
// Source: Trask et al. 2018, "Neural Arithmetic Logic Units", equations 1 and 2. The products are
// taken in the order in which autograd takes them in nalu_kernels/reference.py, so that
// infinities and NaNs arise in the same places.
#pragma once

#include <limits>
#include <type_traits>

namespace nalu {
namespace NALU_NAMESPACE {

template <class V>
NALU_INLINE V sigmoid(V v) {
  return splat<V>(1) / (splat<V>(1) + exp(-v));
}

// W = t s, with t = tanh(W_hat) and s = sigmoid(M_hat).
template <class V>
struct Weight {
  V t, s;
  NALU_INLINE Weight(V W_hat, V M_hat) : t(tanh(W_hat)), s(sigmoid(M_hat)) {}
  NALU_INLINE static Weight of(V t, V s) { // kept from before
    return Weight(t, s, nullptr);
  }
  NALU_INLINE V value() const {
    return t * s;
  }
  NALU_INLINE V grad_W_hat(V grad) const {
    return (grad * s) * (splat<V>(1) - t * t);
  }
  NALU_INLINE V grad_M_hat(V grad) const {
    return (grad * t) * ((splat<V>(1) - s) * s);
  }

 private:
  NALU_INLINE Weight(V t_, V s_, decltype(nullptr)) : t(t_), s(s_) {}
};

// W within [-1, 1]; the gradient passes there, the ends included.
template <class V>
NALU_INLINE V clamped(V W) {
  const V one = splat<V>(1);
  return W < -one ? -one : (W > one ? one : W); // a NaN passes both
}
template <class V>
NALU_INLINE V grad_clamped(V grad, V W) {
  const V one = splat<V>(1), zero{};
  return W >= -one ? (W <= one ? grad : zero) : zero;
}

// f(whether eps is a normal number): what is at least eps may then be taken the logarithm of by
// log<true>.
template <class T, class F>
NALU_DEVICE void with_normal(T eps, const F& f) {
  if (kOneLog || eps >= std::numeric_limits<T>::min()) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

// `normal`: as with_normal says of eps.
template <bool normal, class V>
NALU_INLINE V log_abs(V x, V eps) {
  return log<normal>(abs(x) + eps);
}

// d log(|x| + eps) / dx, times grad.
template <class V>
NALU_INLINE V grad_log_abs(V grad, V x, V eps) {
  return (grad / (abs(x) + eps)) * sign(x);
}

// y = g a + (1 - g) m
template <class V>
NALU_INLINE V mix(V a, V m, V g) {
  return g * a + (splat<V>(1) - g) * m;
}

// What y = mix(a, exp(l), sigmoid(z)) passes back, given dy: to a, to l and, before the gate's own
// slope, to g.
template <class V>
struct MixGradient {
  V a, l, g;
  NALU_INLINE MixGradient(V dy, V a_, V m, V g_)
      : a(dy * g_), l((dy * (splat<V>(1) - g_)) * m), g(dy * a_ - dy * m) {}
};

template <class V>
NALU_INLINE V grad_sigmoid(V grad, V g) {
  return grad * ((splat<V>(1) - g) * g);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
