// Small layers: one fused kernel each way, with products of its own.
//
// A block computes a tile of results and walks over all the terms of their sums in one order, so
// that every run has the same bits. Operands pass through shared memory, where the weights are
// transformed and the logarithms taken, tile by tile: each block does so for itself, which in a
// small layer takes less time than another launch. Layers side by side have blocks of their own each.
#include "kernels.h"
#include "launch.cuh"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

// Both operands of a block's products, a few terms deep. Left: a row for each row of the tile;
// right: a column for each of its columns.
template <class T, class Tile>
struct Operands {
  T left[Tile::kPlanes][Tile::kRows][Tile::kDepth + 1];
  T right[Tile::kPlanes][Tile::kDepth][Tile::kCols + 1];
};

// Where a thread's sums stand in a tile.
template <class Tile>
struct Place {
  int col = static_cast<int>(threadIdx.x) % Tile::kCols;
  int first_row = static_cast<int>(threadIdx.x) / Tile::kCols;

  NALU_INLINE int row(int r) const {
    return first_row + r * Tile::kRowsAtOnce;
  }
};

// A thread's sums of one product. They are sums of short sums, one for each depth of a tile: the
// roundings of long sums of like terms would all go one way.
template <class T, class Tile>
struct Sums {
  T values[Tile::kPerThread] = {};

  NALU_INLINE T& operator[](int r) {
    return values[r];
  }
  NALU_INLINE void operator+=(const Sums& part) {
    for (int r = 0; r < Tile::kPerThread; ++r) {
      values[r] += part.values[r];
    }
  }
};

// f(outer, inner) for every pair, neighbouring threads taking neighbouring `inner`.
template <int outer, int inner, class F>
NALU_INLINE void for_each(const F& f) {
  for (int i = static_cast<int>(threadIdx.x); i < outer * inner; i += kThreads) {
    f(i / inner, i % inner);
  }
}

NALU_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

template <class T>
NALU_INLINE void move_behind(T*& data, int64_t bytes) {
  data = static_cast<T*>(behind(data, bytes));
}

// Of unit u, from the first one's.
NALU_INLINE void move_to_unit(Layer& layer, const UnitSteps& steps, int64_t u) {
  move_behind(layer.input.data, u * steps.input);
  move_behind(layer.W_hat, u * steps.weights);
  move_behind(layer.M_hat, u * steps.weights);
  move_behind(layer.G, u * steps.G);
  move_behind(layer.gate_bias, u * steps.gate_bias);
  move_behind(layer.W_hat_mul, u * steps.weights);
  move_behind(layer.M_hat_mul, u * steps.weights);
}
NALU_INLINE void move_to_unit(Saved& saved, const UnitSteps& steps, int64_t u) {
  move_behind(saved.a, u * steps.saved);
  move_behind(saved.m, u * steps.saved);
  move_behind(saved.g, u * steps.saved);
}
NALU_INLINE void move_to_unit(Gradients& grads, const UnitSteps& steps, int64_t u) {
  move_behind(grads.input, u * steps.grad_input);
  move_behind(grads.W_hat, u * steps.weights);
  move_behind(grads.M_hat, u * steps.weights);
  move_behind(grads.G, u * steps.G);
  move_behind(grads.gate_bias, u * steps.gate_bias);
  move_behind(grads.W_hat_mul, u * steps.weights);
  move_behind(grads.M_hat_mul, u * steps.weights);
}

struct ForwardArguments {
  Layer layer;
  void* output;
  Saved saved;
  UnitSteps steps;

  NALU_DEVICE void move_to(int64_t u) {
    move_to_unit(layer, steps, u);
    move_behind(output, u * steps.output);
    move_to_unit(saved, steps, u);
  }
};

// A block's arguments, in its shared memory: those of its unit.
template <class Arguments>
NALU_INLINE void begin(const Arguments& given, Arguments& own) {
  if (threadIdx.x == 0) {
    own = given;
    own.move_to(blockIdx.y);
  }
  __syncthreads();
}

// The right planes of the products with weights.
constexpr int kW = 0, kWMul = 1, kG = 2;

