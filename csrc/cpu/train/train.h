// Whole trainings: batches, forward, backward, update, and the tests between, without leaving the
// kernel. A run's numbers depend on its own row of the table only.
#pragma once

#include "random.h"
#include "stack.h"
#include "update.h"

namespace nalu {
namespace NALU_NAMESPACE {

constexpr int64_t kBlockRows = 128; // of a batch, or of a test, at a time
// Steps between two looks at the clock: at most so many, and one where they take long.
constexpr int64_t kStepsAtATime = 64;
constexpr double kQuick = 1e-3;

// The targets (1, n) of an arithmetic task, from x (inputs, n) and where the operands' subsets start.
template <class T>
inline void arithmetic_targets(
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

// The blocks of rows [begin, end) of a matrix (rows, columns), each as (columns, its rows), f(block
// number, first row, how many).
template <class F>
inline void for_each_block(int64_t rows, const F& f) {
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    f(begin, rows - begin < kBlockRows ? rows - begin : kBlockRows);
  }
}

template <class T>
inline void transpose_rows(const T* from, int64_t rows, int64_t columns, T* to) {
  fill_transposed<T>(
      rows, columns, [=](int64_t i, auto count) { return load<T>(from + i, count); }, to);
}

// The samples of a test, transposed block by block, with the logarithms that the first layer takes:
// one for all runs and threads.
template <class T>
struct TestSet {
  int64_t rows;
  T *x, *y, *logs;

  TestSet(const Training& training, const Samples& samples, Arena<T>& arena) : rows(samples.rows) {
    const StackLayer& first = training.layers[0];
    x = arena.take(rows * training.inputs());
    y = samples.y != nullptr ? arena.take(rows * training.outputs()) : nullptr;
    logs = first.log_space() ? arena.take(rows * training.inputs()) : nullptr;
    if (x == nullptr) {
      return;
    }
    for_each_block(rows, [&](int64_t begin, int64_t n) {
      const int64_t at = begin * training.inputs();
      transpose_rows(static_cast<const T*>(samples.x) + at, n, training.inputs(), x + at);
      if (y != nullptr) {
        const int64_t of = begin * training.outputs();
        transpose_rows(static_cast<const T*>(samples.y) + of, n, training.outputs(), y + of);
      }
      if (logs != nullptr) {
        Stack<T>::take_logs(first, x + at, n * training.inputs(), logs + at);
      }
    });
  }
};

// A thread's memory, and a run's training in it.
template <class T>
class Trainer {
 public:
  Trainer(
      const Training& training,
      const TestSet<T>& inside,
      const TestSet<T>& outside,
      Unit<T>* units,
      Arena<T>& arena)
      : training_(training),
        inside_(inside),
        outside_(outside),
        inputs_(training),
        stack_(training, kBlockRows, units, arena),
        x_(arena.take(kBlockRows * training.inputs())),
        y_(arena.take(kBlockRows * training.outputs())),
        gradients_(arena.take(training.parameters)) {}

  // Goes on with a run until it ends, or its steps or the time do.
  void train(int64_t run, double deadline) {
    int64_t& step = training_.progress[2 * run];
    auto& status = training_.progress[2 * run + 1];
    const auto is = [&](Status one) { return status == static_cast<int64_t>(one); };
    if (!is(Status::not_begun) && !is(Status::running)) {
      return;
    }
    status = static_cast<int64_t>(Status::running);
    const double begun = now();
    double time = begun;
    const int64_t last = training_.until < training_.steps ? training_.until : training_.steps;
    int64_t at_a_time = 1;
    while (step < last && is(Status::running) && time < deadline) {
      for (int64_t i = 0; i < at_a_time && step < last && is(Status::running); ++i) {
        take_step(run, step);
        ++step;
        if (step % training_.test_every == 0 || step == training_.steps) {
          status = static_cast<int64_t>(test(run, step));
          i = at_a_time;
        }
      }
      const double before = time;
      time = now();
      at_a_time = time - before > kQuick ? 1 : 2 * at_a_time;
      at_a_time = at_a_time < kStepsAtATime ? at_a_time : kStepsAtATime;
    }
    training_.scores[5 * run + 4] += time - begun;
  }

 private:
  T* weights(int64_t run) const {
    return static_cast<T*>(training_.weights) + run * training_.parameters;
  }

  void take_step(int64_t run, int64_t step) {
    const int64_t count = training_.parameters;
    T* parameters = weights(run);
    T* moments = static_cast<T*>(training_.moments) + 2 * run * count;
    stack_.prepare(parameters);
    stack_.clear_gradients(gradients_, count);
    for_each_block(training_.batch, [&](int64_t begin, int64_t n) {
      draw_block(run, step, begin, n);
      const T* found = stack_.forward(parameters, x_, nullptr, n);
      loss_gradient(found, training_.outputs() * n);
      stack_.backward(parameters, gradients_, n);
    });
    stack_.finish(gradients_);
    const Hyper& hyper = training_.hyper[run];
    clip(hyper, count, gradients_);
    update(
        training_.optimizer,
        hyper,
        step + 1,
        count,
        parameters,
        gradients_,
        moments,
        moments + count);
  }

