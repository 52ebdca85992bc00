// A step of an optimizer, with the numbers that torch.optim's of the same name has.
#pragma once

#include "../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

// torch.nn.utils.clip_grad_value_, then clip_grad_norm_.
template <class T>
NALU_DEVICE inline void clip(const Hyper& hyper, int64_t count, T* gradients) {
  if (hyper.clip_value < std::numeric_limits<double>::infinity()) {
    const auto most = static_cast<T>(hyper.clip_value);
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> high = splat<Vec<T>>(most), low = splat<Vec<T>>(-most);
      Vec<T> g = load<T>(gradients + k, lanes);
      g = g > high ? high : g;
      g = g < low ? low : g;
      store<T>(gradients + k, g, lanes);
    });
  }
  if (hyper.clip_norm < std::numeric_limits<double>::infinity()) {
    const T norm = std::sqrt(sum_of_squares(gradients, count));
    const T ratio = static_cast<T>(hyper.clip_norm) / (norm + static_cast<T>(1e-6));
    const T factor = ratio > 1 ? T(1) : ratio; // a NaN stays one
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      store<T>(gradients + k, load<T>(gradients + k, lanes) * factor, lanes);
    });
  }
}

// What all steps of a run have in common.
struct Rule {
  Optimizer optimizer;
  const Hyper& hyper;
  double log_beta1, log_beta2;

  NALU_DEVICE Rule(Optimizer which, const Hyper& of_run)
      : optimizer(which),
        hyper(of_run),
        log_beta1(std::log(of_run.beta1)),
        log_beta2(std::log(of_run.beta2)) {}

  // 1 - beta^step, which is 1 from where beta^step is below a double's last digit.
  NALU_DEVICE static double correction(double beta, double log_beta, double step) {
    return step * log_beta < -45 ? 1.0 : 1.0 - std::pow(beta, step);
  }
};

// Which parameters step number `step` changes.
enum class Turn { all, weights, gates };

NALU_DEVICE inline Turn turn_of(const Hyper& hyper, int64_t step) {
  const auto weights = static_cast<int64_t>(hyper.weight_steps);
  const auto gates = static_cast<int64_t>(hyper.gate_steps);
  if (weights + gates == 0) {
    return Turn::all;
  }
  return step % (weights + gates) < weights ? Turn::weights : Turn::gates;
}

// The update number `step`, counted from 1; steps at which these parameters rest count too. `first` and
// `second` are the two moments. It stays apart: within a kernel for all layers its powers would cost
// each of them registers.
template <class T>
NALU_APART inline void update(
    const Rule& rule,
    int64_t step,
    int64_t count,
    T* parameters,
    const T* gradients,
    T* first,
    T* second) {
  const Hyper& hyper = rule.hyper;
  const auto decay = static_cast<T>(hyper.weight_decay);
  const auto momentum = static_cast<T>(hyper.momentum), eps = static_cast<T>(hyper.eps);
  const auto with_gradient = [&](const auto& apply) {
    for_each_of_many_vectors<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> p = load<T>(parameters + k, lanes);
      Vec<T> g = load<T>(gradients + k, lanes);
      g = decay != 0 ? g + p * decay : g;
      store<T>(parameters + k, apply(k, lanes, p, g), lanes);
    });
  };
  if (rule.optimizer == Optimizer::adam) {
    const auto number = static_cast<double>(step);
    const double correction1 = Rule::correction(hyper.beta1, rule.log_beta1, number);
    const double correction2 = Rule::correction(hyper.beta2, rule.log_beta2, number);
    const auto weight = static_cast<T>(1 - hyper.beta1), beta2 = static_cast<T>(hyper.beta2);
    const auto rest = static_cast<T>(1 - hyper.beta2);
    const auto size = static_cast<T>(-hyper.lr / correction1);
    const auto root = static_cast<T>(std::sqrt(correction2));
    with_gradient([&](int64_t k, auto lanes, Vec<T> p, Vec<T> g) {
      Vec<T> m = load<T>(first + k, lanes), v = load<T>(second + k, lanes);
      m = m + weight * (g - m);
      v = v * beta2 + (g * g) * rest;
      store<T>(first + k, m, lanes);
      store<T>(second + k, v, lanes);
      return p + (size * m) / (square_root(v) / root + eps);
    });
  } else if (rule.optimizer == Optimizer::rmsprop) {
    const auto alpha = static_cast<T>(hyper.beta2), rest = static_cast<T>(1 - hyper.beta2);
    const auto rate = static_cast<T>(-hyper.lr);
    with_gradient([&](int64_t k, auto lanes, Vec<T> p, Vec<T> g) {
      const Vec<T> v = load<T>(second + k, lanes) * alpha + (g * g) * rest;
      store<T>(second + k, v, lanes);
      const Vec<T> size = square_root(v) + eps;
      if (momentum == 0) {
        return p + (rate * g) / size;
      }
      const Vec<T> m = load<T>(first + k, lanes) * momentum + g / size;
      store<T>(first + k, m, lanes);
      return p + rate * m;
    });
  } else {
    const auto rate = static_cast<T>(-hyper.lr);
    with_gradient([&](int64_t k, auto lanes, Vec<T> p, Vec<T> g) {
      if (momentum == 0) {
        return p + rate * g;
      }
      const Vec<T> m = step == 1 ? g : load<T>(first + k, lanes) * momentum + g;
      store<T>(first + k, m, lanes);
      return p + rate * m;
    });
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