// W and, for the log-space path, W_mul of weight `at`, where the right operands have it.
template <bool log_space, class S, class Tile>
NALU_INLINE void put_weight(
    const Layer& layer, Operands<Compute<S>, Tile>& operands, int k, int c, int64_t at) {
  operands.right[kW][k][c] = load_weight<S>(layer.W_hat, layer.M_hat, at).value();
  if constexpr (log_space) {
    operands.right[kWMul][k][c] = layer.untied()
        ? load_weight<S>(layer.W_hat_mul, layer.M_hat_mul, at).value()
        : operands.right[kW][k][c];
  }
}

template <class S, class Tile, bool linear, bool log_space>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    forward_kernel(ForwardArguments given) {
  using T = Compute<S>;
  constexpr bool gated = linear && log_space;
  constexpr int x_plane = 0, L_plane = 1; // left
  __shared__ Operands<T, Tile> operands;
  __shared__ ForwardArguments args;
  begin(given, args);
  const Layer& layer = args.layer;
  const Saved& saved = args.saved;
  void* const output = args.output;

  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const bool per_sample = gated && gate_per_sample(layer.shape);
  const T eps = static_cast<T>(layer.eps);
  const int64_t col_tiles = forward_col_tiles(layer.shape, Tile::kCols);
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) / col_tiles * Tile::kRows;
  const int64_t col0 = static_cast<int64_t>(blockIdx.x) % col_tiles * Tile::kCols;
  const Place<Tile> place;

  Sums<T, Tile> a, l, z;
  for (int64_t k0 = 0; k0 < I; k0 += Tile::kDepth) {
    for_each<Tile::kRows, Tile::kDepth>([&](int r, int k) {
      const int64_t row = row0 + r, i = k0 + k;
      if (row < B && i < I) {
        const T x = load<S>(layer.input, row, i);
        operands.left[x_plane][r][k] = x;
        if constexpr (log_space) {
          operands.left[L_plane][r][k] = log_abs<false>(x, eps);
        }
      }
    });
    for_each<Tile::kCols, Tile::kDepth>([&](int c, int k) {
      const int64_t col = col0 + c, i = k0 + k, at = col * I + i;
      if (col < O && i < I) {
        put_weight<log_space, S>(layer, operands, k, c, at);
      }
      if constexpr (gated) {
        if ((col < O || per_sample) && i < I) {
          operands.right[kG][k][c] = load<S>(layer.G, per_sample ? i : at);
        }
      }
    });
    __syncthreads();
    const int depth = static_cast<int>(smaller(Tile::kDepth, I - k0));
    Sums<T, Tile> a_part, l_part, z_part;
    for (int k = 0; k < depth; ++k) {
      for (int r = 0; r < Tile::kPerThread; ++r) {
        const int row = place.row(r);
        if constexpr (linear) {
          const T x = operands.left[x_plane][row][k];
          a_part[r] = fused(x, operands.right[kW][k][place.col], a_part[r]);
          if constexpr (gated) {
            z_part[r] = fused(x, operands.right[kG][k][place.col], z_part[r]);
          }
        }
        if constexpr (log_space) {
          const T L = operands.left[L_plane][row][k];
          l_part[r] = fused(L, operands.right[kWMul][k][place.col], l_part[r]);
        }
      }
    }
    a += a_part;
    l += l_part;
    z += z_part;
    __syncthreads();
  }

  for (int r = 0; r < Tile::kPerThread; ++r) {
    const int64_t row = row0 + place.row(r), col = col0 + place.col;
    if (row >= B || (col >= O && !per_sample)) {
      continue;
    }
    const int64_t at = row * O + col;
    if constexpr (gated) {
      const bool biased = layer.gate_bias != nullptr;
      const T bias = biased ? load<S>(layer.gate_bias, per_sample ? 0 : col) : T(0);
      const T g = sigmoid(z[r] + bias), m = exp(l[r]);
      // A gate per sample is there without outputs too: where it is NaN, so are its gradients.
      if (saved.g != nullptr && (!per_sample || col == 0)) {
        store<T>(saved.g, per_sample ? row : at, g);
      }
      if (col >= O) {
        continue;
      }
      store<S>(output, at, mix(a[r], m, g));
      if (saved.a != nullptr) {
        store<T>(saved.a, at, a[r]);
        store<T>(saved.m, at, m);
      }
    } else {
      store<S>(output, at, log_space ? exp(l[r]) : a[r]);
    }
  }
}

