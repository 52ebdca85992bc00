// Trainings on a CPU: a thread for each that is under way.
#pragma once

#include "team.h"

#include "../../train/update.h"

#include "../../train/train.h"

namespace nalu {
namespace NALU_NAMESPACE {

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
  const auto test_set = [&](const Samples& samples, T* memory) {
    const TestSet<T> set = TestSet<T>::in(memory, training, samples);
    for_each_block(samples.rows, [&](int64_t begin, int64_t n) {
      set.fill(training, samples, begin, n);
    });
    return set;
  };
  const int64_t inside_size = TestSet<T>::size(training, training.inside);
  Buffer<T> tests(inside_size + TestSet<T>::size(training, training.outside));
  const TestSet<T> inside = test_set(training.inside, tests.get());
  const TestSet<T> outside = test_set(training.outside, tests.get() + inside_size);

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
