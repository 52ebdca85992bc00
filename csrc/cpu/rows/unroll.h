// A recurrent cell's operators by ../../rows/: the rows of a batch in chunks, each of which goes
// through all steps in one thread, or in turn with the help of all threads.
//
// The size of chunks depends on the shape alone, and sums are added in the order of the chunks, so the
// result has the same bits for every number of threads.
#pragma once

#include "layer.h"

#include "../../rows/steps.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Rows of S as columns of T, and back.
template <class T, class S>
class Columns {
 public:
  Columns(const UnrollCall& call, int64_t rows, Arena<T>& arena) : call_(call) {
    const int64_t I = call.features(), H = call.state();
    turned_ = arena.take((I > H ? I : H) * rows);
  }

  void read(
      const Steps& from,
      int64_t t,
      int64_t next,
      const RowsOverTime& rows,
      int64_t columns,
      T* to) const {
    const bool dense = from.col_stride == 1 && from.row_stride == columns;
    if (dense) {
      fetch(from, next, rows, columns);
    }
    const S* data = static_cast<const S*>(from.data) + t * from.step_stride;
    if constexpr (std::is_same_v<S, T>) {
      if (dense) {
        transpose_rows(data + rows.begin * columns, rows.n, columns, to);
        return;
      }
    }
    const Rows all{data, from.row_stride, from.col_stride};
    pack<T, S>(all, columns, rows.begin, rows.begin + rows.n, turned_);
    transpose_rows(turned_, rows.n, columns, to);
  }

  void write(
      const T* from, int64_t columns, int64_t t, const RowsOverTime& rows, void* steps) const {
    S* to = static_cast<S*>(steps) + (t * call_.cell.B + rows.begin) * columns;
    if constexpr (std::is_same_v<S, T>) {
      transpose_rows(from, columns, rows.n, to);
    } else {
      transpose_rows(from, columns, rows.n, turned_);
      convert<T>(columns * rows.n, turned_, to);
    }
  }

  void round(int64_t count, const T* from, T* to) const {
    if constexpr (std::is_same_v<S, T>) {
      copy(from, count, to);
    } else {
      for_each_vector<T>(count, [&](int64_t k, auto lanes) {
        S rounded[kLanes<T>];
        store<T>(rounded, load<T>(from + k, lanes), lanes);
        store<T>(to + k, load<T>(rounded, lanes), lanes);
      });
    }
  }

 private:
  // What a step will read, while the one before it computes: the rows of other chunks lie between, so
  // that no processor foresees it.
  void fetch(const Steps& from, int64_t t, const RowsOverTime& rows, int64_t columns) const {
    if (0 <= t && t < call_.T) {
      const S* data = static_cast<const S*>(from.data) + t * from.step_stride + rows.begin * columns;
      constexpr int64_t line = 64 / sizeof(S);
      for (int64_t i = 0; i < rows.n * columns; i += line) {
        prefetch(data + i);
      }
    }
  }

  const UnrollCall& call_;
  T* turned_;
};

// A thread's own: the parameters in the compute type, prepared, and memory for a chunk.
template <class T, class S>
class UnrollWorker {
 public:
  UnrollWorker(const UnrollCall& call, int64_t rows, bool backward)
      : parameters_(call.cell),
        memory_(size(call, parameters_.get(), rows, backward)),
        arena_(memory_.get()),
        unroller_(call, parameters_.get(), rows, backward, arena_) {
    unroller_.prepare();
  }

  using OfThread = Unroller<T, Columns<T, S>, Apart<const T>>;

  const OfThread* operator->() const {
    return &unroller_;
  }

 private:
  static int64_t size(
      const UnrollCall& call, const Apart<const T>& own, int64_t rows, bool backward) {
    Arena<T> counted(nullptr);
    OfThread(call, own, rows, backward, counted);
    return counted.used();
  }

  const Parameters<T, S> parameters_;
  Buffer<T> memory_;
  Arena<T> arena_;
  const OfThread unroller_;
};

// Rows enough that a step's loops outweigh what it takes to begin them, and few where steps are long.
inline Chunks chunks_of_steps(const UnrollCall& call, bool helped) {
  const int64_t B = call.cell.B;
  if (helped) {
    return Chunks::of_one_part(B, B > 0 ? B : 1);
  }
  const StackLayer& layer = call.cell.layer;
  const double in = static_cast<double>(layer.in), out = static_cast<double>(layer.out);
  const bool logs = needs_forward(layer.kind); // all of these take some
  const double nanoseconds = 1 + (logs ? 2.5 : 0.3) * in + out + in * out * 0.05; // of a row's step
  constexpr int64_t least = 32;
  int64_t rows = least;
  while (static_cast<double>(rows) * nanoseconds < 150) {
    rows += least;
  }
  return {B, rows, layer.parameters()};
}

// Whether all threads and torch's BLAS go through a step together: large weights and so few rows that
// vectors along them would be empty. More rows take their steps sooner a thread each, measured: no
// thread waits for another before the last step.
inline bool wants_help(const UnrollCall& call) {
  const StackLayer& layer = call.cell.layer;
  constexpr int64_t few = 4;
  return call.cell.B <= few && layer.in * layer.out > kSmallWeight && !runs_alone();
}

// f(chunk's first row, rows) for the chunks from `first` on.
template <class F>
inline void for_each_rows(
    const UnrollCall& call, const Chunks& chunks, int64_t first, int64_t last, const F& f) {
  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t begin = chunk * chunks.rows, left = call.cell.B - begin;
    f(begin, left < chunks.rows ? left : chunks.rows);
  }
}

template <class S>
inline void unroll_forward_as(const UnrollCall& call, void* output, void* states) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = chunks_of_steps(call, helped);
  for_each_chunk(helped, chunks.count, [&](int64_t first, int64_t last) {
    const UnrollWorker<T, S> worker(call, chunks.rows, false);
    for_each_rows(call, chunks, first, last, [&](int64_t begin, int64_t n) {
      worker->forward(begin, n, output, states);
    });
  });
}

template <class S>
inline void unroll_backward_as(const UnrollCall& call, const UnrollBackward& pass) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = chunks_of_steps(call, helped);
  const int64_t count = call.cell.layer.parameters();
  const int64_t parts = chunks.parts > 0 ? chunks.parts : 1;
  const Buffer<T> sums(parts * count);
  clear(sums.get(), chunks.parts > 0 ? 0 : count);
  for_each_chunk(helped, chunks.parts, [&](int64_t first, int64_t last) {
    const UnrollWorker<T, S> worker(call, chunks.rows, true);
    for (int64_t part = first; part < last; ++part) {
      T* gradients = sums.get() + part * count;
      worker->begin_sums(gradients);
      const int64_t begin = part * chunks.chunks_a_part, end = begin + chunks.chunks_a_part;
      const int64_t most = end < chunks.count ? end : chunks.count;
      for_each_rows(call, chunks, begin, most, [&](int64_t row, int64_t n) {
        worker->backward(row, n, pass, gradients);
      });
      worker->end_sums(gradients);
    }
  });
  add_parts<T, S>(call.cell, sums.get(), parts, pass.parameters);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
