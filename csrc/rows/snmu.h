// An SNMU's planes, and what joins its products while it is trained:
//   y = prod(w x n + 1 - w) / prod(w n + 1 - w), with noise n >= 0 of each input's own.
// Otherwise it is an NMU. The functions stay apart: within a kernel for all layers they would cost each
// of them registers.
// Source: Mistry, Farrahi and Hare 2022, "Improving the Robustness of Neural Multiplication Units with
// Reversible Stochasticity".
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// 1 / the standard deviation of x, unbiased.
template <class T>
NALU_DEVICE T inverse_deviation(const T* x, int64_t count) {
  double sum = 0;
  for_each(count, [&](int64_t k) { sum += static_cast<double>(x[k]); });
  const double mean = sum_of_all(sum) / static_cast<double>(count);
  double squares = 0;
  for_each(count, [&](int64_t k) {
    const double off = static_cast<double>(x[k]) - mean;
    squares += off * off;
  });
  return static_cast<T>(1 / std::sqrt(sum_of_all(squares) / static_cast<double>(count - 1)));
}

// x n, and n in the place of numbers uniform on [0, 1).
template <class T>
NALU_APART void snmu_planes(const Unit<T>& unit, const T* x, bool training, int64_t n) {
  const int64_t count = unit.layer.in * n;
  T *noisy = unit.planes[0], *noise = unit.planes[1];
  if (!training) {
    copy(x, count, noisy);
    return;
  }
  T least = static_cast<T>(unit.layer.eps), width = static_cast<T>(unit.layer.omega) - least;
  if (unit.layer.option) {
    least = 1;
    width = inverse_deviation(x, count);
  }
  const Vec<T> low = splat<Vec<T>>(least);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> of = low + load<T>(noise + k, lanes) * width;
    store<T>(noise + k, of, lanes);
    store<T>(noisy + k, load<T>(x + k, lanes) * of, lanes);
  });
}

template <class T>
NALU_APART void snmu_join(const Unit<T>& unit, bool training, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    const Vec<T> m = load<T>(unit.m + k, lanes);
    store<T>(unit.y + k, training ? m / load<T>(unit.signs + k, lanes) : m, lanes);
  });
}

template <class T>
NALU_APART void snmu_part(const Unit<T>& unit, const T* dy, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    const Vec<T> grad = load<T>(dy + k, lanes) / load<T>(unit.signs + k, lanes);
    store<T>(unit.grad_l + k, grad, lanes);
    store<T>(unit.grad_signs + k, -(grad * load<T>(unit.y + k, lanes)), lanes);
  });
}

// From the gradient of x n to that of x.
template <class T>
NALU_APART void snmu_through(const Unit<T>& unit, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.in * n, [&](int64_t k, auto lanes) {
    const Vec<T> grad = load<T>(unit.grad_x + k, lanes) * load<T>(unit.planes[1] + k, lanes);
    store<T>(unit.grad_x + k, grad, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
