// Large layers: matrix products by BLAS, everything between them in fused passes. Which there are,
// and in which order, stands here, once for every device.
//
// A device's Passes are those of one layer. They have
//   Number: the compute type
//   same: whether that is the storage type too
//   scratch(n): uninitialised memory for n Numbers, which lives as long as what is returned and
//     whose get() is null for none
//   readable(rows, count, cols): whether matmul can read these rows where they lie
//   matmul(C, A, B, accumulate, product): C (rows, cols, contiguous) = or += A B
//   prepare(operands): fills them
//   put_bias(z): whether z holds the gate's bias now, for its product to be added to
//   gate_in_place(): whether z may lie where g will
//   outputs(a, l, z, g, output): y; where they are saved, l becomes m where it lies, and g is set
//   factors(backward, da, dl, dz): da, dl and dz from dy, each where it is not null
//   input_gradient(through_sum, through_log, dx): dx from either or both
//   weight_gradients(dW, dW_mul, dG, dz, grads): the parameters', from those of W, W_mul and G,
//     each where it is not null, and from z's the bias's where it is wanted
#pragma once

#include "layer.h"
#include "matrix.h"

namespace nalu {

// Which of a layer's products one is.
enum class Product { linear, gate, log_space };

// The products' operands that are not there already; each null where not wanted.
template <class T>
struct Operands {
  T *x, *L, *W, *W_mul, *G;
};

template <class Passes>
inline void forward_large(
    const Passes& passes, const Layer& layer, void* output, const Saved& saved) {
  using T = typename Passes::Number;
  const auto [B, I, O, gates] = layer.shape;
  const bool linear = layer.linear, log_space = layer.log_space, gated = layer.gated();
  const bool untied = layer.untied(), keep = saved.a != nullptr;
  const bool W_is_there = Passes::same && layer.M_hat == nullptr && !layer.clamped;
  const bool W_mul_is_there = Passes::same && layer.M_hat_mul == nullptr;
  const bool read_x = linear && !passes.readable(layer.input, B, I);

  const auto W_made = passes.scratch(W_is_there ? 0 : O * I);
  const auto W_mul_made = passes.scratch(untied && !W_mul_is_there ? O * I : 0);
  const auto L = passes.scratch(log_space ? B * I : 0);
  const auto x_copy = passes.scratch(read_x ? B * I : 0);
  const auto G_copy = passes.scratch(gated && !Passes::same ? gates * I : 0);
  passes.prepare({x_copy.get(), L.get(), W_made.get(), W_mul_made.get(), G_copy.get()});

  // Without a gate the product goes straight to the output.
  const bool direct = Passes::same && !gated, own = !keep && !direct;
  const bool z_is_g = keep && passes.gate_in_place();
  const auto a_own = passes.scratch(linear && own ? B * O : 0);
  const auto l_own = passes.scratch(log_space && own ? B * O : 0);
  const auto z_own = passes.scratch(z_is_g ? 0 : B * gates);
  T* a = static_cast<T*>(keep ? saved.a : direct ? output : a_own.get());
  T* l = static_cast<T*>(keep ? saved.m : direct ? output : l_own.get());
  T* z = static_cast<T*>(z_is_g ? saved.g : z_own.get());

  const Matrix x = matrix_or(x_copy.get(), layer.input, B, I);
  const Matrix W = matrix_or(W_made.get(), dense_rows(layer.W_hat, I), O, I);
  if (linear) {
    passes.matmul(a, x, transposed(W), false, Product::linear);
  }
  if (gated) {
    const Matrix G = matrix_or(G_copy.get(), dense_rows(layer.G, I), gates, I);
    const bool biased = passes.put_bias(z);
    passes.matmul(z, x, transposed(G), biased, Product::gate);
  }
  if (log_space) {
    const Matrix W_mul = matrix_or(W_mul_made.get(), dense_rows(layer.W_hat_mul, I), O, I);
    const Matrix& W_log = untied ? W_mul : W;
    passes.matmul(l, matrix(L.get(), B, I), transposed(W_log), false, Product::log_space);
  }
  if (log_space || !direct) {
    passes.outputs(a, l, z, static_cast<T*>(saved.g), output);
  }
}

template <class Passes>
inline void backward_large(const Passes& passes, const Layer& layer, const Backward& backward) {
  using T = typename Passes::Number;
  const auto [B, I, O, gates] = layer.shape;
  const bool linear = layer.linear, log_space = layer.log_space, gated = layer.gated();
  const bool untied = layer.untied();
  const Gradients& grads = backward.grads;
  const Wanted want(layer, grads);

  // Without a gate da is dy itself.
  const bool read_dy = linear && !passes.readable(backward.grad_output, B, O);
  const auto da = passes.scratch(gated || read_dy ? B * O : 0);
  const auto dl = passes.scratch(log_space ? B * O : 0);
  const auto dz = passes.scratch(B * gates);
  if (da.get() != nullptr || dl.get() != nullptr) {
    passes.factors(backward, da.get(), dl.get(), dz.get());
  }
  const Matrix dA = matrix_or(da.get(), backward.grad_output, B, O);
  const Matrix dL = matrix(dl.get(), B, O), dZ = matrix(dz.get(), B, gates);

  const bool of_x = want.W_linear || want.G, read_x = of_x && !passes.readable(layer.input, B, I);
  const bool of_G = want.input && gated;
  const auto W_made = passes.scratch(want.input ? O * I : 0);
  const auto W_mul_made = passes.scratch(want.input && untied ? O * I : 0);
  const auto L = passes.scratch(want.W_log ? B * I : 0);
  const auto x_copy = passes.scratch(read_x ? B * I : 0);
  const auto G_copy = passes.scratch(of_G && !Passes::same ? gates * I : 0);
  passes.prepare({x_copy.get(), L.get(), W_made.get(), W_mul_made.get(), G_copy.get()});

  if (want.input) {
    const bool direct = Passes::same && !log_space; // the product is the gradient itself
    const auto sum_own = passes.scratch(linear && !direct ? B * I : 0);
    const auto through_log = passes.scratch(log_space ? B * I : 0);
    T* through_sum = static_cast<T*>(direct ? grads.input : sum_own.get());
    const Matrix W = matrix(W_made.get(), O, I);
    if (linear) {
      passes.matmul(through_sum, dA, W, false, Product::linear);
    }
    if (gated) {
      const Matrix G = matrix_or(G_copy.get(), dense_rows(layer.G, I), gates, I);
      passes.matmul(through_sum, dZ, G, true, Product::gate);
    }
    if (log_space) {
      const Matrix W_log = untied ? matrix(W_mul_made.get(), O, I) : W;
      passes.matmul(through_log.get(), dL, W_log, false, Product::log_space);
    }
    if (!direct) {
      passes.input_gradient(through_sum, through_log.get(), grads.input);
    }
  }

  const Matrix x = matrix_or(x_copy.get(), layer.input, B, I);
  const auto dW = passes.scratch(want.W ? O * I : 0);
  const auto dW_mul = passes.scratch(want.W_mul ? O * I : 0);
  const auto dG = passes.scratch(want.G && !Passes::same ? gates * I : 0);
  if (want.W_linear) {
    passes.matmul(dW.get(), transposed(dA), x, false, Product::linear);
  }
  if (want.G) {
    T* to = static_cast<T*>(Passes::same ? grads.G : dG.get());
    passes.matmul(to, transposed(dZ), x, false, Product::gate);
  }
  if (want.W_log) {
    T* to = untied ? dW_mul.get() : dW.get();
    const bool add = linear && !untied;
    passes.matmul(to, transposed(dL), matrix(L.get(), B, I), add, Product::log_space);
  }
  passes.weight_gradients(dW.get(), dW_mul.get(), dG.get(), dz.get(), grads);
}

} // namespace nalu
