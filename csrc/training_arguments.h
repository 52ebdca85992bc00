// The operator `train`'s arguments, checked and read.
#pragma once

#include <limits>

#include "arguments.h"
#include "training.h"

namespace nalu {

inline void expect(bool right, const char* expected) {
  if (!right) {
    refuse(std::string("expected ") + expected);
  }
}

// Far beyond what is asked for, and so small that no product of two overflows.
constexpr int64_t kMostRows = int64_t{1} << 31;
constexpr int64_t kMostSamples = int64_t{1} << 62;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class TrainingArguments {
 public:
  Training training{};

  // `on_cpu`: the numbers of the runs can be read here, and are checked.
  explicit TrainingArguments(Stack& stack, bool on_cpu)
      : program_(stack.tensor()),
        constants_of_layers_(stack.tensor()),
        settings_(stack.tensor()),
        constants_(stack.tensor()),
        seeds_(stack.tensor()),
        starts_(stack.tensor()),
        hyper_(stack.tensor()),
        x_(stack.tensor()),
        y_(stack.tensor()),
        x_inside_(stack.tensor()),
        y_inside_(stack.tensor()),
        x_outside_(stack.tensor()),
        y_outside_(stack.tensor()),
        parameters_(stack.tensor()),
        moments_(stack.tensor()),
        best_(stack.tensor()),
        progress_(stack.tensor()),
        scores_(stack.tensor()),
        curves_(stack.tensor()),
        on_cpu_(on_cpu) {
    training.seconds = stack.take<double>();
    training.threads = stack.take<int64_t>();
    expect(training.threads >= 1, "at least 1 thread");
    expect(training.seconds >= 0, "seconds of at least 0");
    check_devices();
    read_layers();
    read_settings();
    read_runs();
    read_samples();
  }

  const Tensor& parameters() const {
    return parameters_;
  }

 private:
  // What describes the trainings is read here; what belongs to the runs, by the kernels.
  void check_devices() const {
    for (const Tensor* of_all : {&program_, &constants_of_layers_, &settings_, &constants_}) {
      expect(
          of_all->device_type() == aoti_torch_device_type_cpu(),
          "program, layers' constants, settings and constants on the CPU");
    }
    for (const Tensor* of_runs :
         {&seeds_, &starts_, &hyper_, &x_, &y_, &x_inside_, &y_inside_, &x_outside_, &y_outside_,
          &moments_, &best_, &progress_, &scores_, &curves_}) {
      expect(
          of_runs->device_type() == parameters_.device_type() &&
              of_runs->device_index() == parameters_.device_index(),
          "all tensors of runs and samples on the parameters' device");
    }
  }

  static const int64_t* integers(const Tensor& tensor, int64_t count, const char* expected) {
    expect(
        tensor.is_contiguous() && tensor.dtype() == aoti_torch_dtype_int64() &&
            tensor.numel() == count,
        expected);
    return static_cast<const int64_t*>(tensor.data());
  }
  static double* doubles(const Tensor& tensor, int64_t count, const char* expected) {
    expect(
        tensor.is_contiguous() && tensor.dtype() == aoti_torch_dtype_float64() &&
            tensor.numel() == count,
        expected);
    return static_cast<double*>(tensor.data());
  }
  void* values(const Tensor& tensor, int64_t count, const char* expected) const {
    expect(
        tensor.is_contiguous() && tensor.dtype() == parameters_.dtype() && tensor.numel() == count,
        expected);
    return tensor.data();
  }

  void read_layers() {
    const int64_t depth = program_.numel() / 8;
    expect(depth > 0 && depth <= kMostLayers, "from 1 to 16 layers");
    const int64_t* row = integers(program_, 8 * depth, "8 numbers a layer");
    const double* real = doubles(constants_of_layers_, 3 * depth, "3 constants a layer");
    for (int64_t i = 0; i < depth; ++i, row += 8, real += 3) {
      const StackLayer layer{
          static_cast<Kind>(row[0]),
          row[1],
          row[2],
          row[3],
          row[4] != 0,
          row[5] != 0,
          row[6] != 0,
          row[7] != 0,
          real[0],
          real[1],
          real[2]};
      expect(
          row[0] >= 0 && row[0] < kKinds && is_sound(layer) &&
              (i == 0 || training.layers[i - 1].out == layer.in),
          "layers of the known kinds, whose sizes fit");
      training.layers[i] = layer;
      training.parameters += layer.parameters();
    }
    training.depth = depth;
  }

  void read_settings() {
    const int64_t* s = integers(settings_, 12, "12 settings");
    const double* c = doubles(constants_, 6, "6 constants");
    training.batch = s[0];
    training.steps = s[1];
    training.test_every = s[2];
    expect(
        s[0] > 0 && s[0] <= kMostRows && s[1] > 0 && s[1] <= kMostSamples / s[0] && s[2] > 0 &&
            s[10] >= 0 && s[11] >= 0,
        "sizes of at least 1, and no more samples than can be counted");
    const auto within = [&](int64_t i, int64_t count) { return s[i] >= 0 && s[i] < count; };
    expect(
        within(3, 3) && within(4, 2) && within(6, 3) && within(7, 6) && within(8, 3),
        "an optimizer, a loss, a source, an operation and a distribution that are known");
    training.tests = (s[1] + s[2] - 1) / s[2];
    training.optimizer = static_cast<Optimizer>(s[3]);
    training.loss = static_cast<Loss>(s[4]);
    training.stop_when_solved = s[5] != 0;
    training.source = static_cast<Source>(s[6]);
    training.operation = static_cast<Operation>(s[7]);
    training.distribution = static_cast<Distribution>(s[8]);
    training.subset = s[9];
    training.given_first = s[10];
    training.until = s[11];
    for (int i = 0; i < 6; ++i) {
      training.constants[i] = c[i];
    }
  }

  void read_runs() {
    const int64_t runs = training.runs = seeds_.numel(), count = training.parameters;
    training.seeds = integers(seeds_, runs, "a seed for each run");
    training.starts = integers(starts_, 2 * runs, "2 starts a run");
    static_assert(sizeof(Hyper) == kHyper * sizeof(double));
    training.hyper =
        reinterpret_cast<const Hyper*>(doubles(hyper_, kHyper * runs, "23 hyperparameters a run"));
    const bool is_double = parameters_.dtype() == aoti_torch_dtype_float64();
    expect(
        is_double || parameters_.dtype() == aoti_torch_dtype_float32(), "float32 or float64");
    training.dtype = is_double ? Dtype::float64 : Dtype::float32;
    training.weights = values(parameters_, runs * count, "all parameters of each run");
    training.moments = values(moments_, 2 * runs * count, "two moments of each parameter");
    training.best = values(best_, runs * count, "best as parameters");
    const int64_t* progress = integers(progress_, 2 * runs, "2 numbers of progress a run");
    for (int64_t run = 0; on_cpu_ && run < runs; ++run) {
      const int64_t steps = progress[2 * run], status = progress[2 * run + 1];
      expect(
          steps >= 0 && steps <= training.steps && status >= 0 && status <= 4,
          "steps done from 0 to all, and a known status");
    }
    training.progress = const_cast<int64_t*>(progress);
    training.scores = doubles(scores_, kScores * runs, "6 scores a run");
    training.curves = doubles(curves_, kCurve * runs * training.tests, "4 numbers a test");
  }

  Samples samples(const Tensor& x, const Tensor& y) const {
    const int64_t rows = x.numel() / training.inputs();
    const bool follows = training.source == Source::arithmetic;
    return {
        rows,
        values(x, rows * training.inputs(), "samples of x as wide as the first layer"),
        follows ? nullptr
                : values(y, rows * training.outputs(), "as many samples of y as of x")};
  }

  void read_samples() {
    training.inside = samples(x_inside_, y_inside_);
    training.outside = samples(x_outside_, y_outside_);
    if (training.source == Source::arithmetic) {
      expect(training.outputs() == 1, "one output of an arithmetic task");
      expect(training.subset > 0 && training.subset <= training.inputs(), "a subset of the inputs");
      for (int64_t i = 0; on_cpu_ && i < 2 * training.runs; ++i) {
        expect(
            training.starts[i] >= 0 &&
                training.starts[i] <= training.inputs() - training.subset,
            "subsets within the inputs");
      }
      return;
    }
    training.data = samples(x_, y_);
    if (training.source == Source::given) {
      const int64_t a_step = training.runs * training.batch;
      training.given_steps = a_step > 0 ? training.data.rows / a_step : 0;
      for (int64_t run = 0; on_cpu_ && run < training.runs; ++run) {
        const int64_t step = training.progress[2 * run];
        expect(
            step >= training.given_first &&
                training.until <= training.given_first + training.given_steps,
            "the data of all steps up to `until`");
      }
    } else {
      expect(training.data.rows > 0, "a table of at least one row");
    }
  }

  const Tensor program_, constants_of_layers_, settings_, constants_, seeds_, starts_, hyper_, x_, y_, x_inside_,
      y_inside_, x_outside_, y_outside_, parameters_, moments_, best_, progress_, scores_, curves_;
  const bool on_cpu_;
};

class DrawArguments {
 public:
  const Tensor seeds;
  Draw wanted{};
  Tensor result;

  explicit DrawArguments(Stack& stack) : seeds(stack.tensor()), result(Tensor::undefined()) {
    wanted.stream = stack.take<int64_t>();
    wanted.step = stack.take<int64_t>();
    wanted.rows = stack.take<int64_t>();
    wanted.columns = stack.take<int64_t>();
    expect(
        seeds.is_contiguous() && seeds.dtype() == aoti_torch_dtype_int64() && wanted.rows >= 0 &&
            wanted.columns >= 0,
        "seeds of int64, and sizes of at least 0");
    wanted.count = seeds.numel();
    wanted.seeds = static_cast<const int64_t*>(seeds.data());
    const int64_t sizes[] = {wanted.count, wanted.rows, wanted.columns};
    result = seeds.empty(sizes, 3, aoti_torch_dtype_float32());
    wanted.to = static_cast<float*>(result.data());
  }
};

} // namespace nalu
