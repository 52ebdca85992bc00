// A layer's operators by ../../rows/: the rows of a batch in chunks, each a thread's, transposed so
// that they lie along the vectors.
//
// The size of chunks depends on the shape alone. Sums over rows are made by parts, runs of chunks, and
// added in order, so the result has the same bits for every number of threads. Each thread transforms
// the weights for itself: that takes less time than fetching them from another core's cache.
#pragma once

#include "worker.h"

namespace nalu {
namespace NALU_NAMESPACE {

struct Chunks {
  int64_t rows, count, parts, chunks_a_part;

  // B rows, as many a chunk as are wanted; in few enough parts that their sums stay small.
  Chunks(int64_t B, int64_t wanted, int64_t parameters) {
    rows = wanted < B ? wanted : B;
    count = B > 0 ? divide_up(B, rows) : 0;
    const int64_t room = divide_up(int64_t{1} << 22, parameters + 1);
    const int64_t most_parts = room < 2 ? 2 : room > 64 ? 64 : room;
    chunks_a_part = count > 0 ? divide_up(count, most_parts) : 1;
    parts = divide_up(count, chunks_a_part);
  }

  // All of them one part.
  static Chunks of_one_part(int64_t B, int64_t rows) {
    Chunks chunks(B, rows, 0);
    chunks.parts = chunks.count > 0 ? 1 : 0;
    chunks.chunks_a_part = chunks.count > 0 ? chunks.count : 1;
    return chunks;
  }

  static Chunks of_layer(const RowsCall& call, bool helped) {
    const StackLayer& layer = call.layer;
    if (helped) {
      constexpr int64_t longest = 1024; // long products
      return of_one_part(call.B, longest);
    }
    const double I = static_cast<double>(layer.in), O = static_cast<double>(layer.out);
    const double B = static_cast<double>(call.B);
    // Within a core's cache, and enough rows that what is read of the weights serves several vectors.
    constexpr int64_t least = 32;
    const int64_t fits = divide_up(16384, layer.in + layer.out + 1);
    const int64_t most = fits < least ? least : fits > 256 ? 256 : divide_up(fits, least) * least;
    const bool powers = layer.kind == Kind::nru;
    const bool logs = powers || layer.kind == Kind::npu || layer.kind == Kind::inalu;
    const double nanoseconds = B * ((logs ? 2.5 : 1) * I + O + I * O * (powers ? 2 : 0.25));
    int64_t wanted = 1;
    while (static_cast<double>(wanted) * 20e3 <= nanoseconds && wanted < call.B) {
      wanted *= 2;
    }
    const int64_t even = divide_up(divide_up(call.B, wanted), least) * least;
    return {call.B, even < most ? even : most, layer.parameters()};
  }
};

// Whether the chunks go one after the other, each with the help of all threads: torch's BLAS serves
// products of this size better.
inline bool wants_help(const RowsCall& call) {
  const StackLayer& layer = call.layer;
  const bool multiplies = layer.kind == Kind::npu || layer.kind == Kind::inalu;
  return multiplies && layer.in * layer.out > kSmallWeight && !runs_alone();
}

// f(first, last) over [0, count): by several threads, or by this one with their help.
template <class F>
inline void for_each_chunk(bool helped, int64_t count, const F& f) {
  if (!helped) {
    parallel(count, 1, f);
    return;
  }
  is_helped() = true;
  try {
    if (count > 0) {
      f(int64_t{0}, count);
    }
  } catch (...) {
    is_helped() = false;
    throw;
  }
  is_helped() = false;
}

template <class S>
inline void forward_by_rows(const RowsCall& call, void* output, void* saved) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = Chunks::of_layer(call, helped);
  const int64_t kept = saved != nullptr ? kept_a_row(call.layer) : 0;
  for_each_chunk(helped, chunks.count, [&](int64_t first, int64_t last) {
    RowsWorker<T, S> worker(call, chunks.rows, false);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * chunks.rows, left = call.B - begin;
      const int64_t n = left < chunks.rows ? left : chunks.rows;
      T* to = kept > 0 ? static_cast<T*>(saved) + kept * begin : nullptr;
      worker.forward(begin, n, to, static_cast<S*>(output), call.layer.out);
    }
  });
}

template <class S>
inline void backward_by_rows(const RowsCall& call, const RowsBackward& pass) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = Chunks::of_layer(call, helped);
  const int64_t kept = kept_a_row(call.layer), count = call.layer.parameters();
  const int64_t parts = chunks.parts > 0 ? chunks.parts : 1;
  const Buffer<T> sums(parts * count);
  clear(sums.get(), chunks.parts > 0 ? 0 : count);
  for_each_chunk(helped, chunks.parts, [&](int64_t first, int64_t last) {
    RowsWorker<T, S> worker(call, chunks.rows, pass.input != nullptr);
    const RowReader<T, S> grad(pass.grad_output, call.layer.out, chunks.rows);
    for (int64_t part = first; part < last; ++part) {
      // The sums of the only part are the gradients.
      const Apart<T> gradients = chunks.parts == 1
          ? in_results<T, S>(call, pass.parameters, sums.get())
          : Apart<T>(call, sums.get() + part * count);
      worker.begin_sums(gradients);
      for (int64_t i = 0; i < chunks.chunks_a_part; ++i) {
        const int64_t begin = (part * chunks.chunks_a_part + i) * chunks.rows;
        const int64_t left = call.B - begin, n = left < chunks.rows ? left : chunks.rows;
        if (n > 0) {
          const T* from = kept > 0 ? static_cast<const T*>(pass.saved) + kept * begin : nullptr;
          worker.backward(begin, n, from, grad(begin, begin + n), gradients);
          if (pass.input != nullptr) {
            worker.put_gradient(n, static_cast<S*>(pass.input) + begin * call.layer.in);
          }
        }
      }
      worker.end_sums(gradients);
    }
  });
  if (!std::is_same_v<S, T> || chunks.parts != 1) {
    add_parts<T, S>(call, sums.get(), parts, pass.parameters);
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
