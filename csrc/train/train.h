// Whole trainings, for every device: batches, forward, backward, update, and the tests between,
// without leaving the kernel. A run's numbers depend on its own row of the table only.
//
// All who work on a training, the threads of a block on a GPU, go through this together. What is
// one number has the leader written, and all have read it before.
#pragma once

#include "inputs.h"
#include "regularize.h"
#include "update.h"

#include "../rows/stack.h"

namespace nalu {
namespace NALU_NAMESPACE {

constexpr int64_t kBlockRows = 128; // of a batch, or of a test, at a time
// Steps between two looks at the clock: at most so many, and one where they take long.
constexpr int64_t kStepsAtATime = 64;
constexpr double kQuick = 1e-3;

// The targets (1, n) of an arithmetic task, from x (inputs, n) and where the operands' subsets start.
template <class T>
NALU_DEVICE inline void arithmetic_targets(
    Operation operation, const int64_t* starts, int64_t subset, const T* x, int64_t n, T* y) {
  for_each_vector<T>(n, [&](int64_t k, auto count) {
    const auto sum = [&](int64_t start) {
      Vec<T> total = load<T>(x + start * n + k, count);
      for (int64_t i = 1; i < subset; ++i) {
        total += load<T>(x + (start + i) * n + k, count);
      }
      return total;
    };
    const Vec<T> a = sum(starts[0]);
    Vec<T> result = a;
    switch (operation) {
      case Operation::add:
        result = a + sum(starts[1]);
        break;
      case Operation::subtract:
        result = a - sum(starts[1]);
        break;
      case Operation::multiply:
        result = a * sum(starts[1]);
        break;
      case Operation::divide:
        result = a / sum(starts[1]);
        break;
      case Operation::square:
        result = a * a;
        break;
      case Operation::root:
        result = square_root(a);
        break;
    }
    store<T>(y + k, result, count);
  });
}

// The blocks of rows [begin, end) of a matrix (rows, columns), each as (columns, its rows), f(first
// row, how many).
template <class F>
NALU_INLINE void for_each_block(int64_t rows, const F& f) {
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    f(begin, rows - begin < kBlockRows ? rows - begin : kBlockRows);
  }
}

// The samples of a test, transposed block by block, with the logarithms that the first layer takes:
// one for all runs.
template <class T>
struct TestSet {
  int64_t rows;
  T *x, *y, *logs;

  // How many numbers it holds.
  static int64_t size(const Training& training, const Samples& samples) {
    const int64_t inputs = training.layers[0].log_space() ? 2 * training.inputs() : training.inputs();
    return samples.rows * (inputs + (samples.y != nullptr ? training.outputs() : 0));
  }
  static TestSet in(T* memory, const Training& training, const Samples& samples) {
    T* after_x = memory + samples.rows * training.inputs();
    T* after_logs = after_x + (training.layers[0].log_space() ? after_x - memory : 0);
    return {
        samples.rows,
        memory,
        samples.y != nullptr ? after_logs : nullptr,
        after_logs != after_x ? after_x : nullptr};
  }

  NALU_DEVICE void fill(
      const Training& training, const Samples& samples, int64_t begin, int64_t n) const {
    const int64_t I = training.inputs(), O = training.outputs();
    transpose_rows(static_cast<const T*>(samples.x) + begin * I, n, I, x + begin * I);
    if (y != nullptr) {
      transpose_rows(static_cast<const T*>(samples.y) + begin * O, n, O, y + begin * O);
    }
    if (logs != nullptr) {
      take_logs(training.layers[0], x + begin * I, n * I, logs + begin * I);
    }
  }
};

// Memory for one training at a time, its parameters and moments among it, and what happens in it.
template <class T>
class Trainer {
 public:
  NALU_BOTH Trainer(
      const Training& training,
      const TestSet<T>& inside,
      const TestSet<T>& outside,
      Unit<T>* units,
      Arena<T>& arena)
      : training_(training),
        inside_(inside),
        outside_(outside),
        inputs_(training),
        parameters_(arena.take(training.parameters)),
        moments_(arena.take(2 * training.parameters)),
        gradients_(arena.take(training.parameters)),
        y_(arena.take(kBlockRows * training.outputs())),
        stack_(training, kBlockRows, units, arena),
        x_(arena.take(kBlockRows * training.inputs())) {}

