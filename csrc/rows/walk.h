// A layer's forward and backward over a block of rows, for every device. A matrix of values is
// (features, rows): the rows lie along a CPU's vectors and a GPU's threads.
//
// The mathematics of the layers is that of formulas.h and factors.h. What walks over the numbers is
// the including file's team.h or team.cuh; its loops and sums end with all their results in place.
// `own`, a layer's parameters, and `gradients` are pointers, or what has a pointer for each offset at
// which a parameter begins.
#pragma once

#include "inalu.h"
#include "lay_out.h"
#include "logs.h"
#include "nalu.h"
#include "npu.h"
#include "nru.h"
#include "rectify.h"
#include "snmu.h"
#include "unit.h"
#include "weights.h"

#include "../factors.h"

namespace nalu {
namespace NALU_NAMESPACE {

// What the layer's parameters come to, before any row. `training` chooses between two forms where a
// layer has one for training.
template <class T, class Own>
NALU_DEVICE void prepare(const Unit<T>& unit, Own own, bool training) {
  const StackLayer& layer = unit.layer;
  const int64_t count = layer.out * layer.in;
  const T scale = static_cast<T>(layer.scale);
  for (int w = 0; w < unit.weight_count; ++w) {
    const Transformed<T> weight = unit.weights[w];
    if (layer.kind == Kind::nau) {
      clamp_weight<T>(count, own + 0, weight);
    } else if (layer.kind == Kind::nru) {
      power_part<T>(count, layer.option && training, own + 0, weight);
    } else if (layer.squashed()) {
      squash_weight<T>(count, own + 0, weight);
    } else {
      transform_pair<T>(count, scale, own + weight.at, own + (weight.at + count), weight);
    }
  }
  if (unit.gates != nullptr) {
    scale_all<T>(layer.gates * layer.in, scale, own + 2 * count, unit.gates);
  }
}

// From the gradients of the matrices to those of the parameters, after all rows.
template <class T, class Gradients>
NALU_DEVICE void finish(const Unit<T>& unit, Gradients gradients) {
  const StackLayer& layer = unit.layer;
  const int64_t count = layer.out * layer.in;
  const T scale = static_cast<T>(layer.scale);
  for (int w = 0; w < unit.weight_count; ++w) {
    const Transformed<T> weight = unit.weights[w];
    if (layer.kind == Kind::nau) {
      clamp_weight_gradient<T>(count, weight, gradients + 0);
    } else if (layer.squashed()) {
      squash_weight_gradient<T>(count, weight, gradients + 0);
    } else if (layer.kind != Kind::nru) {
      transform_pair_gradient<T>(
          count, scale, weight, gradients + weight.at, gradients + (weight.at + count));
    }
  }
  if (unit.gates != nullptr) {
    scale_all<T>(layer.gates * layer.in, scale, unit.grad_gates, gradients + 2 * count);
  }
}

// Before a backward that adds up what is not among the gradients themselves.
template <class T>
NALU_DEVICE void clear_sums(const Unit<T>& unit) {
  for (int p = 0; p < unit.product_count; ++p) {
    const Product<T> product = unit.products[p];
    if (product.grad_A != nullptr) {
      clear(product.grad_A, product.rows * product.columns);
    }
  }
}

// f(the factor of a reduction of the layer's), given the input x.
template <class T, class Own, class F>
NALU_DEVICE void with_factor(
    const Unit<T>& unit,
    const Reduced<T>& reduced,
    Own own,
    const T* x,
    bool training,
    const F& f) {
  const T* W = reduced.W != nullptr ? reduced.W : own + 0;
  const T* of = reduced.plane == 0 ? x : unit.planes[reduced.plane - 1];
  switch (reduced.kind) {
    case Reduction::selecting:
      if (unit.layer.kind == Kind::nmru) {
        f(SelectingFactor<T, true>{W, of});
      } else {
        f(SelectingFactor<T, false>{W, of});
      }
      break;
    case Reduction::noisy:
      if (training) {
        f(NoisyFactor<T>{W, x, unit.planes[0]});
      } else {
        f(SelectingFactor<T, false>{W, x});
      }
      break;
    case Reduction::sign:
      f(SignFactor<T>{W, of});
      break;
    case Reduction::power:
      f(PowerFactor<T>{W, unit.weights[0].t, unit.weights[0].s, x, unit.planes[0]});
      break;
  }
}

// The planes that are made of x.
template <class T, class Own>
NALU_DEVICE void make_planes(const Unit<T>& unit, Own own, const T* x, bool training, int64_t n) {
  const StackLayer& layer = unit.layer;
  switch (layer.kind) {
    case Kind::nac_log_space:
    case Kind::nalu:
      take_logs(layer, x, layer.in * n, unit.planes[0]);
      break;
    case Kind::inalu:
      inalu_planes(unit, x, n);
      break;
    case Kind::npu:
      npu_planes<T>(unit, own + layer.at_gate(), x, n);
      break;
    case Kind::nru:
      nru_planes(unit, x, n);
      break;
    case Kind::nmru:
      nmru_planes(unit, x, training, n);
      break;
    case Kind::snmu:
      if (training) {
        snmu_noise(unit, x, n);
      }
      break;
    default:
      break;
  }
}

// From the products to the layer's output.
template <class T, class Own>
NALU_DEVICE void join(const Unit<T>& unit, Own own, const T* x, int64_t n) {
  const StackLayer& layer = unit.layer;
  const int64_t out = layer.out, size = out * layer.in;
  switch (layer.kind) {
    case Kind::nac_log_space:
      for_each_vector_of_matrix<T>(out * n, [&](int64_t k, auto lanes) {
        store<T>(unit.y + k, exp(load<T>(unit.y + k, lanes)), lanes);
      });
      break;
    case Kind::nalu:
      gate(unit, layer.bias ? own + (2 * size + layer.gates * layer.in) : nullptr, n);
      break;
    case Kind::linear:
      if (layer.bias) {
        const T* bias = own + size;
        for_each_vector_of_rows<T>(out, n, [&](int64_t o, int64_t k, auto lanes) {
          T* y = unit.y + o * n + k;
          store<T>(y, load<T>(y, lanes) + bias[o], lanes);
        });
      }
      break;
    case Kind::relu:
    case Kind::relu6:
      rectify(x, out * n, layer.kind == Kind::relu6, unit.y);
      break;
    case Kind::inalu:
      inalu_join(unit, layer.gates == 0 ? own + layer.at_gate() : nullptr, n);
      break;
    case Kind::npu:
      npu_join(unit, n);
      break;
    case Kind::nmru:
      nmru_join(unit, n);
      break;
    default:
      break;
  }
}

// From the gradient of the layer's output to those of the products, and of a bias; of a layer without
// products, to that of x.
template <class T, class Own, class Gradients>
NALU_DEVICE void part(
    const Unit<T>& unit, Own own, const T* x, const T* dy, Gradients gradients, int64_t n) {
  const StackLayer& layer = unit.layer;
  const int64_t out = layer.out, size = out * layer.in, gates = layer.gates;
  switch (layer.kind) {
    case Kind::nac_log_space:
      for_each_vector_of_matrix<T>(out * n, [&](int64_t k, auto lanes) {
        store<T>(unit.grad_l + k, load<T>(dy + k, lanes) * load<T>(unit.y + k, lanes), lanes);
      });
      break;
    case Kind::nalu:
      gate_gradient(unit, dy, n);
      if (layer.bias) {
        T* const of_bias = gradients + (2 * size + gates * layer.in);
        add_row_sums<T>(gates, n, unit.grad_sums + out * n, of_bias);
      }
      break;
    case Kind::linear:
      if (layer.bias) {
        add_row_sums<T>(out, n, dy, gradients + size);
      }
      break;
    case Kind::relu:
    case Kind::relu6:
      if (unit.grad_x != nullptr) {
        rectify_gradient(x, dy, out * n, layer.kind == Kind::relu6, unit.grad_x);
      }
      break;
    case Kind::inalu: {
      const int64_t at = layer.at_gate();
      inalu_part(unit, gates == 0 ? own + at : nullptr, dy, gradients + at, n);
      break;
    }
    case Kind::npu:
      npu_part(unit, dy, n);
      break;
    case Kind::nmru:
      nmru_part(unit, dy, n);
      break;
    default:
      break;
  }
}

// From the planes' gradients to that of x, to which is added what it has.
template <class T, class Own, class Gradients>
NALU_DEVICE void through_planes(
    const Unit<T>& unit, Own own, const T* x, Gradients gradients, int64_t n) {
  const StackLayer& layer = unit.layer;
  if (layer.kind == Kind::npu) {
    const int64_t at = layer.at_gate();
    npu_through<T>(unit, own + at, x, gradients + at, n);
  } else if (unit.grad_x != nullptr) {
    switch (layer.kind) {
      case Kind::nac_log_space:
      case Kind::nalu: {
        const bool add = layer.kind == Kind::nalu;
        through_logs(layer, x, layer.in * n, unit.planes[0], add, unit.grad_x);
        break;
      }
      case Kind::inalu:
        inalu_through(unit, x, n);
        break;
      case Kind::nmru:
        nmru_through(unit, x, n);
        break;
      default:
        break;
    }
  }
}

// unit.y (out, n). `logs` are those of x where the layer begins with them; null: not yet taken.
template <class T, class Own>
NALU_DEVICE void forward(
    const Unit<T>& unit, Own own, const T* x, const T* logs, bool training, int64_t n) {
  if (logs == nullptr) {
    make_planes(unit, own, x, training, n);
  }
  for (int p = 0; p < unit.product_count; ++p) {
    const Product<T> product = unit.products[p];
    const T* A = product.A != nullptr ? product.A : own + product.at;
    const T* of = product.plane == 0 ? x : (logs != nullptr ? logs : unit.planes[product.plane - 1]);
    apply<T>(product.rows, product.columns, n, A, of, product.y, product.add);
  }
  for (int r = 0; r < unit.reduced_count; ++r) {
    const Reduced<T> reduced = unit.reduced[r];
    with_factor(unit, reduced, own, x, training, [&](const auto& factor) {
      reduce<T>(unit.layer.out, reduced.columns, n, factor, reduced.y);
    });
  }
  join(unit, own, x, n);
}

// From dy (out, n), for the rows x of the last forward, which made the planes: adds to the gradients
// and to the sums of matrices, and leaves that of x in unit.grad_x.
template <class T, class Own, class Gradients>
NALU_DEVICE void backward(
    const Unit<T>& unit, Own own, const T* x, const T* dy, Gradients gradients, int64_t n) {
  part(unit, own, x, dy, gradients, n);
  for (int p = 0; p < unit.product_count; ++p) {
    const Product<T> product = unit.products[p];
    const T* of = product.plane == 0 ? x : unit.planes[product.plane - 1];
    const T* grad = product.grad_y != nullptr ? product.grad_y : dy;
    T* grad_A = product.grad_A != nullptr ? product.grad_A : gradients + product.at;
    dots<T>(product.rows, product.columns, n, grad, of, grad_A);
  }
  for (int r = 0; r < unit.reduced_count; ++r) {
    const Reduced<T> reduced = unit.reduced[r];
    T* grad_W = reduced.grad_W != nullptr ? reduced.grad_W : gradients + 0;
    T* to = unit.grad_plane != nullptr ? unit.grad_plane : unit.grad_x;
    const T* grad = reduced.grad_y != nullptr ? reduced.grad_y : dy;
    with_factor(unit, reduced, own, x, true, [&](const auto& factor) {
      reduce_gradient<T>(
          unit.layer.out, reduced.columns, n, factor, grad, grad_W, to, false, unit.scratch);
    });
  }
  for (int p = 0; p < unit.product_count; ++p) {
    const Product<T> product = unit.products[p];
    T* to = product.plane == 0 ? unit.grad_x : unit.planes[product.plane - 1];
    const bool of_x_only = unit.layer.kind != Kind::npu; // whose gate has its gradient from the planes
    if (!product.passes || (of_x_only && unit.grad_x == nullptr)) {
      continue;
    }
    const T* A = product.A != nullptr ? product.A : own + product.at;
    const T* grad = product.grad_y != nullptr ? product.grad_y : dy;
    apply_transposed<T>(product.rows, product.columns, n, A, grad, to, product.adds);
  }
  through_planes(unit, own, x, gradients, n);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
