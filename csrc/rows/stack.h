// Layers one after the other.
#pragma once

#include "walk.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class T>
class Stack {
 public:
  // For blocks of up to `rows` rows. `units` has room for as many as there are layers.
  NALU_BOTH Stack(const Training& training, int64_t rows, Unit<T>* units, Arena<T>& arena)
      : units_(units), depth_(training.depth) {
    int64_t at = 0;
    for (int64_t i = 0; i < depth_; ++i) {
      Unit<T>& unit = units[i];
      unit = {};
      unit.layer = training.layers[i];
      unit.at = at;
      at += unit.layer.parameters();
      LayOut<T>(unit, rows, arena, arena, arena);
      unit.grad_x = i > 0 ? arena.take(unit.layer.in * rows) : nullptr;
    }
    grad_y_ = arena.take(training.outputs() * rows);
  }

  NALU_INLINE T* grad_y() const {
    return grad_y_;
  }

  // `training`: the form that is trained, where a layer has another one for tests.
  NALU_DEVICE void prepare(const T* parameters, bool training) const {
    for (int64_t i = 0; i < depth_; ++i) {
      NALU_NAMESPACE::prepare(units_[i], parameters + units_[i].at, training);
    }
  }

  // The outputs (out, n). `logs` are those of x where the first layer needs them; null: not yet taken.
  NALU_DEVICE const T* forward(
      const T* parameters, const T* x, const T* logs, bool training, int64_t n) const {
    for (int64_t i = 0; i < depth_; ++i) {
      const Unit<T>& unit = units_[i];
      NALU_NAMESPACE::forward(unit, parameters + unit.at, x, i == 0 ? logs : nullptr, training, n);
      x = unit.y;
    }
    return x;
  }

  NALU_DEVICE void clear_gradients(T* gradients, int64_t parameters) const {
    clear(gradients, parameters);
    for (int64_t i = 0; i < depth_; ++i) {
      clear_sums(units_[i]);
    }
  }

  // From grad_y(), for the rows x of the last forward, which made its own planes; adds to the
  // gradients.
  NALU_DEVICE void backward(const T* parameters, const T* x, T* gradients, int64_t n) const {
    const T* dy = grad_y_;
    for (int64_t i = depth_ - 1; i >= 0; --i) {
      const Unit<T>& unit = units_[i];
      const T* own_x = i > 0 ? units_[i - 1].y : x;
      NALU_NAMESPACE::backward(unit, parameters + unit.at, own_x, dy, gradients + unit.at, n);
      dy = unit.grad_x;
    }
  }

  NALU_DEVICE void finish(T* gradients) const {
    for (int64_t i = 0; i < depth_; ++i) {
      NALU_NAMESPACE::finish(units_[i], gradients + units_[i].at);
    }
  }

  template <class F>
  NALU_DEVICE void for_each_unit(const F& f) const {
    for (int64_t i = 0; i < depth_; ++i) {
      f(units_[i]);
    }
  }

  // f(layer, where its parameters begin), for each.
  template <class F>
  NALU_DEVICE void for_each_layer(const F& f) const {
    for (int64_t i = 0; i < depth_; ++i) {
      f(units_[i].layer, units_[i].at);
    }
  }

 private:
  Unit<T>* units_;
  int64_t depth_;
  T* grad_y_;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