  // Goes on with a run until it ends, or its steps or the time do.
  NALU_DEVICE void train(int64_t run, double deadline) {
    int64_t* progress = training_.progress + 2 * run;
    int64_t step = progress[0];
    auto status = static_cast<Status>(progress[1]);
    const int64_t last = training_.until < training_.steps ? training_.until : training_.steps;
    if ((status != Status::not_begun && status != Status::running) || step >= last) {
      return;
    }
    status = Status::running;
    const int64_t count = training_.parameters;
    T* weights = static_cast<T*>(training_.weights) + run * count;
    T* moments = static_cast<T*>(training_.moments) + run * 2 * count;
    copy(weights, count, parameters_);
    copy(moments, 2 * count, moments_);
    const Hyper& hyper = training_.hyper[run];
    const Rule rule(training_.optimizer, hyper);
    watches_ = hyper.saturation != 0 || may_begin_anew(hyper);
    const double begun = now();
    double time = begun;
    int64_t at_a_time = 1;
    while (step < last && status == Status::running && time < deadline) {
      for (int64_t i = 0; i < at_a_time && step < last && status == Status::running; ++i) {
        take_step(run, step, rule);
        ++step;
        if (step % training_.test_every == 0 || step == training_.steps) {
          status = test(run, step);
          i = at_a_time;
        }
      }
      const double before = time;
      time = now();
      at_a_time = time - before > kQuick ? 1 : 2 * at_a_time;
      at_a_time = at_a_time < kStepsAtATime ? at_a_time : kStepsAtATime;
    }
    copy(parameters_, count, weights);
    copy(moments_, 2 * count, moments);
    if (is_leader()) {
      progress[0] = step;
      progress[1] = static_cast<int64_t>(status);
      training_.scores[kScores * run + 4] += time - begun;
    }
  }

 private:
  NALU_DEVICE void take_step(int64_t run, int64_t step, const Rule& rule) {
    const int64_t count = training_.parameters;
    stack_.prepare(parameters_, true);
    stack_.clear_gradients(gradients_, count);
    for_each_block(training_.batch, [&](int64_t begin, int64_t n) {
      draw_block(run, step, begin, n);
      draw_noise(run, step, begin, n);
      const T* found = stack_.forward(parameters_, x_, nullptr, true, n);
      if (watches_) {
        watch(found, begin, training_.outputs() * n);
      }
      loss_gradient(found, training_.outputs() * n);
      stack_.backward(parameters_, x_, gradients_, n);
    });
    stack_.finish(gradients_);
    add_regularizers(run, step, rule.hyper);
    const Turn turn = turn_of(rule.hyper, step);
    for_each_resting(turn, [&](int64_t at, int64_t n) { clear(gradients_ + at, n); });
    clip(rule.hyper, count, gradients_);
    for_each_moving(turn, [&](int64_t at, int64_t n) {
      T* moments = moments_ + at;
      update(rule, step + 1, n, parameters_ + at, gradients_ + at, moments, moments + count);
    });
    stack_.for_each_layer([&](const StackLayer& layer, int64_t at) {
      keep_within(layer, parameters_ + at);
    });
    if (watches_) {
      follow(run, step, rule);
    }
  }

  // What depends on the loss of a step's batch stays apart, as `update` does.

  // Adds those of its rows from `begin` on to the loss.
  NALU_APART void watch(const T* found, int64_t begin, int64_t count) {
    double sum = 0;
    const bool squared = training_.loss == Loss::mse;
    for_each(count, [&](int64_t k) {
      const double off = static_cast<double>(found[k]) - static_cast<double>(y_[k]);
      sum += squared ? off * off : std::fabs(off);
    });
    sum = sum_of_all(sum) / static_cast<double>(training_.batch * training_.outputs());
    loss_ = begin > 0 ? loss_ + sum : sum;
  }

