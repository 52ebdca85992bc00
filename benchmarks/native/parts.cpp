// Parts of a training step, alone: what benchmarks/instructions.py counts the instructions of.
//
//   parts PART nac|nalu INPUTS HIDDEN TIMES      HIDDEN 0: one layer
//
// PART is random (the numbers of a batch), logarithms (of the first layer's inputs), products (of all
// layers, each way) or step (all of a training step).
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cpu/avx2.cpp"

namespace nalu {

// What runtime.h asks of torch, and no training needs.
bool runs_alone() {
  return true;
}
void parallel_for(int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*) {}
void matmul(Dtype, const Matrix&, const Matrix&, void*, bool) {}

} // namespace nalu

namespace {

using namespace nalu;
using namespace nalu::avx2;

constexpr int64_t kBatch = 128;

struct Network {
  Training training{};
  std::vector<float> weights, moments, best;
  int64_t seed = 0, starts[2] = {0, 0}, progress[2] = {0, 0};
  Hyper hyper{};
  double scores[kScores] = {}, curves[2] = {};
  float nothing = 0;

  static constexpr double kForever = std::numeric_limits<double>::infinity();

  Network(Kind kind, int64_t inputs, int64_t hidden, int64_t steps) {
    const auto add = [&](int64_t in, int64_t out) {
      const int64_t gates = kind == Kind::nalu ? out : 0;
      StackLayer& layer = training.layers[training.depth++];
      layer.kind = kind;
      layer.in = in;
      layer.out = out;
      layer.gates = gates;
      layer.eps = 1e-7;
      layer.scale = 1;
    };
    hyper.lr = 1e-3;
    hyper.beta1 = 0.9;
    hyper.beta2 = 0.999;
    hyper.eps = 1e-8;
    hyper.clip_value = hyper.clip_norm = hyper.regularizer_below = hyper.restart_above = kForever;
    hyper.threshold = 1e-5;
    hidden > 0 ? (add(inputs, hidden), add(hidden, 1)) : add(inputs, 1);
    for (int64_t i = 0; i < training.depth; ++i) {
      training.parameters += training.layers[i].parameters();
    }
    weights.assign(static_cast<size_t>(training.parameters), 0.1f);
    best = weights;
    moments.assign(2 * weights.size(), 0.0f);
    training.runs = training.tests = training.threads = 1;
    training.batch = kBatch;
    training.steps = training.until = training.test_every = steps;
    training.optimizer = Optimizer::adam;
    training.constants[0] = training.constants[2] = 1;
    training.constants[1] = training.constants[3] = 2;
    training.subset = inputs > 3 ? inputs / 4 : 1;
    starts[1] = training.subset;
    training.inside = training.outside = {0, &nothing, nullptr};
    training.seeds = &seed;
    training.starts = starts;
    training.hyper = &hyper;
    training.weights = weights.data();
    training.moments = moments.data();
    training.best = best.data();
    training.progress = progress;
    training.scores = scores;
    training.curves = curves;
    training.seconds = 1e9;
  }
};

void products(const Training& training, float* x, float* A, float* y) {
  for (int64_t i = 0; i < training.depth; ++i) {
    const StackLayer& layer = training.layers[i];
    const int64_t rows[] = {layer.out + layer.gates, layer.kind == Kind::nalu ? layer.out : 0};
    for (const int64_t outputs : rows) {
      if (outputs == 0) {
        continue;
      }
      apply<float>(outputs, layer.in, kBatch, A, x, y, false);
      dots<float>(outputs, layer.in, kBatch, y, x, A);
      if (i > 0) {
        apply_transposed<float>(outputs, layer.in, kBatch, A, y, x, false);
      }
    }
  }
}

} // namespace

int main(int count, char** words) {
  if (count != 6) {
    return 2;
  }
  const std::string part = words[1], kind = words[2];
  const int64_t inputs = std::stoll(words[3]), hidden = std::stoll(words[4]);
  const int64_t times = std::stoll(words[5]);
  Network network(kind == "nalu" ? Kind::nalu : Kind::nac, inputs, hidden, times);
  const Training& training = network.training;
  if (part == "step") {
    kKernels.train(training);
    return 0;
  }
  const Inputs<float> range(training);
  std::vector<float> x(static_cast<size_t>(inputs * kBatch), 1.5f), logs(x);
  std::vector<float> A(static_cast<size_t>(8 * inputs), 0.1f), y(8 * kBatch, 0.1f);
  const bool draws = part == "random", takes_logs = part == "logarithms" && kind == "nalu";
  const bool multiplies = part == "products";
  for (int64_t i = 0; i < times; ++i) {
    if (draws) {
      draw_batch<float>(range, 7, kTrainStream, i, 0, kBatch, inputs, x.data());
    } else if (takes_logs) {
      avx2::take_logs(training.layers[0], x.data(), inputs * kBatch, logs.data());
    } else if (multiplies) {
      products(training, x.data(), A.data(), y.data());
    }
  }
  return x[0] == 0 && logs[0] == 0 && y[0] == 0;
}
