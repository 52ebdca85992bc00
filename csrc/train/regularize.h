// What a training adds to the loss, as a gradient, and where it keeps the parameters after a step.
//
// Sources: Madsen and Johansen 2020, "Neural Arithmetic Units", equations 7 and 10; Mistry, Farrahi and
// Hare 2022, "Exploring the Learning Mechanisms of Neural Division Modules"; Schlör, Ring and Hotho
// 2020, "iNALU", section 3.3; Heim, Pevny and Smidl 2020, "Neural Power Units", section 4.
#pragma once

#include "../rows/stack.h"

namespace nalu {
namespace NALU_NAMESPACE {

// d min(|w|, |1 - v|) / dw, of v = |w| or, unsigned, w itself; as torch has it: 0 for |0|, and half of
// both where they are the same.
template <class V>
NALU_INLINE V grad_sparsity(V w, bool is_signed) {
  const V one = splat<V>(1), half = splat<V>(0.5f), s = sign(w);
  const V v = is_signed ? abs(w) : w, size = abs(w), rest = abs(one - v);
  const V of_rest = -(sign(one - v) * (is_signed ? s : one));
  return size < rest ? s : (size > rest ? of_rest : (s + of_rest) * half);
}

// gradients[k] += factor slope(parameters[k])
template <class T, class F>
NALU_DEVICE void add_slopes(
    int64_t count, T factor, const T* parameters, T* gradients, const F& slope) {
  for_each_vector<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> grad = slope(load<T>(parameters + k, lanes)) * factor;
    store<T>(gradients + k, load<T>(gradients + k, lanes) + grad, lanes);
  });
}

// Adds `weight` times the gradient of the sum of |parameter|.
template <class T>
NALU_DEVICE void add_l1(int64_t count, T weight, const T* parameters, T* gradients) {
  add_slopes(count, weight, parameters, gradients, [](auto v) { return sign(v); });
}

// Adds `weight` times the gradient of the saturation of a NAC, a NALU or an iNALU: the mean over each
// parameter of what it lacks of 20 in size.
template <class T>
NALU_DEVICE void saturate(const StackLayer& layer, T weight, const T* parameters, T* gradients) {
  const Vec<T> most = splat<Vec<T>>(20), zero{};
  const int64_t size = layer.in * layer.out, of_gate = layer.gate_parameters();
  const int64_t bias = layer.bias ? layer.gates : 0, gate = of_gate > 0 ? layer.at_gate() : -1;
  const auto outward = [=](auto v) { return abs(v) < most ? -sign(v) : zero; };
  for (int64_t at = 0; at < layer.parameters();) {
    const int64_t n = at == gate ? of_gate - bias : at == gate + of_gate - bias && bias > 0 ? bias : size;
    add_slopes(n, weight / static_cast<T>(n), parameters + at, gradients + at, outward);
    at += n;
  }
}

// Adds `weight` times the gradient of the layer's regularizer.
template <class T>
NALU_DEVICE void regularize(const StackLayer& layer, T weight, const T* parameters, T* gradients) {
  const int64_t size = layer.in * layer.out, count = layer.parameters();
  switch (layer.kind) {
    case Kind::nac_log_space:
      if (!layer.modified) {
        break;
      }
      [[fallthrough]];
    case Kind::nau:
    case Kind::nru:
    case Kind::nmu:
    case Kind::snmu:
    case Kind::nmru: {
      const bool is_signed = layer.kind == Kind::nau || layer.kind == Kind::nru;
      const T factor = weight / static_cast<T>(count);
      add_slopes(count, factor, parameters, gradients, [=](auto w) {
        return grad_sparsity(w, is_signed);
      });
      break;
    }
    case Kind::inalu:
      saturate(layer, weight, parameters, gradients);
      break;
    case Kind::npu: {
      if (!layer.modified) {
        break;
      }
      // The gate's distance from 0 and 1, and the weights' from -1 and 1: inputs that do not matter are
      // to be gated off. Of imaginary weights the sum of their sizes.
      const T of_W = weight / static_cast<T>(size), of_g = weight / static_cast<T>(layer.in);
      const Vec<T> one = splat<Vec<T>>(1);
      add_slopes(size, of_W, parameters, gradients, [=](auto w) {
        return -(sign(one - abs(w)) * sign(w));
      });
      add_slopes(layer.in, of_g, parameters + size, gradients + size, [](auto g) {
        return grad_sparsity(g, false);
      });
      const int64_t imaginary = size + layer.in;
      add_l1(count - imaginary, weight, parameters + imaginary, gradients + imaginary);
      break;
    }
    default:
      break;
  }
}

template <class T>
NALU_DEVICE void keep_between(T low, T high, int64_t count, T* values) {
  const Vec<T> least = splat<Vec<T>>(low), most = splat<Vec<T>>(high);
  for_each_vector<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(values + k, lanes);
    store<T>(values + k, v < least ? least : (v > most ? most : v), lanes); // a NaN stays
  });
}

// Where the layer's publications keep its parameters after a step.
template <class T>
NALU_DEVICE void keep_within(const StackLayer& layer, T* parameters) {
  const int64_t size = layer.in * layer.out;
  switch (layer.kind) {
    case Kind::nau:
    case Kind::nru:
      keep_between(T(-1), T(1), size, parameters);
      break;
    case Kind::nac_log_space:
      if (!layer.modified) {
        break;
      }
      [[fallthrough]];
    case Kind::nmu:
    case Kind::snmu:
    case Kind::nmru:
      keep_between(T(0), T(1), layer.parameters(), parameters);
      break;
    case Kind::npu:
      if (layer.modified) {
        keep_between(T(-1), T(1), size, parameters);
        keep_between(T(0), T(1), layer.in, parameters + size);
      }
      break;
    default:
      break;
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