  // After step number `step`.
  NALU_APART void follow(int64_t run, int64_t step, const Rule& rule) {
    const Hyper& hyper = rule.hyper;
    const bool late = static_cast<double>(step) > hyper.saturation_start;
    if (hyper.saturation != 0 && late && loss_ < hyper.saturation_below) {
      saturate_all(step, rule);
    }
    if (may_begin_anew(hyper) && is_leader()) {
      const int64_t place = step / training_.test_every;
      double* curve = training_.curves + kCurve * (run * training_.tests + place);
      const bool first = step == place * training_.test_every;
      curve[2] = first ? loss_ : curve[2] + loss_;
      curve[3] = first ? loss_ * loss_ : curve[3] + loss_ * loss_;
    }
  }

  NALU_DEVICE static bool may_begin_anew(const Hyper& hyper) {
    return hyper.restart_above < std::numeric_limits<double>::infinity();
  }

  NALU_DEVICE void saturate_all(int64_t step, const Rule& rule) {
    const Hyper& hyper = rule.hyper;
    const int64_t count = training_.parameters;
    stack_.clear_gradients(gradients_, count);
    stack_.for_each_layer([&](const StackLayer& layer, int64_t at) {
      const T weight = static_cast<T>(hyper.saturation);
      saturate(layer, weight, parameters_ + at, gradients_ + at);
    });
    clip(hyper, count, gradients_);
    update(rule, step + 1, count, parameters_, gradients_, moments_, moments_ + count);
  }

  // f(where they begin, how many), over the parameters that a step leaves as they are.
  template <class F>
  NALU_DEVICE void for_each_resting(Turn turn, const F& f) {
    if (turn == Turn::all) {
      return;
    }
    stack_.for_each_layer([&](const StackLayer& layer, int64_t at) {
      const int64_t gate = layer.at_gate(), of_gate = layer.gate_parameters();
      if (turn == Turn::gates) {
        const int64_t before = of_gate > 0 ? gate : layer.parameters();
        f(at, before);
        f(at + before + of_gate, layer.parameters() - before - of_gate);
      } else if (of_gate > 0) {
        f(at + gate, of_gate);
      }
    });
  }

  // The same over all others.
  template <class F>
  NALU_DEVICE void for_each_moving(Turn turn, const F& f) {
    int64_t begin = 0;
    for_each_resting(turn, [&](int64_t at, int64_t n) {
      f(begin, at - begin);
      begin = at + n;
    });
    f(begin, training_.parameters - begin);
  }

  // To the gradients, before they are clipped.
  NALU_DEVICE void add_regularizers(int64_t run, int64_t step, const Hyper& hyper) {
    const double weight = hyper.regularizer == 0 ? 0 : hyper.regularizer * ramp(run, step, hyper);
    if (weight != 0) {
      stack_.for_each_layer([&](const StackLayer& layer, int64_t at) {
        regularize(layer, static_cast<T>(weight), parameters_ + at, gradients_ + at);
      });
    }
    if (hyper.l1 != 0) {
      double l1 = hyper.l1;
      for (double next = hyper.l1_every; next <= static_cast<double>(step) && l1 < hyper.l1_last;
           next += hyper.l1_every) {
        l1 *= 10;
      }
      l1 = l1 < hyper.l1_last ? l1 : hyper.l1_last;
      add_l1(training_.parameters, static_cast<T>(l1), parameters_, gradients_);
    }
  }

  // The share of the regularizer that counts in step number `step`, from 0 on.
  NALU_DEVICE double ramp(int64_t run, int64_t step, const Hyper& hyper) const {
    const double t = static_cast<double>(step);
    if (!(t > hyper.ramp_start)) {
      return 0;
    }
    if (hyper.regularizer_below < std::numeric_limits<double>::infinity()) {
      const int64_t tested = step / training_.test_every;
      const double* curves = training_.curves + kCurve * run * training_.tests;
      if (tested == 0 || !(curves[kCurve * (tested - 1)] < hyper.regularizer_below)) {
        return 0;
      }
    }
    return t < hyper.ramp_stop ? (t - hyper.ramp_start) / (hyper.ramp_stop - hyper.ramp_start) : 1;
  }

