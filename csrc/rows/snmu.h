// The noise of an SNMU that is trained, whose product is that of NoisyFactor; otherwise it is an NMU.
// The functions stay apart: within a kernel for all layers they would cost each of them registers.
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

// The noise, in the place of numbers uniform on [0, 1).
template <class T>
NALU_APART void snmu_noise(const Unit<T>& unit, const T* x, int64_t n) {
  const int64_t count = unit.layer.in * n;
  T* noise = unit.planes[0];
  T least = static_cast<T>(unit.layer.eps), width = static_cast<T>(unit.layer.omega) - least;
  if (unit.layer.option) {
    least = 1;
    width = inverse_deviation(x, count);
  }
  const Vec<T> low = splat<Vec<T>>(least);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    store<T>(noise + k, low + load<T>(noise + k, lanes) * width, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
