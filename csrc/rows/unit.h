// A layer as the rows of a batch go through it: weights that are transformed, planes that are made of
// the input, matrix products, a product over the inputs, and what joins them.
#pragma once

#include "../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

// W of a layer, and what its backward needs: tanh(W_hat) sigmoid(M_hat), with t and s;
// sigmoid(W_hat); the part that a power takes, with its slope s; or W within [-1, 1], with the
// parameter, t.
template <class T>
struct Transformed {
  int64_t at; // of W_hat and, behind it, M_hat, among the layer's parameters
  T *t, *s, *W;
  T *grad_W, *grad_W_too; // null: only one product has W
};

// y (rows, n) = A p, for A (rows, columns) and a plane p (columns, n).
template <class T>
struct Product {
  int plane; // 0: x, else of the unit's planes, counted from 1
  int64_t rows, columns;
  const T* A; // null: the layer's parameter `at`, whose gradient grad_A is then
  int64_t at;
  T *grad_A, *y;
  const T* grad_y; // null: the gradient of the layer's output
  bool add; // to what y has
  bool passes, adds; // a gradient on to the plane; to what it has of a product before
};

enum class Reduction { selecting, noisy, sign, power };

// y (out, n), a product over a plane's rows.
template <class T>
struct Reduced {
  Reduction kind;
  int plane;
  int64_t columns;
  const T* W; // null: the layer's first parameter, whose gradient grad_W is then
  T *grad_W, *y;
  const T* grad_y;
};

// With all that it keeps, of its parameters for a step and of a block of rows for its backward.
template <class T>
struct alignas(16) Unit {
  StackLayer layer;
  int64_t at; // of its parameters and of their gradients
  int weight_count, product_count, reduced_count;
  Transformed<T> weights[2];
  Product<T> products[4];
  Reduced<T> reduced[2];
  T *gates, *grad_gates; // (gates, in), below W in the same matrix
  // Made of x: log |x| and the like. Their gradients take their place, but that of the first where the
  // reduction is over it.
  T *planes[3], *grad_plane;
  T *grad_x; // null: not wanted
  // (out + gates, n): a and z, and their gradients. (out, n): l, then m; the gradient of l; y.
  T *sums, *grad_sums, *m, *grad_l, *y;
  T *signs, *grad_signs, *angles, *grad_angles; // (out, n)
  T* scratch; // of the reduction
};

} // namespace NALU_NAMESPACE
} // namespace nalu
