// The passes of large layers (see ../large.h), with products by cuBLAS. Each reads what it needs once
// and writes what it makes once; cuBLAS reads the input where it lies, if it can.
#include "../large.h"

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

template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    operands_kernel(Layer layer, Operands<Compute<S>> to, bool dense) {
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
  const bool gated = layer.gated(), per_sample = gate_per_sample(layer.shape);
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

// Row p of `sums` (parts, cols): the sums of dz's columns over part p of its rows.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>) column_sums_kernel(
    const Compute<S>* dz, int64_t rows, int64_t cols, ColumnSums by, Compute<S>* sums) {
  using T = Compute<S>;
  __shared__ T of_threads[kThreads];
  const int64_t block = static_cast<int64_t>(blockIdx.x), part = block / by.col_blocks;
  const int thread = static_cast<int>(threadIdx.x), place = thread / by.cols;
  const int64_t col = block % by.col_blocks * by.cols + thread % by.cols;
  const int64_t begin = part * by.rows_of_part, most = begin + by.rows_of_part;
  const int64_t end = most < rows ? most : rows;
  Cascade<T> sum;
  if (place < by.rows_at_once && col < cols) {
    for (int64_t row = begin + place; row < end; row += by.rows_at_once) {
      sum += dz[row * cols + col];
    }
  }
  of_threads[thread] = sum.total();
  tree_sum(of_threads + thread % by.cols, by.cols, place, by.rows_at_once);
  if (place == 0 && col < cols) {
    sums[part * cols + col] = of_threads[thread];
  }
}

// The parameters' gradients from those of W, W_mul and, where it is rounded, of G, and from the parts
// of the bias's.
template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>) weight_gradients_kernel(
    Layer layer,
    const Compute<S>* dW,
    const Compute<S>* dW_mul,
    const Compute<S>* dG,
    const Compute<S>* dbias,
    int64_t bias_parts,
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
      Cascade<Compute<S>> sum;
      for (int64_t part = 0; part < bias_parts; ++part) {
        sum += dbias[part * gates + i];
      }
      store<S>(grads.gate_bias, i, sum.total());
    }
  }
}

// v rounded to bfloat16, but towards zero where it would become infinite.
NALU_INLINE BFloat16 first_piece(float v) {
  BFloat16 piece;
  narrow(v, piece);
  const bool overflows = abs(v) < INFINITY && !(abs(widen(piece)) < INFINITY);
  return overflows ? BFloat16{static_cast<uint16_t>(bits_of(v) >> 16)} : piece;
}

// An operand of a product a b = a2 b1 + a1 b2 + a1 b1 of bfloat16 pieces, as one product of terms
// three times as many: the three that it brings to each of its own terms, `apart` from one another,
// in rows of `stride`. Of a number that is not finite the first piece counts alone, in the last
// product: elsewhere 0 stands for it.
__global__ void __launch_bounds__(kThreads) pieces_kernel(
    const float* from,
    int64_t rows,
    int64_t cols,
    int64_t from_stride,
    BFloat16* to,
    int64_t stride,
    int64_t apart,
    bool of_a) {
  for (int64_t i = first_element(); i < rows * cols; i += elements_at_once()) {
    const int64_t row = i / cols, col = i - row * cols;
    const float v = from[row * from_stride + col];
    const BFloat16 first = first_piece(v);
    const bool finite = abs(v) < INFINITY;
    BFloat16 second;
    narrow(finite ? v - widen(first) : 0.0f, second);
    const BFloat16 finite_first = finite ? first : BFloat16{0};
    BFloat16* const at = to + row * stride + col;
    at[0] = of_a ? second : finite_first;
    at[apart] = of_a ? finite_first : second;
    at[2 * apart] = first;
  }
}

// Whether the current device multiplies bfloat16 on tensor cores.
bool has_bf16() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      major >= 8;
}

template <class S>
class LargePasses {
 public:
  using Number = Compute<S>;
  static constexpr bool same = std::is_same_v<S, Number>;

  LargePasses(Call& call, const Layer& layer)
      : call_(call),
        layer_(layer),
        s_(layer.shape),
        in_pieces_((!same || call.less_than_float32()) && has_bf16()) {}

  // The call's, until it ends.
  struct Scratch {
    Number* data;
    Number* get() const {
      return data;
    }
  };

  Scratch scratch(int64_t n) const {
    return {call_.scratch<Number>(n)};
  }

  static bool readable(const Rows& rows, int64_t count, int64_t cols) {
    const Matrix there = matrix_or(nullptr, rows, count, cols);
    return same && (has_dense_rows(there) || has_dense_rows(transposed(there)));
  }

  void matmul(
      Number* C, const Matrix& A, const Matrix& B, bool accumulate, Product product) const {
    if constexpr (std::is_same_v<Number, float>) {
      if (product == Product::log_space && in_pieces_) {
        const size_t mark = call_.mark();
        const Matrix a = pieces(A, true), b = transposed(pieces(transposed(B), false));
        call_.matmul_of_bf16(C, a, b, accumulate);
        return call_.release(mark);
      }
    }
    call_.matmul(C, A, B, accumulate, precision(product));
  }

