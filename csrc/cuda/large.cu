// Large layers: matrix products by cuBLAS, everything between them in fused passes.
//
// Forward: operands, products, outputs. Backward: factors, operands, products, input_gradient,
// weight_gradients. Each is a pass that reads what it needs once and writes what it makes once;
// cuBLAS reads the input where it lies, if it can.
#include <algorithm>
#include <iterator>

#include "kernels.h"
#include "launch.cuh"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

// A pass takes several elements a thread, so many blocks apart.
NALU_INLINE int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + static_cast<int64_t>(threadIdx.x);
}
NALU_INLINE int64_t elements_at_once() {
  return static_cast<int64_t>(gridDim.x) * kThreads;
}

// Element i of rows of `cols`, which are dense if `dense`.
template <class S>
NALU_INLINE Compute<S> load_flat(const Rows& rows, int64_t i, int64_t cols, bool dense) {
  return dense ? load<S>(rows.data, i) : load<S>(rows, i / cols, i % cols);
}

bool is_dense(const Rows& rows, int64_t cols) {
  return rows.col_stride == 1 && rows.row_stride == cols;
}

// The products' operands that are not there already; each null where not wanted.
template <class T>
struct Prepared {
  T *x, *L, *W, *W_mul, *G, *ones;
};

template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    operands_kernel(Layer layer, Prepared<Compute<S>> to, bool dense) {
  using T = Compute<S>;
  const int64_t B = layer.shape.B, I = layer.shape.I, step = elements_at_once();
  if (to.x != nullptr || to.L != nullptr) {
    for (int64_t i = first_element(); i < B * I; i += step) {
      const T x = load_flat<S>(layer.input, i, I, dense);
      if (to.x != nullptr) {
        to.x[i] = x;
      }
      if (to.L != nullptr) {
        to.L[i] = log_abs<false>(x, static_cast<T>(layer.eps));
      }
    }
  }
  for (int64_t i = first_element(); i < layer.shape.O * I; i += step) {
    if (to.W != nullptr) {
      to.W[i] = load_weight<S>(layer.W_hat, layer.M_hat, i).value();
    }
    if (to.W_mul != nullptr) {
      to.W_mul[i] = load_weight<S>(layer.W_hat_mul, layer.M_hat_mul, i).value();
    }
  }
  if (to.G != nullptr) {
    for (int64_t i = first_element(); i < layer.shape.gates * I; i += step) {
      to.G[i] = load<S>(layer.G, i);
    }
  }
  if (to.ones != nullptr) {
    for (int64_t i = first_element(); i < B; i += step) {
      to.ones[i] = 1;
    }
  }
}

// y from a, l and z. For the backward l becomes m where it lies, and z goes to g, which is the same
// memory where there is a gate for each output.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>) outputs_kernel(
    Layer layer,
    const Compute<S>* a,
    Compute<S>* l,
    const Compute<S>* z,
    Compute<S>* g_saved,
    void* output) {
  using T = Compute<S>;
  const bool gated = layer.linear && layer.log_space, per_sample = gate_per_sample(layer.shape);
  const int64_t O = layer.shape.O, n = layer.shape.B * O;
  for (int64_t i = first_element(); i < n; i += elements_at_once()) {
    if (!gated) {
      store<S>(output, i, layer.log_space ? exp(l[i]) : a[i]);
      continue;
    }
    // Dividing takes longer than the rest, where nothing hangs on it.
    const bool by_rows = per_sample || layer.gate_bias != nullptr;
    const int64_t row = by_rows ? i / O : 0, col = i - row * O;
    const T bias = layer.gate_bias != nullptr ? load<S>(layer.gate_bias, per_sample ? 0 : col) : T(0);
    const T g = sigmoid(z[per_sample ? row : i] + bias), m = exp(l[i]);
    store<S>(output, i, mix(a[i], m, g));
    if (g_saved != nullptr) {
      l[i] = m;
      if (!per_sample || col == 0) {
        g_saved[per_sample ? row : i] = g;
      }
    }
  }
}

// Threads that share a row of outputs, and the rows of a block.
constexpr int kRowLanes = 32, kBlockRows = kThreads / kRowLanes;

// Where da, dl and dz go, made from dy; each null where there is no such path.
template <class S>
struct FactorsTo {
  using T = Compute<S>;

  const void* output;
  Saved saved;
  T *da, *dl, *dz;

