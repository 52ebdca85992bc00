// What the operator `train` hands to the kernels: plain pointers and sizes, no torch. Its fields are
// described beside the operator's schema, in ops.cpp.
#pragma once

#include <cmath>

#include "layer.h"

namespace nalu {

enum class Kind : int64_t {
  nac,
  nac_log_space,
  nalu,
  linear,
  relu,
  relu6,
  nau,
  nmu,
  inalu,
  npu,
  nru,
  nmru,
  snmu
};
constexpr int64_t kKinds = 13;
enum class Optimizer : int64_t { sgd, rmsprop, adam };
enum class Loss : int64_t { mse, l1 };
enum class Source : int64_t { arithmetic, given, table };
enum class Operation : int64_t { add, subtract, multiply, divide, square, root };
enum class Distribution : int64_t { uniform, normal, exponential };
enum class Status : int64_t { not_begun, running, out_of_steps, solved, diverged };

constexpr int kMostLayers = 16; // of a stack
constexpr int64_t kMostUnits = int64_t{1} << 20; // far beyond what is asked for

struct StackLayer {
  Kind kind;
  int64_t in, out, gates; // gates: out, 1 or 0
  // untied: weights of the product's own, or an NPU's imaginary ones. option: an NPU's gate passes its
  // gradient on where it is clamped; an NRU trains with the surrogate of |w|; an iNALU has a gate per
  // sample; an SNMU's noise follows from its input; the weights of a NAC in log space are a sigmoid
  // of W_hat alone. modified: an NPU is regularized and kept within bounds; so is a NAC in log space,
  // whose parameter is W itself.
  bool bias, untied, option, modified;
  // omega: an iNALU's largest logarithm; of an SNMU eps and omega are the bounds of its noise. scale: of
  // a NALU's parameters.
  double eps, omega, scale;

  // Whether its weights are a sigmoid.
  constexpr bool squashed() const {
    return kind == Kind::nac_log_space && option;
  }
  // Whether it begins with log(|x| + eps).
  constexpr bool log_space() const {
    return kind == Kind::nac_log_space || kind == Kind::nalu;
  }
  // Where the parameters of a gate begin, and how many they are.
  constexpr int64_t at_gate() const {
    return (kind == Kind::npu ? 1 : 2) * in * out;
  }
  constexpr int64_t gate_parameters() const {
    switch (kind) {
      case Kind::nalu:
        return gates * (in + (bias ? 1 : 0));
      case Kind::inalu:
        return gates > 0 ? gates * in : out;
      case Kind::npu:
        return in;
      default:
        return 0;
    }
  }
  // In the order in which the layer's function takes them: W_hat, M_hat, G, gate_bias, W_hat_mul,
  // M_hat_mul; weight, bias; W; W_hat, M_hat, g, W_hat_mul, M_hat_mul; W_re, g, W_im.
  constexpr int64_t parameters() const {
    switch (kind) {
      case Kind::nac_log_space:
        return (option || modified ? 1 : 2) * in * out;
      case Kind::nac:
      case Kind::nalu:
        return (untied ? 4 : 2) * in * out + gate_parameters();
      case Kind::linear:
        return in * out + (bias ? out : 0);
      case Kind::relu:
      case Kind::relu6:
        return 0;
      case Kind::nau:
      case Kind::nmu:
      case Kind::snmu:
      case Kind::nru:
        return in * out;
      case Kind::inalu:
        return (untied ? 4 : 2) * in * out + gate_parameters();
      case Kind::npu:
        return (untied ? 2 : 1) * in * out + gate_parameters();
      case Kind::nmru:
        return 2 * in * out;
    }
    return 0;
  }
};

// Whether the sizes and constants are those of a layer of its kind.
inline bool is_sound(const StackLayer& layer) {
  const auto positive = [](double value) { return value > 0 && value < HUGE_VAL; };
  const bool sizes = layer.in > 0 && layer.out > 0 && layer.in <= kMostUnits && layer.out <= kMostUnits;
  const bool gated = layer.gates == 1 || layer.gates == layer.out;
  switch (layer.kind) {
    case Kind::nalu:
      return sizes && gated && positive(layer.eps) && positive(layer.scale);
    case Kind::inalu:
      return sizes && (gated || layer.gates == 0) && positive(layer.eps) && positive(layer.omega) &&
          layer.scale == 1;
    case Kind::nac_log_space:
      return sizes && layer.gates == 0 && !layer.untied && !(layer.option && layer.modified) &&
          positive(layer.eps) && layer.scale == 1;
    case Kind::npu:
      return sizes && layer.gates == 0 && positive(layer.eps);
    case Kind::snmu:
      return sizes && layer.gates == 0 && !layer.untied &&
          (layer.option || (positive(layer.eps) && positive(layer.omega)));
    case Kind::nmru:
      return sizes && layer.gates == 0 && !layer.untied && (layer.eps == 0 || positive(layer.eps));
    case Kind::relu:
    case Kind::relu6:
      return sizes && layer.in == layer.out;
    default:
      return sizes && layer.gates == 0 && !layer.untied && layer.scale == 1;
  }
}

struct Hyper {
  double lr, beta1, beta2, eps, weight_decay, momentum, clip_value, clip_norm;
  // The weight of the layers' regularizer, from 0 to all of it between two steps, where the last error
  // inside is below a bound; and of the parameters' L1 norm, which grows tenfold every so many steps.
  double regularizer, ramp_start, ramp_stop, regularizer_below, l1, l1_last, l1_every;
  // Turns of steps that change all but the gates, then the gates alone; none: all that there is.
  double weight_steps, gate_steps;
  // A run whose losses stay above a bound begins anew, after so many steps at the earliest.
  double restart_above, restart_after;
  // The weight of the saturation. From a step on, each step whose batch's loss is below a bound is
  // followed by one on the saturation alone.
  double saturation, saturation_start, saturation_below;
  double threshold;
};
constexpr int64_t kHyper = 23;
constexpr int64_t kScores = 6;
// Of a test: the errors inside and outside; and of the steps since the last one the losses' sum and that
// of their squares, where a run may begin anew.
constexpr int64_t kCurve = 4;

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
  double *scores, *curves; // (runs, kScores), (runs, tests, kCurve)
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