  void prepare(const Operands<Number>& to) const {
    const bool of_input = to.x != nullptr || to.L != nullptr;
    const bool of_weights = to.W != nullptr || to.W_mul != nullptr || to.G != nullptr;
    if (of_input || of_weights) {
      const int64_t weights = s_.O * s_.I, inputs = of_input ? s_.B * s_.I : 0;
      const int64_t most = weights > inputs ? weights : inputs;
      launch(
          call_, pass_blocks(most), operands_kernel<S>, layer_, to, is_dense(layer_.input, s_.I));
    }
  }

  // `outputs` adds it.
  static bool put_bias(Number*) {
    return false;
  }

  // Where a row's threads share a gate, one of them would write it while others read.
  bool gate_in_place() const {
    return !gate_per_sample(s_);
  }

  void outputs(Number* a, Number* l, Number* z, Number* g, void* output) const {
    launch(call_, pass_blocks(s_.B * s_.O), outputs_kernel<S>, layer_, a, l, z, g, output);
  }

  void factors(const Backward& backward, Number* da, Number* dl, Number* dz) const {
    const FactorsTo<S> to{backward.output, backward.saved, da, dl, dz};
    const Rows& dy = backward.grad_output;
    if (layer_.gated() && gate_per_sample(s_)) {
      const int64_t blocks = pass_blocks(divide_up(s_.B, kBlockRows) * kThreads);
      launch(call_, blocks, sample_factors_kernel<S>, layer_, dy, to);
    } else {
      const bool dense = is_dense(dy, s_.O);
      launch(call_, pass_blocks(s_.B * s_.O), factors_kernel<S>, layer_, dy, to, dense);
    }
  }

  void input_gradient(const Number* through_sum, const Number* through_log, void* dx) const {
    launch(
        call_,
        pass_blocks(s_.B * s_.I),
        input_gradient_kernel<S>,
        layer_,
        through_sum,
        through_log,
        dx,
        is_dense(layer_.input, s_.I));
  }

  void weight_gradients(
      const Number* dW,
      const Number* dW_mul,
      const Number* dG,
      const Number* dz,
      const Gradients& grads) const {
    Number* dbias = nullptr;
    int64_t parts = 0;
    if (grads.gate_bias != nullptr) {
      const ColumnSums by(s_.B, s_.gates);
      parts = by.parts;
      dbias = call_.scratch<Number>(parts * s_.gates);
      launch(
          call_, by.col_blocks * parts, column_sums_kernel<S>, dz, s_.B, s_.gates, by, dbias);
    }
    if (dW != nullptr || dW_mul != nullptr || dG != nullptr || dbias != nullptr) {
      launch(
          call_,
          pass_blocks(s_.O * s_.I),
          weight_gradients_kernel<S>,
          layer_,
          dW,
          dW_mul,
          dG,
          dbias,
          parts,
          grads);
    }
  }

 private:
  // Of an operand whose columns are the product's terms.
  Matrix pieces(const Matrix& m, bool of_a) const {
    const bool by_rows = has_dense_rows(m);
    const int64_t rows = by_rows ? m.rows : m.cols, cols = by_rows ? m.cols : m.rows; // in memory
    const int64_t from_stride = by_rows ? m.row_stride : m.col_stride;
    const int64_t stride = by_rows ? 3 * cols : cols, apart = by_rows ? cols : rows * cols;
    BFloat16* const to = call_.scratch<BFloat16>(3 * rows * cols);
    launch(
        call_,
        pass_blocks(rows * cols),
        pieces_kernel,
        static_cast<const float*>(m.data),
        rows,
        cols,
        from_stride,
        to,
        stride,
        apart,
        of_a);
    return {to, m.rows, 3 * m.cols, by_rows ? stride : 1, by_rows ? 1 : stride};
  }

  // A single gate has too narrow a product to gain by less than full precision, and the log-space
  // path takes no less than pieces: exp multiplies its errors.
  Precision precision(Product product) const {
    if (product == Product::log_space || (product == Product::gate && s_.gates == 1)) {
      return Precision::full;
    }
    return same ? Precision::setting : Precision::tf32;
  }

  Call& call_;
  const Layer& layer_;
  const Shape& s_;
  // Whether the log-space products are made of bfloat16 pieces, which keep 16 bits.
  const bool in_pieces_;
};

} // namespace

void forward_large(Call& call, const Layer& layer, void* output, const Saved& saved) {
  dispatch(layer.dtype, [&](auto s) {
    nalu::forward_large(LargePasses<decltype(s)>(call, layer), layer, output, saved);
  });
}

void backward_large(Call& call, const Layer& layer, const Backward& backward) {
  dispatch(layer.dtype, [&](auto s) {
    nalu::backward_large(LargePasses<decltype(s)>(call, layer), layer, backward);
  });
}

} // namespace cuda
} // namespace nalu