  // Returns dg. `gate` is where in saved.g.
  NALU_INLINE T put(T dy, int64_t at, int64_t gate) const {
    if (da != nullptr && dl != nullptr) {
      const T g = load<T>(saved.g, gate);
      const MixGradient<T> grad(dy, load<T>(saved.a, at), load<T>(saved.m, at), g);
      da[at] = grad.a;
      dl[at] = grad.l;
      return grad.g;
    }
    if (dl != nullptr) {
      dl[at] = dy * load<S>(output, at);
    } else {
      da[at] = dy;
    }
    return T(0);
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    factors_kernel(Layer layer, Rows grad_output, FactorsTo<S> to, bool dense) {
  using T = Compute<S>;
  const int64_t O = layer.shape.O, n = layer.shape.B * O;
  for (int64_t i = first_element(); i < n; i += elements_at_once()) {
    const T dg = to.put(load_flat<S>(grad_output, i, O, dense), i, i);
    if (to.dz != nullptr) {
      to.dz[i] = grad_sigmoid(dg, load<T>(to.saved.g, i));
    }
  }
}

// The same of a gate per sample, whose dz sums over its row: in one order, by the lanes of a row.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    sample_factors_kernel(Layer layer, Rows grad_output, FactorsTo<S> to) {
  using T = Compute<S>;
  __shared__ T parts[kBlockRows][kRowLanes + 1];
  const int64_t B = layer.shape.B, O = layer.shape.O;
  const int lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int place = static_cast<int>(threadIdx.x) / kRowLanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBlockRows;
  for (int64_t row0 = static_cast<int64_t>(blockIdx.x) * kBlockRows; row0 < B; row0 += step) {
    const int64_t row = row0 + place;
    T part = 0;
    for (int64_t col = lane; row < B && col < O; col += kRowLanes) {
      part += to.put(load<S>(grad_output, row, col), row * O + col, row);
    }
    parts[place][lane] = part;
    __syncthreads();
    if (lane == 0 && row < B) {
      T dg = part;
      for (int i = 1; i < kRowLanes; ++i) {
        dg += parts[place][i];
      }
      to.dz[row] = grad_sigmoid(dg, load<T>(to.saved.g, row));
    }
    __syncthreads();
  }
}

// dx from what came through the sums and through the logarithm; either may be null.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>) input_gradient_kernel(
    Layer layer, const Compute<S>* through_sum, const Compute<S>* through_log, void* dx, bool dense) {
  using T = Compute<S>;
  const int64_t I = layer.shape.I, n = layer.shape.B * I;
  for (int64_t i = first_element(); i < n; i += elements_at_once()) {
    T sum = 0;
    if (through_log != nullptr) {
      const T x = load_flat<S>(layer.input, i, I, dense);
      sum = grad_log_abs(through_log[i], x, static_cast<T>(layer.eps));
    }
    store<S>(dx, i, through_sum != nullptr ? sum + through_sum[i] : sum);
  }
}

// The parameters' gradients from those of W, W_mul and, where they are rounded, of G and the bias.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>) weight_gradients_kernel(
    Layer layer,
    const Compute<S>* dW,
    const Compute<S>* dW_mul,
    const Compute<S>* dG,
    const Compute<S>* dbias,
    Gradients grads) {
  const int64_t I = layer.shape.I, gates = layer.shape.gates;
  for (int64_t i = first_element(); i < layer.shape.O * I; i += elements_at_once()) {
    if (dW != nullptr) {
      store_weight_gradients<S>(
          dW[i], layer.W_hat, layer.M_hat, grads.W_hat, grads.M_hat, i);
    }
    if (dW_mul != nullptr) {
      store_weight_gradients<S>(
          dW_mul[i], layer.W_hat_mul, layer.M_hat_mul, grads.W_hat_mul, grads.M_hat_mul, i);
    }
    if (dG != nullptr && i < gates * I) {
      store<S>(grads.G, i, dG[i]);
    }
    if (dbias != nullptr && i < gates) {
      store<S>(grads.gate_bias, i, dbias[i]);
    }
  }
}

// How the products of the linear path are made, and those of the gates. A single gate has too narrow
// a product to gain by less than full precision, and the log-space path takes nothing less: exp
// multiplies its errors.
template <class S>
constexpr Precision kLinear =
    std::is_same_v<S, Compute<S>> ? Precision::setting : Precision::tf32;

template <class S>
Precision gate_precision(const Shape& shape) {
  return shape.gates == 1 ? Precision::full : kLinear<S>;
}

