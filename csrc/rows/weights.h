// From parameters to the weights that multiply, and back.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// tanh(c W_hat) sigmoid(c M_hat), for the layer's scale c.
template <class T>
NALU_DEVICE void transform_pair(
    int64_t count, T scale, const T* W_hat, const T* M_hat, const Transformed<T>& to) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> w = load<T>(W_hat + k, lanes), m = load<T>(M_hat + k, lanes);
    const Weight<Vec<T>> weight(w * scale, m * scale);
    store<T>(to.t + k, weight.t, lanes);
    store<T>(to.s + k, weight.s, lanes);
    store<T>(to.W + k, weight.value(), lanes);
  });
}

template <class T>
NALU_DEVICE void transform_pair_gradient(
    int64_t count, T scale, const Transformed<T>& from, T* grad_W_hat, T* grad_M_hat) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    Vec<T> grad = load<T>(from.grad_W + k, lanes);
    grad = from.grad_W_too != nullptr ? grad + load<T>(from.grad_W_too + k, lanes) : grad;
    const auto weight = Weight<Vec<T>>::of(load<T>(from.t + k, lanes), load<T>(from.s + k, lanes));
    store<T>(grad_W_hat + k, weight.grad_W_hat(grad) * scale, lanes);
    store<T>(grad_M_hat + k, weight.grad_M_hat(grad) * scale, lanes);
  });
}

// sigmoid(W_hat)
template <class T>
NALU_DEVICE void squash_weight(int64_t count, const T* W_hat, const Transformed<T>& to) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    store<T>(to.W + k, sigmoid(load<T>(W_hat + k, lanes)), lanes);
  });
}

template <class T>
NALU_DEVICE void squash_weight_gradient(int64_t count, const Transformed<T>& from, T* grad_W_hat) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> W = load<T>(from.W + k, lanes), grad = load<T>(from.grad_W + k, lanes);
    store<T>(grad_W_hat + k, grad_sigmoid(grad, W), lanes);
  });
}

template <class T>
NALU_DEVICE void clamp_weight(int64_t count, const T* W, const Transformed<T>& to) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> w = load<T>(W + k, lanes);
    store<T>(to.t + k, w, lanes);
    store<T>(to.W + k, clamped(w), lanes);
  });
}

template <class T>
NALU_DEVICE void clamp_weight_gradient(int64_t count, const Transformed<T>& from, T* grad_W) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> w = load<T>(from.t + k, lanes), grad = load<T>(from.grad_W + k, lanes);
    store<T>(grad_W + k, grad_clamped(grad, w), lanes);
  });
}

// How much of a power counts: |w|, or while training the surrogate tanh(1000 w)^2; t, with its slope s.
// Source: Mistry, Farrahi and Hare 2022 (the NRU).
template <class T>
NALU_DEVICE void power_part(int64_t count, bool surrogate, const T* W, const Transformed<T>& to) {
  const Vec<T> one = splat<Vec<T>>(1);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> w = load<T>(W + k, lanes);
    const Vec<T> t = surrogate ? tanh(w * T(1000)) : sign(w);
    store<T>(to.t + k, surrogate ? t * t : abs(w), lanes);
    store<T>(to.s + k, surrogate ? (t * T(2000)) * (one - t * t) : t, lanes);
  });
}

// `count` parameters times c, and back.
template <class T>
NALU_DEVICE void scale_all(int64_t count, T scale, const T* from, T* to) {
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    store<T>(to + k, load<T>(from + k, lanes) * scale, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