// What an output's gradient passes back, at (row, col): to a, to l, and to the gate.
template <class T>
struct Factors {
  T a, l, z; // z: of a gate per sample, the share of this output before the gate's slope
};

template <class S>
struct BackwardArguments : Backward {
  using T = Compute<S>;

  Layer layer;
  BackwardBlocks blocks;
  UnitSteps steps;

  NALU_DEVICE void move_to(int64_t u) {
    move_to_unit(layer, steps, u);
    move_behind(grad_output.data, u * steps.grad_output);
    move_behind(output, u * steps.output);
    move_to_unit(saved, steps, u);
    move_to_unit(grads, steps, u);
  }

  template <bool linear, bool log_space>
  NALU_INLINE Factors<T> factors(int64_t row, int64_t col, bool per_sample) const {
    const T dy = load<S>(grad_output, row, col);
    const int64_t at = row * layer.shape.O + col;
    if constexpr (linear && log_space) {
      const T g = load<T>(saved.g, per_sample ? row : at);
      const MixGradient<T> grad(dy, load<T>(saved.a, at), load<T>(saved.m, at), g);
      return {grad.a, grad.l, per_sample ? grad.g : grad_sigmoid(grad.g, g)};
    } else if constexpr (log_space) {
      return {T(0), dy * load<S>(output, at), T(0)};
    } else {
      return {dy, T(0), T(0)};
    }
  }

  // dz of a gate per sample, from the sum of the shares.
  NALU_INLINE T sample_dz(int64_t row, T dg) const {
    return grad_sigmoid(dg, load<T>(saved.g, row));
  }
};

constexpr int kA = 0, kL = 1, kZ = 2; // the left planes, of da, dl and dz

// The factors of (row, col), where the left operands have them.
template <bool linear, bool log_space, class S, class Tile>
NALU_INLINE void put_factors(
    const BackwardArguments<S>& args,
    Operands<Compute<S>, Tile>& operands,
    int r,
    int k,
    int64_t row,
    int64_t col,
    bool per_sample) {
  const auto factors = args.template factors<linear, log_space>(row, col, per_sample);
  operands.left[kA][r][k] = factors.a;
  operands.left[kL][r][k] = factors.l;
  operands.left[kZ][r][k] = factors.z;
}