// Rows as a matrix of the compute type: where they lie, or in a copy, still to be filled.
template <class S>
Matrix as_matrix(Call& call, const Rows& from, int64_t rows, int64_t cols, Compute<S>*& copy) {
  using T = Compute<S>;
  const Matrix in_place{from.data, rows, cols, from.row_stride, from.col_stride};
  if (std::is_same_v<S, T> && (has_dense_rows(in_place) || has_dense_rows(transposed(in_place)))) {
    return in_place;
  }
  copy = call.scratch<T>(rows * cols);
  return matrix(copy, rows, cols);
}

template <class S>
void prepare(Call& call, const Layer& layer, const Prepared<Compute<S>>& to) {
  using T = Compute<S>;
  const T* const wanted[] = {to.x, to.L, to.W, to.W_mul, to.G, to.ones};
  if (std::all_of(std::begin(wanted), std::end(wanted), [](const T* p) { return p == nullptr; })) {
    return;
  }
  const Shape& s = layer.shape;
  const int64_t weights = s.O * s.I, inputs = to.x != nullptr || to.L != nullptr ? s.B * s.I : s.B;
  const int64_t most = weights > inputs ? weights : inputs;
  launch(
      call, pass_blocks(most), operands_kernel<S>, layer, to, is_dense(layer.input, layer.shape.I));
}

template <class S>
void forward(Call& call, const Layer& layer, void* output, const Saved& saved) {
  using T = Compute<S>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr, keep = saved.a != nullptr;
  const bool per_sample = gated && gate_per_sample(layer.shape);
  const bool direct = std::is_same_v<S, T> && !log_space; // the product is the output

  Prepared<T> operands{};
  operands.W = call.scratch<T>(O * I);
  operands.W_mul = untied ? call.scratch<T>(O * I) : nullptr;
  operands.L = log_space ? call.scratch<T>(B * I) : nullptr;
  const Matrix x = linear ? as_matrix<S>(call, layer.input, B, I, operands.x) : Matrix{};
  const Matrix G = gated ? as_matrix<S>(call, {layer.G, I, 1}, gates, I, operands.G) : Matrix{};
  prepare<S>(call, layer, operands);

  T* a = keep ? static_cast<T*>(saved.a) : direct ? static_cast<T*>(output) : nullptr;
  T* l = keep ? static_cast<T*>(saved.m) : nullptr;
  T* z = keep && !per_sample ? static_cast<T*>(saved.g) : nullptr;
  if (linear) {
    a = a != nullptr ? a : call.scratch<T>(B * O);
    call.matmul(a, x, transposed(matrix(operands.W, O, I)), false, kLinear<S>);
  }
  if (gated) {
    z = z != nullptr ? z : call.scratch<T>(B * gates);
    call.matmul(z, x, transposed(G), false, gate_precision<S>(layer.shape));
  }
  if (log_space) {
    l = l != nullptr ? l : call.scratch<T>(B * O);
    const Matrix W = matrix(untied ? operands.W_mul : operands.W, O, I);
    call.matmul(l, matrix(operands.L, B, I), transposed(W), false, Precision::full);
  }
  if (!direct) {
    T* g = keep ? static_cast<T*>(saved.g) : nullptr;
    launch(call, pass_blocks(B * O), outputs_kernel<S>, layer, a, l, z, g, output);
  }
}