  // x_ and y_, for rows of the step's batch.
  NALU_DEVICE void draw_block(int64_t run, int64_t step, int64_t begin, int64_t n) {
    const int64_t I = training_.inputs(), O = training_.outputs();
    if (training_.source == Source::arithmetic) {
      draw_batch<T>(inputs_, training_.seeds[run], kTrainStream, step, begin, begin + n, I, x_);
      arithmetic_targets<T>(
          training_.operation, training_.starts + 2 * run, training_.subset, x_, n, y_);
      return;
    }
    const T *x = static_cast<const T*>(training_.data.x), *y = static_cast<const T*>(training_.data.y);
    if (training_.source == Source::given) {
      const int64_t place = run * training_.given_steps + step - training_.given_first;
      const int64_t row = place * training_.batch + begin;
      transpose_rows(x + row * I, n, I, x_);
      transpose_rows(y + row * O, n, O, y_);
      return;
    }
    const int64_t rows = training_.data.rows;
    int64_t epoch = -1;
    Shuffle shuffle(0, 0, rows);
    for_each(n, [&](int64_t r) {
      const int64_t sample = step * training_.batch + begin + r;
      if (sample / rows != epoch) {
        epoch = sample / rows;
        shuffle = Shuffle(training_.seeds[run], epoch, rows);
      }
      const int64_t row = shuffle(sample % rows);
      for (int64_t i = 0; i < I; ++i) {
        x_[i * n + r] = x[row * I + i];
      }
      for (int64_t o = 0; o < O; ++o) {
        y_[o * n + r] = y[row * O + o];
      }
    });
  }

  // For the same rows, where the layers' noise is made. It stays apart, as `update` does.
  NALU_APART void draw_noise(int64_t run, int64_t step, int64_t begin, int64_t n) {
    int64_t stream = kNoiseStream;
    stack_.for_each_unit([&](const Unit<T>& unit) {
      if (unit.layer.kind == Kind::snmu) {
        const Inputs<T> unit_interval;
        const int64_t seed = training_.seeds[run], I = unit.layer.in;
        draw_batch<T>(unit_interval, seed, stream, step, begin, begin + n, I, unit.planes[0]);
        ++stream;
      }
    });
  }

