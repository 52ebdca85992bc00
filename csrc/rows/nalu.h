// A NALU's gate between its sum and its product.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// sums become a and g, m the product, y their mixture.
template <class T>
NALU_DEVICE void gate(const Unit<T>& unit, const T* bias, int64_t n) {
  const int64_t out = unit.layer.out, gates = unit.layer.gates;
  for_each_vector_of_rows<T>(gates, n, [&](int64_t o, int64_t k, auto count) {
    T* z = unit.sums + (out + o) * n + k;
    Vec<T> sum = load<T>(z, count);
    sum = bias != nullptr ? sum + bias[o] : sum;
    store<T>(z, sigmoid(sum), count);
  });
  for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto count) {
    const T *a = unit.sums + o * n + k, *g = unit.sums + (out + (gates == 1 ? 0 : o)) * n + k;
    T *m = unit.m + o * n + k, *y = unit.y + o * n + k;
    const Vec<T> product = exp(load<T>(m, count));
    store<T>(m, product, count);
    store<T>(y, mix(load<T>(a, count), product, load<T>(g, count)), count);
  });
}

// From the gradient of the output to those of a and z, and of l.
template <class T>
NALU_DEVICE void gate_gradient(const Unit<T>& unit, const T* dy, int64_t n) {
  const int64_t out = unit.layer.out, gates = unit.layer.gates, each = gates == 1 ? out : 1;
  for_each_vector_of_rows<T>(gates, n, [&](int64_t gate, int64_t k, auto count) {
    const int64_t z = (out + gate) * n + k;
    const Vec<T> g = load<T>(unit.sums + z, count);
    Vec<T> grad_g{};
    for (int64_t o = gate * each; o < (gate + 1) * each; ++o) {
      const int64_t at = o * n + k;
      const MixGradient<Vec<T>> grad(
          load<T>(dy + at, count), load<T>(unit.sums + at, count), load<T>(unit.m + at, count), g);
      store<T>(unit.grad_sums + at, grad.a, count);
      store<T>(unit.grad_l + at, grad.l, count);
      grad_g += grad.g;
    }
    store<T>(unit.grad_sums + z, grad_sigmoid(grad_g, g), count);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