// dx = [da W + dz G] + (dl W_mul) sign(x) / (|x| + eps): rows are the batch's, columns the input's.
template <class S, class Tile, bool linear, bool log_space>
NALU_INLINE void input_tile(
    const BackwardArguments<S>& args, Operands<Compute<S>, Tile>& operands, int64_t tile) {
  using T = Compute<S>;
  constexpr bool gated = linear && log_space;
  const Layer& layer = args.layer;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const bool per_sample = gated && gate_per_sample(layer.shape);
  const T eps = static_cast<T>(layer.eps);
  const int64_t col_tiles = divide_up(I, Tile::kCols);
  const int64_t row0 = tile / col_tiles * Tile::kRows, col0 = tile % col_tiles * Tile::kCols;
  const Place<Tile> place;

  Sums<T, Tile> through_sum, through_log, dg; // dg: of a gate per sample
  for (int64_t k0 = 0; k0 < O; k0 += Tile::kDepth) {
    for_each<Tile::kRows, Tile::kDepth>([&](int r, int k) {
      if (row0 + r < B && k0 + k < O) {
        put_factors<linear, log_space>(args, operands, r, k, row0 + r, k0 + k, per_sample);
      }
    });
    for_each<Tile::kDepth, Tile::kCols>([&](int k, int c) {
      if (k0 + k < O && col0 + c < I) {
        const int64_t at = (k0 + k) * I + col0 + c;
        put_weight<log_space, S>(layer, operands, k, c, at);
        if constexpr (gated) {
          operands.right[kG][k][c] = per_sample ? T(0) : load<S>(layer.G, at);
        }
      }
    });
    __syncthreads();
    const int depth = static_cast<int>(smaller(Tile::kDepth, O - k0));
    Sums<T, Tile> sum_part, log_part, dg_part;
    for (int k = 0; k < depth; ++k) {
      for (int r = 0; r < Tile::kPerThread; ++r) {
        const int row = place.row(r);
        if constexpr (linear) {
          const T W = operands.right[kW][k][place.col];
          sum_part[r] = fused(operands.left[kA][row][k], W, sum_part[r]);
        }
        if constexpr (gated) {
          const T dz = operands.left[kZ][row][k];
          if (per_sample) {
            dg_part[r] += dz;
          } else {
            sum_part[r] = fused(dz, operands.right[kG][k][place.col], sum_part[r]);
          }
        }
        if constexpr (log_space) {
          const T W_mul = operands.right[kWMul][k][place.col];
          log_part[r] = fused(operands.left[kL][row][k], W_mul, log_part[r]);
        }
      }
    }
    through_sum += sum_part;
    through_log += log_part;
    dg += dg_part;
    __syncthreads();
  }

  for (int r = 0; r < Tile::kPerThread; ++r) {
    const int64_t row = row0 + place.row(r), col = col0 + place.col;
    if (row >= B || col >= I) {
      continue;
    }
    T dx = through_sum[r];
    if (per_sample) {
      dx = fused(args.sample_dz(row, dg[r]), load<S>(layer.G, col), dx);
    }
    if constexpr (log_space) {
      const T part = grad_log_abs(through_log[r], load<S>(layer.input, row, col), eps);
      dx = linear ? dx + part : part;
    }
    store<S>(args.grads.input, row * I + col, dx);
  }
}

