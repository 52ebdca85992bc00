// An iNALU's planes, and what joins its paths:
//   y = g a + (1 - g) exp(min(l, omega)) S, g = sigmoid of a parameter or of G |x|.
// Source: Schlör, Ring and Hotho 2020, "iNALU: Improved Neural Arithmetic Logic Unit".
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Of a gate per sample the authors' code has log(|x| + eps), of the others log(max(|x|, eps)).
template <class T>
NALU_DEVICE void inalu_planes(const Unit<T>& unit, const T* x, int64_t n) {
  const int64_t count = unit.layer.in * n;
  const bool sum = unit.layer.option;
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(unit.layer.eps));
  T *logs = unit.planes[0], *sizes = unit.planes[1], *signs = unit.planes[2];
  with_normal(static_cast<T>(unit.layer.eps), [&](auto normal) {
    for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> v = load<T>(x + k, lanes), size = abs(v);
      store<T>(signs + k, v == v ? sign(v) : v, lanes); // a NaN is its own sign
      const Vec<T> within = size < eps ? eps : size; // a NaN passes
      store<T>(logs + k, log<decltype(normal)::value>(sum ? size + eps : within), lanes);
      if (sizes != nullptr) {
        store<T>(sizes + k, size, lanes);
      }
    });
  });
}

// The gate of output o for the rows from k on; `z` without one.
template <class T, class Lanes>
NALU_INLINE Vec<T> inalu_gate(const Unit<T>& unit, const T* g, int64_t o, int64_t at, Lanes lanes) {
  return g != nullptr ? sigmoid(splat<Vec<T>>(g[o])) : load<T>(unit.sums + at, lanes);
}

// z becomes g, and all its parts the output. `g`: the gate's parameters, if it is of no input.
template <class T>
NALU_DEVICE void inalu_join(const Unit<T>& unit, const T* g, int64_t n) {
  const int64_t out = unit.layer.out, gates = unit.layer.gates;
  const Vec<T> omega = splat<Vec<T>>(static_cast<T>(unit.layer.omega)), one = splat<Vec<T>>(1);
  for_each_vector_of_matrix<T>(gates * n, [&](int64_t k, auto lanes) {
    store<T>(unit.sums + k, sigmoid(load<T>(unit.sums + k, lanes)), lanes);
  });
  for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto lanes) {
    const int64_t at = o * n + k;
    const Vec<T> gate = inalu_gate(unit, g, o, gates == 1 ? k : at, lanes);
    const Vec<T> l = load<T>(unit.m + at, lanes), m = exp(l > omega ? omega : l);
    const Vec<T> product = ((one - gate) * m) * load<T>(unit.signs + at, lanes);
    store<T>(unit.y + at, gate * load<T>(unit.angles + at, lanes) + product, lanes);
  });
}

// From the output's gradient to those of a, l, S and z or the gate's parameters.
template <class T>
NALU_DEVICE void inalu_part(const Unit<T>& unit, const T* g, const T* dy, T* grad_g, int64_t n) {
  const int64_t out = unit.layer.out, gates = unit.layer.gates;
  const int64_t rows = gates == 0 ? out : gates, each = gates == 1 ? out : 1;
  const Vec<T> omega = splat<Vec<T>>(static_cast<T>(unit.layer.omega)), one = splat<Vec<T>>(1);
  T* const grad_z = unit.grad_sums; // (rows, n)
  for_each_vector_of_rows<T>(rows, n, [&](int64_t row, int64_t k, auto lanes) {
    const Vec<T> gate = inalu_gate(unit, g, row, row * n + k, lanes), zero{};
    Vec<T> of_gate{};
    for (int64_t o = row * each; o < (row + 1) * each; ++o) {
      const int64_t at = o * n + k;
      const Vec<T> d = load<T>(dy + at, lanes), S = load<T>(unit.signs + at, lanes);
      const Vec<T> l = load<T>(unit.m + at, lanes), m = exp(l > omega ? omega : l);
      const Vec<T> rest = d * (one - gate);
      store<T>(unit.grad_angles + at, d * gate, lanes);
      store<T>(unit.grad_l + at, l <= omega ? (rest * S) * m : zero, lanes);
      store<T>(unit.grad_signs + at, rest * m, lanes);
      of_gate += d * load<T>(unit.angles + at, lanes) - (d * S) * m;
    }
    store<T>(grad_z + row * n + k, grad_sigmoid(of_gate, gate), lanes);
  });
  if (gates == 0) {
    add_row_sums<T>(out, n, grad_z, grad_g);
  }
}

// From the planes' gradients to that of x.
template <class T>
NALU_DEVICE void inalu_through(const Unit<T>& unit, const T* x, int64_t n) {
  const bool sum = unit.layer.option;
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(unit.layer.eps));
  const T *logs = unit.planes[0], *sizes = unit.planes[1];
  for_each_vector_of_matrix<T>(unit.layer.in * n, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(x + k, lanes), size = abs(v), zero{};
    const Vec<T> of_log = load<T>(logs + k, lanes) / (sum ? size + eps : size);
    Vec<T> of_size = sum ? of_log : (size >= eps ? of_log : zero);
    of_size = sizes != nullptr ? of_size + load<T>(sizes + k, lanes) : of_size;
    store<T>(unit.grad_x + k, load<T>(unit.grad_x + k, lanes) + of_size * sign(v), lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