  // Of the mean over the batch and the outputs.
  NALU_DEVICE void loss_gradient(const T* found, int64_t count) {
    const T scale = T(1) / static_cast<T>(training_.batch * training_.outputs());
    T* to = stack_.grad_y();
    const bool squared = training_.loss == Loss::mse;
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      const Vec<T> error = load<T>(found + k, lanes) - load<T>(y_ + k, lanes);
      const Vec<T> grad = squared ? error * (2 * scale) : sign(error) * scale;
      store<T>(to + k, grad, lanes);
    });
  }

  // The mean squared error, in double precision; NaN of no samples.
  NALU_DEVICE double error(int64_t run, const TestSet<T>& set) {
    const int64_t I = training_.inputs(), O = training_.outputs();
    double sum = 0;
    for_each_block(set.rows, [&](int64_t begin, int64_t n) {
      const T* x = set.x + begin * I;
      const T* logs = set.logs != nullptr ? set.logs + begin * I : nullptr;
      const T* y = set.y != nullptr ? set.y + begin * O : y_;
      if (set.y == nullptr) {
        arithmetic_targets<T>(
            training_.operation, training_.starts + 2 * run, training_.subset, x, n, y_);
      }
      const T* found = stack_.forward(parameters_, x, logs, false, n);
      for_each(O * n, [&](int64_t k) {
        const double off = static_cast<double>(found[k]) - static_cast<double>(y[k]);
        sum += off * off;
      });
    });
    return sum_of_all(sum) / static_cast<double>(set.rows * O);
  }

  // After `step` steps.
  NALU_DEVICE Status test(int64_t run, int64_t step) {
    const int64_t count = training_.parameters;
    stack_.prepare(parameters_, false);
    const double inside = error(run, inside_), outside = error(run, outside_);
    double* scores = training_.scores + kScores * run;
    const double best_so_far = scores[0], threshold = training_.hyper[run].threshold;
    const bool is_finite = inside - inside == 0;
    const bool best = is_finite && !(inside >= best_so_far); // the first has none to be below
    const double at_best = best ? outside : scores[1];
    const bool first_below = outside < threshold && scores[3] != scores[3];
    int64_t not_numbers = 0;
    for_each(count, [&](int64_t k) { not_numbers += parameters_[k] != parameters_[k]; });
    not_numbers = sum_of_all(not_numbers);
    if (best) {
      copy(parameters_, count, static_cast<T*>(training_.best) + run * count);
    }
    double* const curves = training_.curves + kCurve * run * training_.tests;
    if (is_leader()) {
      double* curve = curves + kCurve * ((step - 1) / training_.test_every);
      curve[0] = inside;
      curve[1] = outside;
      scores[0] = best ? inside : best_so_far;
      scores[1] = at_best;
      scores[2] = best ? static_cast<double>(step) : scores[2];
      scores[3] = first_below ? static_cast<double>(step) : scores[3];
    }
    wait_for_all();
    if (not_numbers > 0) {
      return Status::diverged;
    }
    if (training_.stop_when_solved && best && outside < threshold) {
      return Status::solved;
    }
    if (step < training_.steps) {
      if (is_stuck(training_.hyper[run], scores[5], step, curves)) {
        begin_anew(run, step);
      }
      return Status::running;
    }
    return at_best < threshold ? Status::solved : Status::out_of_steps;
  }

  // Whether the losses since the last beginning, after step `begun` (NaN: none), do not fall any more,
  // and are large: the mean of the first half is at most that of the second and its deviation.
  NALU_DEVICE bool is_stuck(
      const Hyper& hyper, double begun, int64_t step, const double* curves) const {
    const int64_t from = begun == begun ? static_cast<int64_t>(begun) : 0;
    if (!may_begin_anew(hyper) || !(static_cast<double>(step - from) > hyper.restart_after)) {
      return false;
    }
    const int64_t first = from / training_.test_every, tests = step / training_.test_every;
    const int64_t middle = first + (tests - first) / 2;
    const auto mean = [&](int64_t begin, int64_t end, int64_t of) {
      double sum = 0;
      for (int64_t test = begin; test < end; ++test) {
        sum += curves[kCurve * test + of];
      }
      return sum / static_cast<double>((end - begin) * training_.test_every);
    };
    const double before = mean(first, middle, 2), since = mean(middle, tests, 2);
    const double variance = mean(middle, tests, 3) - since * since;
    const double deviation = variance > 0 ? std::sqrt(variance) : 0;
    return before <= since + deviation && since > hyper.restart_above;
  }

  // All parameters uniform on [-2, 2), after step `step`. The moments stay.
  NALU_DEVICE void begin_anew(int64_t run, int64_t step) {
    constexpr int64_t columns = 64;
    const int64_t count = training_.parameters;
    for_each((count + columns - 1) / columns, [&](int64_t r) {
      const uint32_t row[] = {static_cast<uint32_t>(r)};
      RowGenerator<uint32_t> generator(training_.seeds[run], kRestartStream, step, row);
      for (int64_t k = r * columns; k < count && k < (r + 1) * columns; ++k) {
        uint32_t bits[1];
        generator.next(bits);
        parameters_[k] = static_cast<T>(bits[0]) * T(0x1p-22) - T(2);
      }
    });
    if (is_leader()) {
      training_.scores[kScores * run + 5] = static_cast<double>(step);
    }
    wait_for_all();
  }

  const Training& training_;
  const TestSet<T>&inside_, &outside_;
  const Inputs<T> inputs_;
  T *parameters_, *moments_, *gradients_, *y_;
  Stack<T> stack_;
  T* x_;
  bool watches_ = false; // whether anything depends on a batch's loss
  double loss_ = 0; // of the step's batch
};

} // namespace NALU_NAMESPACE
} // namespace nalu
