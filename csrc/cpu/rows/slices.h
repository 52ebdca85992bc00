// A large layer's operators for few rows: its outputs in slices, each a layer of its own, for whose
// weights and sums a core's cache has room. Memory is then what takes the time, and of it only the
// parameters are read, and their gradients written, each once.
//
// The slices depend on the shape alone. What they share, the gradients of the input and of a gate that
// is no output's own, is summed by parts, runs of slices, and added in order, so the result has the same
// bits for every number of threads.
#pragma once

#include "worker.h"

namespace nalu {
namespace NALU_NAMESPACE {

struct Slices {
  int64_t outputs, count, parts, slices_a_part;

  explicit Slices(const StackLayer& layer) {
    constexpr int64_t most_numbers = 32768, most_parts = 32;
    const int64_t fits = most_numbers / (layer.parameters() / layer.out);
    const int64_t even = divide_up(layer.out, most_parts);
    const int64_t wanted = fits < even ? fits : even;
    outputs = divide_up(wanted > 1 ? wanted : 1, kOneRowOutputs) * kOneRowOutputs;
    count = divide_up(layer.out, outputs);
    slices_a_part = divide_up(count, most_parts);
    parts = divide_up(count, slices_a_part);
  }
};

inline bool wants_slices(const RowsCall& call) {
  const StackLayer& layer = call.layer;
  return layer.in * layer.out > kSmallWeight && call.B > 0 && call.B <= kLanes<float>;
}

// One of them: the layer's outputs from `begin` on.
template <class S>
class Slice {
 public:
  using T = Compute<S>;

  Slice(const RowsCall& whole, const Slices& slices, int64_t index)
      : begin(index * slices.outputs), call(whole), whole_(whole) {
    const int64_t out = whole.layer.out, left = out - begin;
    call.layer.out = left < slices.outputs ? left : slices.outputs;
    call.layer.gates = whole.layer.gates == out ? call.layer.out : whole.layer.gates;
    for (int i = 0; i < call.parameter_count; ++i) {
      if (i != shared_parameter(whole.layer)) {
        call.sizes[i] = whole.sizes[i] / out * call.layer.out;
        call.parameters[i] = static_cast<const S*>(whole.parameters[i]) + at(i);
      }
    }
  }

  // Where its share of parameter i begins, which is not all outputs'.
  int64_t at(int i) const {
    return whole_.sizes[i] / whole_.layer.out * begin;
  }

  // Its share of what a forward keeps.
  template <class Kept>
  Kept* kept(Kept* all) const {
    return all != nullptr ? all + kept_a_row(whole_.layer) / whole_.layer.out * begin * call.B : nullptr;
  }

  Rows rows(const Rows& all) const {
    return {static_cast<const S*>(all.data) + begin * all.col_stride, all.row_stride, all.col_stride};
  }

  const int64_t begin;
  RowsCall call;

 private:
  const RowsCall& whole_;
};

template <class S>
inline void forward_by_slices(const RowsCall& call, void* output, void* saved) {
  using T = Compute<S>;
  const Slices slices(call.layer);
  T* kept = kept_a_row(call.layer) > 0 ? static_cast<T*>(saved) : nullptr;
  parallel(slices.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const Slice<S> slice(call, slices, index);
      RowsWorker<T, S> worker(slice.call, call.B, false);
      S* to = static_cast<S*>(output) + slice.begin;
      worker.forward(0, call.B, slice.kept(kept), to, call.layer.out);
    }
  });
}

template <class S>
inline void backward_by_slices(const RowsCall& call, const RowsBackward& pass) {
  using T = Compute<S>;
  const Slices slices(call.layer);
  const int64_t in = call.layer.in, of_x = pass.input != nullptr ? in * call.B : 0;
  const int shared = shared_parameter(call.layer);
  const int64_t of_shared = shared >= 0 ? call.sizes[shared] : 0, count = of_x + of_shared;
  const T* kept = kept_a_row(call.layer) > 0 ? static_cast<const T*>(pass.saved) : nullptr;
  const Buffer<T> sums(slices.parts * count);
  parallel(slices.parts, 1, [&](int64_t first, int64_t last) {
    clear(sums.get() + first * count, (last - first) * count);
    const int64_t end = last * slices.slices_a_part;
    for (int64_t s = first * slices.slices_a_part; s < end && s < slices.count; ++s) {
      const Slice<S> slice(call, slices, s);
      RowsWorker<T, S> worker(slice.call, call.B, pass.input != nullptr);
      const Rows rows = slice.rows(pass.grad_output);
      const RowReader<T, S> grad(rows, slice.call.layer.out, call.B);
      const Buffer<T> own(slice.call.layer.parameters()); // for those that have no place
      void* results[kMostParameters] = {};
      for (int i = 0; i < call.parameter_count; ++i) {
        if (i != shared && pass.parameters[i] != nullptr) {
          results[i] = static_cast<S*>(pass.parameters[i]) + slice.at(i);
        }
      }
      const Apart<T> gradients = in_results<T, S>(slice.call, results, own.get());
      worker.begin_sums(gradients);
      const T* grad_x = worker.backward(0, call.B, slice.kept(kept), grad(0, call.B), gradients);
      worker.end_sums(gradients);
      T* sum = sums.get() + s / slices.slices_a_part * count;
      add_to(of_x, grad_x, sum);
      if (shared >= 0) {
        add_to(of_shared, gradients[shared], sum + of_x);
      }
      for (int i = 0; i < call.parameter_count; ++i) {
        if (results[i] != nullptr && !std::is_same_v<S, T>) {
          convert<T>(slice.call.sizes[i], gradients[i], static_cast<S*>(results[i]));
        }
      }
    }
  });
  if (pass.input != nullptr) {
    const Buffer<T> sum(of_x), turned(of_x);
    parallel(of_x, kGrain, [&](int64_t begin, int64_t end) {
      sum_parts<T, T>(end - begin, sums.get() + begin, slices.parts, count, sum.get() + begin);
    });
    put_rows(sum.get(), in, call.B, turned.get(), static_cast<S*>(pass.input), in);
  }
  if (shared >= 0 && pass.parameters[shared] != nullptr) {
    sum_parts<T, S>(of_shared, sums.get() + of_x, slices.parts, count, pass.parameters[shared]);
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
