// The logarithms that a log-space path begins with, and their gradients.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// log(|x| + eps)
template <class T>
NALU_DEVICE void take_logs(const StackLayer& layer, const T* x, int64_t count, T* logs) {
  with_normal(static_cast<T>(layer.eps), [&](auto normal) {
    const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
    for_each_of_many_vectors<T>(count, [&](int64_t k, auto lanes) {
      store<T>(logs + k, log_abs<decltype(normal)::value>(load<T>(x + k, lanes), eps), lanes);
    });
  });
}

// The gradient of log(|x| + eps) becomes that of x, or is added to it.
template <class T>
NALU_DEVICE void through_logs(
    const StackLayer& layer, const T* x, int64_t count, const T* grad, bool add, T* grad_x) {
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(layer.eps));
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> of_x = grad_log_abs(load<T>(grad + k, lanes), load<T>(x + k, lanes), eps);
    store<T>(grad_x + k, add ? load<T>(grad_x + k, lanes) + of_x : of_x, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
