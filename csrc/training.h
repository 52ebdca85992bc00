// What the operator `train` hands to the kernels: plain pointers and sizes, no torch. Its fields are
// described beside the operator's schema, in ops.cpp.
#pragma once

#include "layer.h"

namespace nalu {

enum class Kind : int64_t { nac, nac_log_space, nalu, linear, relu, relu6 };
enum class Optimizer : int64_t { sgd, rmsprop, adam };
enum class Loss : int64_t { mse, l1 };
enum class Source : int64_t { arithmetic, given, table };
enum class Operation : int64_t { add, subtract, multiply, divide, square, root };
enum class Distribution : int64_t { uniform, normal };
enum class Status : int64_t { not_begun, running, out_of_steps, solved, diverged };

constexpr int kMostLayers = 16; // of a stack

struct StackLayer {
  Kind kind;
  int64_t in, out, gates; // gates: out, 1 or 0
  bool bias, untied;
  double eps;

  constexpr bool weighted() const {
    return kind == Kind::nac || kind == Kind::nac_log_space || kind == Kind::nalu;
  }
  constexpr bool log_space() const {
    return kind == Kind::nac_log_space || kind == Kind::nalu;
  }
  // In the order of the module's own: W_hat, M_hat, G, gate_bias, W_hat_mul, M_hat_mul; weight, bias.
  constexpr int64_t parameters() const {
    if (weighted()) {
      return (untied ? 4 : 2) * in * out + gates * in + (bias ? gates : 0);
    }
    return kind == Kind::linear ? in * out + (bias ? out : 0) : 0;
  }
};

struct Hyper {
  double lr, beta1, beta2, eps, weight_decay, momentum, clip_value, clip_norm, threshold;
};

struct Samples {
  int64_t rows;
  const void *x, *y; // (rows, inputs) and (rows, outputs); no y: it follows from x
};

struct Training {
  Dtype dtype;
  StackLayer layers[kMostLayers];
  int64_t depth, parameters;
  int64_t runs, batch, steps, test_every, tests, until;
  Optimizer optimizer;
  Loss loss;
  bool stop_when_solved;

  Source source;
  Operation operation;
  Distribution distribution;
  double constants[6];
  int64_t subset; // how many numbers an operand sums
  int64_t given_first, given_steps;
  Samples data, inside, outside;

  const int64_t *seeds, *starts;
  const Hyper* hyper;

  void *weights, *moments, *best; // (runs, parameters), (runs, 2, parameters), (runs, parameters)
  int64_t* progress; // (runs, 2): steps done, status
  double *scores, *curves; // (runs, 5), (runs, tests, 2)
  double seconds;
  int64_t threads;

  constexpr int64_t inputs() const {
    return layers[0].in;
  }
  constexpr int64_t outputs() const {
    return layers[depth - 1].out;
  }
};

// u's of shape (seeds, rows, columns).
struct Draw {
  const int64_t* seeds;
  int64_t count, stream, step, rows, columns;
  float* to;
};

} // namespace nalu