// The gradients of the weights and of a gate per output: rows are the outputs, columns the input's,
// and the sums go over the batch.
template <class S, class Tile, bool linear, bool log_space>
NALU_INLINE void weights_tile(
    const BackwardArguments<S>& args, Operands<Compute<S>, Tile>& operands, int64_t tile) {
  using T = Compute<S>;
  constexpr bool gated = linear && log_space;
  constexpr int x_plane = 0, L_plane = 1; // right
  const Layer& layer = args.layer;
  const Gradients& grads = args.grads;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const bool untied = layer.untied(), per_sample = gated && gate_per_sample(layer.shape);
  const T eps = static_cast<T>(layer.eps);
  const int64_t col_tiles = divide_up(I > 0 ? I : 1, Tile::kCols);
  const int64_t row0 = tile / col_tiles * Tile::kRows, col0 = tile % col_tiles * Tile::kCols;
  const Place<Tile> place;

  // The bias's gradient has a row for each output and no columns: each of its threads sums every
  // kLanes-th row of the batch.
  constexpr int kLanes = kThreads / Tile::kRows;
  __shared__ T bias_sums[kThreads];
  const bool of_bias = gated && !per_sample && grads.gate_bias != nullptr && col0 == 0;
  const int thread = static_cast<int>(threadIdx.x);
  const int bias_row = thread % Tile::kRows, lane = thread / Tile::kRows;
  Cascade<T> dbias;

  Sums<T, Tile> dW, dW_log, dG;
  for (int64_t k0 = 0; k0 < B; k0 += Tile::kDepth) {
    for_each<Tile::kDepth, Tile::kRows>([&](int k, int r) {
      if (k0 + k < B && row0 + r < O) {
        put_factors<linear, log_space>(args, operands, r, k, k0 + k, row0 + r, per_sample);
      }
    });
    for_each<Tile::kDepth, Tile::kCols>([&](int k, int c) {
      if (k0 + k < B && col0 + c < I) {
        const T x = load<S>(layer.input, k0 + k, col0 + c);
        operands.right[x_plane][k][c] = x;
        if constexpr (log_space) {
          operands.right[L_plane][k][c] = log_abs<false>(x, eps);
        }
      }
    });
    __syncthreads();
    const int depth = static_cast<int>(smaller(Tile::kDepth, B - k0));
    for (int k = lane; of_bias && k < depth; k += kLanes) {
      dbias += operands.left[kZ][bias_row][k];
    }
    Sums<T, Tile> W_part, W_log_part, G_part;
    for (int k = 0; k < depth; ++k) {
      for (int r = 0; r < Tile::kPerThread; ++r) {
        const int row = place.row(r);
        if constexpr (linear) {
          const T x = operands.right[x_plane][k][place.col];
          W_part[r] = fused(operands.left[kA][row][k], x, W_part[r]);
          if constexpr (gated) {
            const T dz = operands.left[kZ][row][k];
            G_part[r] = fused(dz, x, G_part[r]);
          }
        }
        if constexpr (log_space) {
          const T L = operands.right[L_plane][k][place.col];
          W_log_part[r] = fused(operands.left[kL][row][k], L, W_log_part[r]);
        }
      }
    }
    dW += W_part;
    dW_log += W_log_part;
    dG += G_part;
    __syncthreads();
  }

  if (of_bias) {
    bias_sums[thread] = dbias.total();
    tree_sum(bias_sums + bias_row, Tile::kRows, lane, kLanes);
    if (lane == 0 && row0 + bias_row < O) {
      store<S>(grads.gate_bias, row0 + bias_row, bias_sums[bias_row]);
    }
  }
  for (int r = 0; r < Tile::kPerThread; ++r) {
    const int64_t row = row0 + place.row(r), col = col0 + place.col;
    if (row >= O || col >= I) {
      continue;
    }
    const int64_t at = row * I + col;
    if (untied) {
      store_weight_gradients<S>(
          dW_log[r],
          layer.W_hat_mul,
          layer.M_hat_mul,
          grads.W_hat_mul,
          grads.M_hat_mul,
          at);
    } else {
      dW[r] = gated ? dW[r] + dW_log[r] : log_space ? dW_log[r] : dW[r];
    }
    store_weight_gradients<S>(dW[r], layer.W_hat, layer.M_hat, grads.W_hat, grads.M_hat, at);
    if (gated && !per_sample && grads.G != nullptr) {
      store<S>(grads.G, at, dG[r]);
    }
  }
}

// The gradients of a gate per sample, for a stretch of the input's columns.
template <class S, class Tile>
NALU_INLINE void gate_tile(const BackwardArguments<S>& args, int64_t tile) {
  using T = Compute<S>;
  constexpr int kLanes = kThreads / Tile::kRows; // threads that share a row's outputs
  __shared__ T parts[Tile::kRows][kLanes + 1], dz[Tile::kRows];
  __shared__ T sums[kThreads], bias_sums[kThreads];
  const Layer& layer = args.layer;
  const int64_t B = layer.shape.B, I = layer.shape.I, O = layer.shape.O;
  const int thread = static_cast<int>(threadIdx.x);
  const Place<Tile> place;
  const int64_t col = tile * Tile::kCols + place.col;

  T dG = 0;
  Cascade<T> dbias;
  for (int64_t row0 = 0; row0 < B; row0 += Tile::kRows) {
    const int rows = static_cast<int>(smaller(Tile::kRows, B - row0));
    const int row = thread / kLanes, lane = thread % kLanes;
    T part = 0;
    for (int64_t o = lane; row < rows && o < O; o += kLanes) {
      part += args.template factors<true, true>(row0 + row, o, true).z;
    }
    parts[row][lane] = part;
    __syncthreads();
    if (thread < rows) {
      T dg = parts[thread][0];
      for (int i = 1; i < kLanes; ++i) {
        dg += parts[thread][i];
      }
      dz[thread] = args.sample_dz(row0 + thread, dg);
    }
    __syncthreads();
    T G_part = 0;
    for (int r = place.first_row; r < rows; r += Tile::kRowsAtOnce) {
      dbias += dz[r];
      if (col < I) {
        G_part = fused(dz[r], load<S>(layer.input, row0 + r, col), G_part);
      }
    }
    dG += G_part;
    __syncthreads();
  }

  sums[thread] = dG;
  bias_sums[thread] = dbias.total();
  tree_sum(sums + place.col, Tile::kCols, place.first_row, Tile::kRowsAtOnce);
  tree_sum(bias_sums + place.col, Tile::kCols, place.first_row, Tile::kRowsAtOnce);
  if (place.first_row == 0) {
    if (args.grads.G != nullptr && col < I) {
      store<S>(args.grads.G, col, sums[place.col]);
    }
    if (args.grads.gate_bias != nullptr && col == 0) {
      store<S>(args.grads.gate_bias, 0, bias_sums[0]);
    }
  }
}