  // x_ and y_, for rows of the step's batch.
  void draw_block(int64_t run, int64_t step, int64_t begin, int64_t n) {
    const int64_t I = training_.inputs(), O = training_.outputs();
    if (training_.source == Source::arithmetic) {
      draw_batch<T>(inputs_, training_.seeds[run], step, begin, begin + n, I, x_);
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
    for (int64_t r = 0; r < n; ++r) {
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
    }
  }

  // Of the mean over the batch and the outputs.
  void loss_gradient(const T* found, int64_t count) {
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
  double error(int64_t run, const TestSet<T>& set) {
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
      const T* found = stack_.forward(weights(run), x, logs, n);
      for (int64_t k = 0; k < O * n; ++k) {
        const double off = static_cast<double>(found[k]) - static_cast<double>(y[k]);
        sum += off * off;
      }
    });
    return sum / static_cast<double>(set.rows * O);
  }

  // After `step` steps.
  Status test(int64_t run, int64_t step) {
    const int64_t count = training_.parameters;
    stack_.prepare(weights(run));
    const double inside = error(run, inside_), outside = error(run, outside_);
    double* curve =
        training_.curves + 2 * (run * training_.tests + (step - 1) / training_.test_every);
    curve[0] = inside;
    curve[1] = outside;
    double* scores = training_.scores + 5 * run;
    double &best_inside = scores[0], &at_best = scores[1], &best_step = scores[2],
           &first_below = scores[3];
    const double threshold = training_.hyper[run].threshold;
    const bool first = best_inside != best_inside;
    const bool best = first ? std::isfinite(inside) : inside < best_inside;
    if (best) {
      best_inside = inside;
      at_best = outside;
      best_step = static_cast<double>(step);
      T* to = static_cast<T*>(training_.best) + run * count;
      std::memcpy(to, weights(run), static_cast<size_t>(count) * sizeof(T));
    }
    if (outside < threshold && first_below != first_below) {
      first_below = static_cast<double>(step);
    }
    for (int64_t k = 0; k < count; ++k) {
      if (weights(run)[k] != weights(run)[k]) {
        return Status::diverged;
      }
    }
    if (training_.stop_when_solved && best && outside < threshold) {
      return Status::solved;
    }
    if (step < training_.steps) {
      return Status::running;
    }
    return at_best < threshold ? Status::solved : Status::out_of_steps;
  }

  const Training& training_;
  const TestSet<T>&inside_, &outside_;
  const Inputs<T> inputs_;
  Stack<T> stack_;
  T *x_, *y_, *gradients_;
};

// Threads take one run after the other. All memory is taken before they start.
template <class T>
struct Crew {
  const Training& training;
  double deadline;
  const TestSet<T>&inside, &outside;
  Unit<T>* units; // (threads, depth)
  T* memory; // (threads, size)
  int64_t size;

  void work(int64_t thread, Tickets& tickets) const {
    Arena<T> arena(memory + thread * size);
    Trainer<T> trainer(training, inside, outside, units + thread * training.depth, arena);
    for (;;) {
      const int64_t run = take(tickets);
      if (run >= training.runs || now() >= deadline) {
        return;
      }
      trainer.train(run, deadline);
    }
  }
};

template <class T>
void train_of(const Training& training) {
  const double deadline = now() + training.seconds;
  Arena<T> count(nullptr);
  TestSet<T>(training, training.inside, count);
  TestSet<T>(training, training.outside, count);
  Buffer<T> tests(count.used());
  Arena<T> room(tests.get());
  const TestSet<T> inside(training, training.inside, room), outside(training, training.outside, room);

  const int64_t threads = training.threads < training.runs ? training.threads : training.runs;
  Buffer<Unit<T>> units(threads * training.depth);
  Arena<T> trial(nullptr);
  Trainer<T>(training, inside, outside, units.get(), trial);
  Buffer<T> memory(threads * trial.used());
  Crew<T> crew{training, deadline, inside, outside, units.get(), memory.get(), trial.used()};
  const auto work = [](int64_t thread, Tickets& tickets, void* context) {
    static_cast<const Crew<T>*>(context)->work(thread, tickets);
  };
  on_threads(threads, work, &crew);
}

inline void train(const Training& training) {
  if (training.dtype == Dtype::float64) {
    train_of<double>(training);
  } else {
    train_of<float>(training);
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
