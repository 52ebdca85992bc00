// Memory for a layer, and what in it is made of what.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

// For blocks of up to `n` rows. `own` is memory for what depends on the parameters alone, `rows` for
// what is a block's, `kept` for what a backward needs of the forward's and does not make again.
template <class T>
class LayOut {
 public:
  NALU_BOTH LayOut(Unit<T>& unit, int64_t n, Arena<T>& own, Arena<T>& rows, Arena<T>& kept)
      : unit_(unit),
        layer_(unit.layer),
        n_(n),
        in_(layer_.in),
        out_(layer_.out),
        size_(in_ * out_),
        own_(own),
        rows_(rows),
        kept_(kept) {
    unit.y = rows.take(out_ * n);
    switch (layer_.kind) {
      case Kind::linear:
        multiply(0, out_, in_, nullptr, 0, nullptr, unit.y, nullptr);
        break;
      case Kind::relu:
      case Kind::relu6:
        break;
      case Kind::nac:
      case Kind::nac_log_space:
        nac();
        break;
      case Kind::nalu:
        nalu();
        break;
      case Kind::nau: {
        const Transformed<T>& weight = weigh(0, own_.take(size_), own_.take(size_));
        multiply(0, out_, in_, weight.W, 0, weight.grad_W, unit.y, nullptr);
        break;
      }
      case Kind::nmu:
        reduce(Reduction::selecting, 0, in_, nullptr, nullptr, unit.y, nullptr);
        break;
      case Kind::snmu:
        plane(0, in_); // of the noise
        reduce(Reduction::noisy, 0, in_, nullptr, nullptr, unit.y, nullptr);
        break;
      case Kind::inalu:
        inalu();
        break;
      case Kind::npu:
        npu();
        break;
      case Kind::nru: {
        plane(0, in_);
        weigh(0, nullptr, nullptr);
        reduce(Reduction::power, 0, in_, nullptr, nullptr, unit.y, nullptr);
        break;
      }
      case Kind::nmru:
        plane(0, 2 * in_);
        plane(1, 2 * in_);
        unit.grad_plane = rows_.take(2 * in_ * n_);
        unit.m = kept_.take(out_ * n_);
        unit.angles = kept_.take(out_ * n_);
        unit.grad_l = rows_.take(out_ * n_);
        unit.grad_angles = rows_.take(out_ * n_);
        reduce(Reduction::selecting, 1, 2 * in_, nullptr, nullptr, unit.m, unit.grad_l);
        multiply(2, out_, 2 * in_, nullptr, 0, nullptr, unit.angles, unit.grad_angles);
        unit.products[0].passes = false;
        break;
    }
  }

 private:
  NALU_BOTH void plane(int i, int64_t columns) {
    unit_.planes[i] = rows_.take(columns * n_);
  }

  NALU_BOTH Transformed<T>& weigh(int64_t at, T* W, T* grad_W) {
    return unit_.weights[unit_.weight_count++] = {
               at, own_.take(size_), own_.take(size_), W, grad_W, nullptr};
  }

  NALU_BOTH void multiply(
      int plane,
      int64_t rows,
      int64_t columns,
      const T* A,
      int64_t at,
      T* grad_A,
      T* y,
      const T* grad_y,
      bool add = false) {
    bool adds = false;
    for (int p = 0; p < unit_.product_count; ++p) {
      adds = adds || unit_.products[p].plane == plane;
    }
    unit_.products[unit_.product_count++] = {
        plane, rows, columns, A, at, grad_A, y, grad_y, add, true, adds};
  }

  NALU_BOTH void reduce(
      Reduction kind,
      int plane,
      int64_t columns,
      const T* W,
      T* grad_W,
      T* y,
      const T* grad_y) {
    if (unit_.reduced_count == 0) {
      unit_.scratch = rows_.take(reduction_scratch<T>(columns, n_));
    }
    unit_.reduced[unit_.reduced_count++] = {kind, plane, columns, W, grad_W, y, grad_y};
  }

