// The CPU kernels without torch, on std::threads, for ThreadSanitizer: torch's OpenMP would drown
// what it has to say about them. Every layer is computed by one thread and by several at once, and
// by several callers, and has to have the same bits.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/capability.h"
#include "../../csrc/cpu/runtime.h"

namespace {

std::atomic<int> thread_count{1};

} // namespace

// What runtime.h asks of torch.
namespace nalu {

bool runs_alone() {
  return false;
}

void parallel_for(
    int64_t n, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  int64_t parts = thread_count;
  const int64_t most = (n + grain - 1) / grain;
  parts = parts < most ? parts : most;
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < parts; ++part) {
    threads.emplace_back([=] { body(n * part / parts, n * (part + 1) / parts, context); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

template <class T>
void multiply(const Matrix& A, const Matrix& B, void* C, bool accumulate) {
  for (int64_t row = 0; row < A.rows; ++row) {
    for (int64_t col = 0; col < B.cols; ++col) {
      T sum = 0;
      for (int64_t k = 0; k < A.cols; ++k) {
        sum += static_cast<const T*>(A.data)[row * A.row_stride + k * A.col_stride] *
            static_cast<const T*>(B.data)[k * B.row_stride + col * B.col_stride];
      }
      T& to = static_cast<T*>(C)[row * B.cols + col];
      to = accumulate ? to + sum : sum;
    }
  }
}

void matmul(Dtype dtype, const Matrix& A, const Matrix& B, void* C, bool accumulate) {
  dtype == Dtype::float64 ? multiply<double>(A, B, C, accumulate)
                          : multiply<float>(A, B, C, accumulate);
}

} // namespace nalu

namespace {

using namespace nalu;

struct Sizes {
  int64_t B, I, O;
  bool gate_per_sample;
};

std::vector<float> drawn(int64_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) {
    value = normal(rng) / 4;
  }
  return values;
}

// An untied NALU with a bias: its output and all its gradients.
std::vector<float> outcome(const Kernels& kernels, const Sizes& s) {
  const int64_t weights = s.O * s.I, gates = s.gate_per_sample ? 1 : s.O;
  const auto x = drawn(s.B * s.I, 1), dy = drawn(s.B * s.O, 2);
  const auto W_hat = drawn(weights, 3), M_hat = drawn(weights, 4), G = drawn(gates * s.I, 5);
  const auto bias = drawn(gates, 6), W_mul = drawn(weights, 7), M_mul = drawn(weights, 8);
  Layer layer{};
  layer.dtype = Dtype::float32;
  layer.shape = {s.B, s.I, s.O, gates};
  layer.linear = layer.log_space = true;
  layer.eps = 1e-7;
  layer.input = {x.data(), s.I, 1};
  layer.W_hat = W_hat.data();
  layer.M_hat = M_hat.data();
  layer.G = G.data();
  layer.gate_bias = bias.data();
  layer.W_hat_mul = W_mul.data();
  layer.M_hat_mul = M_mul.data();

  const int64_t sizes[] = {
      s.B * s.O, s.B * s.I, weights, weights, gates * s.I, gates, weights, weights};
  int64_t total = 0;
  for (const int64_t size : sizes) {
    total += size;
  }
  std::vector<float> results(static_cast<size_t>(total));
  float* parts[8];
  float* next = results.data();
  for (int i = 0; i < 8; ++i) {
    parts[i] = next;
    next += sizes[i];
  }
  std::vector<float> kept(static_cast<size_t>(s.B * (2 * s.O + gates)));
  const Saved saved{kept.data(), kept.data() + s.B * s.O, kept.data() + 2 * s.B * s.O};
  kernels.forward(layer, parts[0], saved);
  const Gradients grads{parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7]};
  kernels.backward(layer, {{dy.data(), s.O, 1}, nullptr, saved, grads});
  return results;
}

// A layer that goes row by row, and the sizes of its parameters.
struct RowsLayer {
  const char* name;
  StackLayer layer;
  std::vector<int64_t> sizes;
};

std::vector<RowsLayer> rows_layers(int64_t in, int64_t out) {
  const int64_t W = in * out;
  const auto layer = [=](Kind kind, int64_t gates, bool untied, bool option) {
    return StackLayer{kind, in, out, gates, false, untied, option, false, 1e-5, 20, 1};
  };
  return {
      {"nau", layer(Kind::nau, 0, false, false), {W}},
      {"nmu", layer(Kind::nmu, 0, false, false), {W}},
      {"inalu", layer(Kind::inalu, 0, true, false), {W, W, out, W, W}},
      {"inalu of a gate for each sample", layer(Kind::inalu, 1, false, true), {W, W, in}},
      {"npu", layer(Kind::npu, 0, true, true), {W, in, W}},
      {"nru", layer(Kind::nru, 0, false, true), {W}},
      {"nmru", layer(Kind::nmru, 0, false, false), {2 * W}}};
}

// Its output and all its gradients.
std::vector<float> outcome_of_rows(const Kernels& kernels, const RowsLayer& of, int64_t B) {
  const int64_t in = of.layer.in, out = of.layer.out;
  const auto x = drawn(B * in, 1), dy = drawn(B * out, 2);
  std::vector<std::vector<float>> parameters;
  RowsCall call{};
  call.dtype = Dtype::float32;
  call.layer = of.layer;
  call.B = B;
  call.input = {x.data(), in, 1};
  int64_t total = B * (out + in);
  for (const int64_t size : of.sizes) {
    const int place = call.parameter_count++;
    parameters.push_back(drawn(size, 3 + static_cast<unsigned>(place)));
    call.parameters[place] = parameters.back().data();
    call.sizes[place] = size;
    total += size;
  }
  std::vector<float> results(static_cast<size_t>(total));
  std::vector<float> saved(static_cast<size_t>(B * kept_a_row(of.layer)));
  RowsBackward pass{};
  pass.grad_output = {dy.data(), out, 1};
  pass.saved = saved.data();
  pass.input = results.data() + B * out;
  float* next = results.data() + B * (out + in);
  for (int place = 0; place < call.parameter_count; ++place) {
    pass.parameters[place] = next;
    next += call.sizes[place];
  }
  kernels.forward_rows(call, results.data(), saved.data());
  kernels.backward_rows(call, pass);
  return results;
}

// Trainings of such a stack, 2 -> 1, on a + b: their parameters after some steps and tests. To the
// loss is added all that a training can add.
std::vector<float> trained(
    const Kernels& kernels, const std::vector<StackLayer>& layers, int64_t runs, int64_t threads) {
  int64_t count = 0;
  for (const StackLayer& layer : layers) {
    count += layer.parameters();
  }
  const int64_t tests = 3;
  std::vector<float> weights = drawn(runs * count, 9), best(weights.size());
  std::vector<float> moments(2 * weights.size()), x = drawn(300 * 2, 10);
  std::vector<int64_t> seeds, starts, progress(static_cast<size_t>(2 * runs));
  std::vector<Hyper> hyper;
  for (int64_t run = 0; run < runs; ++run) {
    seeds.push_back(run);
    starts.insert(starts.end(), {0, 1});
    Hyper each{};
    each.lr = 1e-2;
    each.beta1 = 0.9;
    each.beta2 = 0.999;
    each.eps = 1e-8;
    each.clip_value = each.clip_norm = each.regularizer_below = std::numeric_limits<double>::infinity();
    each.regularizer = 0.1;
    each.ramp_start = 5;
    each.ramp_stop = 30;
    each.l1 = 1e-3;
    each.l1_last = 1e-2;
    each.l1_every = 20;
    each.weight_steps = 4;
    each.gate_steps = 1;
    each.restart_above = each.threshold = 1e-5;
    each.restart_after = 20;
    hyper.push_back(each);
  }
  std::vector<double> scores(static_cast<size_t>(kScores * runs));
  std::vector<double> curves(static_cast<size_t>(kCurve * runs * tests));
  Training training{};
  training.dtype = Dtype::float32;
  for (const StackLayer& layer : layers) {
    training.layers[training.depth++] = layer;
  }
  training.parameters = count;
  training.runs = runs;
  training.batch = 100;
  training.steps = training.until = 50;
  training.test_every = 20;
  training.tests = tests;
  training.optimizer = Optimizer::adam;
  training.constants[0] = training.constants[2] = 1;
  training.constants[1] = training.constants[3] = 2;
  training.subset = 1;
  training.inside = training.outside = {300, x.data(), nullptr};
  training.seeds = seeds.data();
  training.starts = starts.data();
  training.hyper = hyper.data();
  training.weights = weights.data();
  training.moments = moments.data();
  training.best = best.data();
  training.progress = progress.data();
  training.scores = scores.data();
  training.curves = curves.data();
  training.seconds = 1e9;
  training.threads = threads;
  kernels.train(training);
  return weights;
}

std::string sized(const char* name, int64_t B, int64_t I, int64_t O) {
  return std::string(name) + " " + std::to_string(B) + "x" + std::to_string(I) + "->" +
      std::to_string(O);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

} // namespace

int main() {
  const Kernels* all[] = {portable_kernels(), avx2_kernels(), avx512_kernels()};
  // One chunk of rows, several, and weights for BLAS.
  const Sizes layers[] = {
      {5, 3, 2, false}, {700, 60, 50, false}, {2500, 9, 7, true}, {70, 130, 120, false}};
  int wrong = 0;
  for (const Kernels* kernels : all) {
    if (kernels == nullptr) {
      continue;
    }
    const auto check = [&](const std::string& what, const auto& compute) {
      thread_count = 1;
      const std::vector<float> alone = compute();
      thread_count = 4;
      std::atomic<bool> agree{same(compute(), alone)};
      std::thread callers[3];
      for (std::thread& caller : callers) {
        caller = std::thread([&] {
          if (!same(compute(), alone)) {
            agree = false;
          }
        });
      }
      for (std::thread& caller : callers) {
        caller.join();
      }
      std::printf("%s %s: %s\n", kernels->name, what.c_str(), agree ? "same bits" : "DIFFERS");
      wrong += agree ? 0 : 1;
    };
    for (const Sizes& s : layers) {
      check(sized("nalu", s.B, s.I, s.O), [&] { return outcome(*kernels, s); });
      for (const RowsLayer& layer : rows_layers(s.I, s.O)) {
        check(sized(layer.name, s.B, s.I, s.O), [&] {
          return outcome_of_rows(*kernels, layer, s.B);
        });
      }
    }
    const auto check_training = [&](const char* what, const std::vector<StackLayer>& stack) {
      const bool agree = same(trained(*kernels, stack, 20, 1), trained(*kernels, stack, 20, 4));
      std::printf("%s trainings, %s: %s\n", kernels->name, what, agree ? "same bits" : "DIFFERS");
      wrong += agree ? 0 : 1;
    };
    check_training("nalu", {{Kind::nalu, 2, 1, 1, false, false, false, false, 1e-7, 0, 1}});
    const StackLayer first{Kind::linear, 2, 3, 0, true, false, false, false, 0, 0, 1};
    for (const RowsLayer& layer : rows_layers(3, 1)) {
      check_training(layer.name, {first, layer.layer});
    }
  }
  return wrong;
}