template <class S>
void backward(
    Call& call,
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  using T = Compute<S>;
  constexpr bool same = std::is_same_v<S, T>;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int64_t gates = layer.shape.gates;
  const bool linear = layer.linear, log_space = layer.log_space, gated = linear && log_space;
  const bool untied = layer.W_hat_mul != nullptr;
  const bool want_x = grads.input != nullptr;
  const bool want_W = grads.W_hat != nullptr || grads.M_hat != nullptr;
  const bool want_W_mul = grads.W_hat_mul != nullptr || grads.M_hat_mul != nullptr;
  const bool want_W_log = log_space && (untied ? want_W_mul : want_W);
  const bool want_W_linear = linear && want_W;
  const bool want_G = grads.G != nullptr, want_bias = grads.gate_bias != nullptr;

  T* da = gated ? call.scratch<T>(B * O) : nullptr;
  T* dl = log_space ? call.scratch<T>(B * O) : nullptr;
  T* dz = gated ? call.scratch<T>(B * gates) : nullptr;
  // Without a gate da is dy itself.
  const Matrix dA = gated ? matrix(da, B, O)
      : linear            ? as_matrix<S>(call, grad_output, B, O, da)
                          : Matrix{};
  const FactorsTo<S> to{output, saved, da, dl, dz};
  if (gated && gate_per_sample(layer.shape)) {
    const int64_t blocks = pass_blocks(divide_up(B, kBlockRows) * kThreads);
    launch(call, blocks, sample_factors_kernel<S>, layer, grad_output, to);
  } else if (da != nullptr || dl != nullptr) {
    const bool dense = is_dense(grad_output, O);
    launch(call, pass_blocks(B * O), factors_kernel<S>, layer, grad_output, to, dense);
  }

  Prepared<T> operands{};
  operands.W = want_x ? call.scratch<T>(O * I) : nullptr;
  operands.W_mul = want_x && untied ? call.scratch<T>(O * I) : nullptr;
  operands.L = want_W_log ? call.scratch<T>(B * I) : nullptr;
  operands.ones = want_bias ? call.scratch<T>(B) : nullptr;
  const bool read_x = want_W_linear || want_G, read_G = gated && want_x;
  const Matrix x = read_x ? as_matrix<S>(call, layer.input, B, I, operands.x) : Matrix{};
  const Matrix G = read_G ? as_matrix<S>(call, {layer.G, I, 1}, gates, I, operands.G) : Matrix{};
  prepare<S>(call, layer, operands);

  const Matrix dL = matrix(dl, B, O), dZ = matrix(dz, B, gates);
  if (want_x) {
    const bool direct = same && !log_space;
    T* sum = direct ? static_cast<T*>(grads.input) : linear ? call.scratch<T>(B * I) : nullptr;
    T* log = log_space ? call.scratch<T>(B * I) : nullptr;
    const Matrix W = matrix(operands.W, O, I);
    if (linear) {
      call.matmul(sum, dA, W, false, kLinear<S>);
    }
    if (gated) {
      call.matmul(sum, dZ, G, true, gate_precision<S>(layer.shape));
    }
    if (log_space) {
      const Matrix W_log = untied ? matrix(operands.W_mul, O, I) : W;
      call.matmul(log, dL, W_log, false, Precision::full);
    }
    if (!direct) {
      launch(
          call,
          pass_blocks(B * I),
          input_gradient_kernel<S>,
          layer,
          sum,
          log,
          grads.input,
          is_dense(layer.input, I));
    }
  }

  T* dW = want_W ? call.scratch<T>(O * I) : nullptr;
  T* dW_mul = want_W_mul ? call.scratch<T>(O * I) : nullptr;
  if (want_W_linear) {
    call.matmul(dW, transposed(dA), x, false, kLinear<S>);
  }
  if (want_W_log) {
    T* to = untied ? dW_mul : dW;
    call.matmul(to, transposed(dL), matrix(operands.L, B, I), linear && !untied, Precision::full);
  }
  // Of the compute type, G's and the bias's gradients are the products themselves.
  T *dG = nullptr, *dbias = nullptr;
  if (want_G) {
    dG = same ? nullptr : call.scratch<T>(gates * I);
    T* to = same ? static_cast<T*>(grads.G) : dG;
    call.matmul(to, transposed(dZ), x, false, gate_precision<S>(layer.shape));
  }
  if (want_bias) {
    dbias = same ? nullptr : call.scratch<T>(gates);
    T* to = same ? static_cast<T*>(grads.gate_bias) : dbias;
    call.matmul(to, transposed(dZ), matrix(operands.ones, B, 1), false, Precision::full);
  }
  if (want_W || want_W_mul || dG != nullptr || dbias != nullptr) {
    launch(
        call,
        pass_blocks(O * I),
        weight_gradients_kernel<S>,
        layer,
        dW,
        dW_mul,
        dG,
        dbias,
        grads);
  }
}

} // namespace

void forward_large(Call& call, const Layer& layer, void* output, const Saved& saved) {
  dispatch(layer.dtype, [&](auto s) { forward<decltype(s)>(call, layer, output, saved); });
}

void backward_large(
    Call& call,
    const Layer& layer,
    const Rows& grad_output,
    const void* output,
    const Saved& saved,
    const Gradients& grads) {
  dispatch(layer.dtype, [&](auto s) {
    backward<decltype(s)>(call, layer, grad_output, output, saved, grads);
  });
}

} // namespace cuda
} // namespace nalu