  NALU_BOTH void nac() {
    T *W = nullptr, *grad_W = nullptr; // the parameter itself
    if (!layer_.modified) {
      W = own_.take(size_);
      grad_W = own_.take(size_);
      weigh(0, W, grad_W);
    }
    if (layer_.kind == Kind::nac) {
      multiply(0, out_, in_, W, 0, grad_W, unit_.y, nullptr);
      return;
    }
    plane(0, in_);
    unit_.grad_l = rows_.take(out_ * n_);
    multiply(1, out_, in_, W, 0, grad_W, unit_.y, unit_.grad_l);
  }

  NALU_BOTH void nalu() {
    const int64_t gates = layer_.gates, all = (out_ + gates) * in_;
    T *A = own_.take(all), *grad_A = own_.take(all);
    Transformed<T>& weight = weigh(0, A, grad_A);
    unit_.gates = A + size_;
    unit_.grad_gates = grad_A + size_;
    plane(0, in_);
    unit_.grad_l = rows_.take(out_ * n_);
    unit_.sums = rows_.take((out_ + gates) * n_);
    unit_.grad_sums = rows_.take((out_ + gates) * n_);
    unit_.m = rows_.take(out_ * n_);
    T* grad_A_mul = own_.take(size_);
    const T* A_mul = A;
    if (layer_.untied) {
      const int64_t at = 2 * size_ + gates * in_ + (layer_.bias ? gates : 0);
      A_mul = weigh(at, own_.take(size_), grad_A_mul).W;
    } else {
      weight.grad_W_too = grad_A_mul;
    }
    multiply(0, out_ + gates, in_, A, 0, grad_A, unit_.sums, unit_.grad_sums);
    multiply(1, out_, in_, A_mul, 0, grad_A_mul, unit_.m, unit_.grad_l);
  }

  NALU_BOTH void inalu() {
    const int64_t gates = layer_.gates, gate_size = gates > 0 ? gates * in_ : out_;
    Transformed<T>& weight = weigh(0, own_.take(size_), own_.take(size_));
    T *A_mul = weight.W, *grad_A_mul = own_.take(size_);
    if (layer_.untied) {
      A_mul = weigh(2 * size_ + gate_size, own_.take(size_), grad_A_mul).W;
    } else {
      weight.grad_W_too = grad_A_mul;
    }
    plane(0, in_);
    unit_.angles = kept_.take(out_ * n_); // a
    unit_.m = kept_.take(out_ * n_);
    unit_.signs = kept_.take(out_ * n_);
    unit_.grad_angles = rows_.take(out_ * n_);
    unit_.grad_l = rows_.take(out_ * n_);
    unit_.grad_signs = rows_.take(out_ * n_);
    unit_.sums = kept_.take(gates * n_);
    unit_.grad_sums = rows_.take((gates > 0 ? gates : out_) * n_);
    plane(2, in_);
    reduce(Reduction::sign, 3, in_, A_mul, grad_A_mul, unit_.signs, unit_.grad_signs);
    multiply(0, out_, in_, weight.W, 0, weight.grad_W, unit_.angles, unit_.grad_angles);
    multiply(1, out_, in_, A_mul, 0, grad_A_mul, unit_.m, unit_.grad_l);
    if (gates > 0) {
      plane(1, in_);
      multiply(2, gates, in_, nullptr, 2 * size_, nullptr, unit_.sums, unit_.grad_sums);
    }
  }

  NALU_BOTH void npu() {
    plane(0, in_);
    plane(1, in_);
    unit_.m = kept_.take(out_ * n_);
    unit_.angles = kept_.take(out_ * n_);
    unit_.grad_l = rows_.take(out_ * n_);
    unit_.grad_angles = rows_.take(out_ * n_);
    const int64_t imaginary = size_ + in_;
    multiply(1, out_, in_, nullptr, 0, nullptr, unit_.m, unit_.grad_l);
    multiply(2, out_, in_, nullptr, 0, nullptr, unit_.angles, unit_.grad_angles);
    if (layer_.untied) {
      plane(2, in_);
      multiply(3, out_, in_, nullptr, imaginary, nullptr, unit_.m, unit_.grad_l, true);
      multiply(1, out_, in_, nullptr, imaginary, nullptr, unit_.angles, unit_.grad_angles, true);
    }
  }

  Unit<T>& unit_;
  const StackLayer& layer_;
  const int64_t n_, in_, out_, size_;
  Arena<T>&own_, &rows_, &kept_;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