template <class S, class Tile, bool linear, bool log_space>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast<S>)
    backward_kernel(BackwardArguments<S> given) {
  __shared__ Operands<Compute<S>, Tile> operands;
  __shared__ BackwardArguments<S> args;
  begin(given, args);
  const int64_t block = static_cast<int64_t>(blockIdx.x);
  if (block < args.blocks.input) {
    input_tile<S, Tile, linear, log_space>(args, operands, block);
  } else if (block < args.blocks.input + args.blocks.weights) {
    weights_tile<S, Tile, linear, log_space>(args, operands, block - args.blocks.input);
  } else if constexpr (linear && log_space) {
    gate_tile<S, Tile>(args, block - args.blocks.input - args.blocks.weights);
  }
}

// f(paths) with `linear` and `log_space` as types, of which one at least is true.
template <class F>
void by_paths(const Layer& layer, const F& f) {
  if (layer.gated()) {
    f(std::true_type{}, std::true_type{});
  } else if (layer.log_space) {
    f(std::false_type{}, std::true_type{});
  } else {
    f(std::true_type{}, std::false_type{});
  }
}

template <class S, int cols>
void forward_by_tiles(Call& call, const ForwardArguments& given) {
  using Tile = cuda::Tile<Compute<S>, cols>;
  const Shape& s = given.layer.shape;
  by_paths(given.layer, [&](auto linear, auto log_space) {
    const auto kernel = forward_kernel<S, Tile, decltype(linear)::value, decltype(log_space)::value>;
    const int64_t blocks = divide_up(s.B, Tile::kRows) * forward_col_tiles(s, Tile::kCols);
    launch(call, {blocks, given.steps.units}, kernel, given);
  });
}

template <class S, int cols>
void backward_by_tiles(
    Call& call, const Layer& layer, const Backward& backward, const UnitSteps& steps) {
  using Tile = cuda::Tile<Compute<S>, cols>;
  const auto blocks = backward_blocks(layer.shape, backward.grads, Tile::kRows, Tile::kCols);
  const BackwardArguments<S> args{backward, layer, blocks, steps};
  by_paths(layer, [&](auto linear, auto log_space) {
    const auto kernel = backward_kernel<S, Tile, decltype(linear)::value, decltype(log_space)::value>;
    launch(call, {blocks.total(), steps.units}, kernel, args);
  });
}

} // namespace

void forward_small(
    Call& call, const Layer& layer, void* output, const Saved& saved, const UnitSteps& steps) {
  const ForwardArguments given{layer, output, saved, steps};
  dispatch(layer.dtype, [&](auto s) {
    layer.shape.O <= kNarrow ? forward_by_tiles<decltype(s), kNarrow>(call, given)
                             : forward_by_tiles<decltype(s), kWide>(call, given);
  });
}

void backward_small(
    Call& call, const Layer& layer, const Backward& backward, const UnitSteps& steps) {
  dispatch(layer.dtype, [&](auto s) {
    layer.shape.I <= kNarrow ? backward_by_tiles<decltype(s), kNarrow>(call, layer, backward, steps)
                             : backward_by_tiles<decltype(s), kWide>(call, layer, backward, steps);
  });
}

} // namespace cuda
} // namespace nalu
