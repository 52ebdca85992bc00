// Layers that go row by row, by ../rows/: a block of threads takes chunks of a batch's rows, transposed
// so that they lie along its threads.
//
// A block prepares the weights once for all of its chunks. What it works with lies in its shared
// memory as far as that goes. Sums over rows are made by parts, runs of chunks, and added in order.
#include "kernels.h"

#include <algorithm>

#include "rows.cuh"

#include "../rows/walk.h"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

template <class T>
struct Job {
  Blocks<T> blocks;
  RowsCall call;
  void* output; // of a forward
  T* saved; // what a forward keeps; null: nothing
  RowsBackward pass; // of a backward, as is
};

template <class T>
struct Work {
  using Number = T;

  Parameters<T> parameters;
  Unit<T> unit{};
  T *x, *kept;

  NALU_BOTH Work(const Job<T>& job, Arena<T>& arena) : parameters(job.blocks, job.call, arena) {
    const StackLayer& layer = job.call.layer;
    const int64_t n = job.blocks.chunks.rows, a_row = kept_a_row(layer);
    unit.layer = layer;
    x = arena.take(layer.in * n);
    kept = arena.take((a_row + layer.gates) * n); // a gate per sample is there without outputs too
    Arena<T> planes(nullptr, 0, kept, 1);
    LayOut<T>(unit, n, arena, arena, planes);
    unit.grad_x = job.pass.input != nullptr ? arena.take(layer.in * n) : nullptr;
  }

  NALU_DEVICE void prepare(const RowsCall& call) const {
    parameters.read(call);
    device::prepare(unit, parameters.get(), true);
  }
};

// f(where the block has it, where the backward finds it), for each plane that is kept.
template <class T, class F>
NALU_INLINE void for_each_kept(
    const Job<T>& job, const Work<T>& work, int64_t begin, int64_t n, const F& f) {
  const int64_t out = job.call.layer.out, a_row = kept_a_row(job.call.layer);
  for (int64_t at = 0; at < a_row; at += out) {
    f(work.kept + at * job.blocks.chunks.rows, job.saved + a_row * begin + at * n);
  }
}

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) forward_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Work<T>) __shared__ unsigned char place[sizeof(Work<T>)];
  const Work<T>& work = begin_work<Work<T>>(given, job, place, shared);
  const RowsCall& call = job.call;
  work.prepare(call);
  const Chunks& chunks = job.blocks.chunks;
  const T* const own = work.parameters.get();
  const int64_t in = call.layer.in, out = call.layer.out;
  for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
    const int64_t begin = chunk * chunks.rows, n = job.blocks.rows_from(begin, call.B);
    read_rows(call.dtype, call.input, begin, n, in, work.x);
    forward<T>(work.unit, own, work.x, nullptr, true, n);
    write_rows(call.dtype, work.unit.y, begin, n, out, job.output);
    if (job.saved != nullptr) {
      for_each_kept(job, work, begin, n, [&](T* here, T* there) { copy(here, out * n, there); });
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) backward_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Work<T>) __shared__ unsigned char place[sizeof(Work<T>)];
  const Work<T>& work = begin_work<Work<T>>(given, job, place, shared);
  const RowsCall& call = job.call;
  work.prepare(call);
  const Chunks& chunks = job.blocks.chunks;
  const T* const own = work.parameters.get();
  const int64_t in = call.layer.in, out = call.layer.out, count = call.layer.parameters();
  for (int64_t part = blockIdx.x; part < chunks.parts; part += gridDim.x) {
    T* const gradients = job.blocks.sums + part * count;
    clear(gradients, count);
    clear_sums(work.unit);
    for (int64_t i = 0; i < chunks.chunks_a_part; ++i) {
      const int64_t chunk = part * chunks.chunks_a_part + i;
      if (chunk >= chunks.count) {
        break;
      }
      const int64_t begin = chunk * chunks.rows, n = job.blocks.rows_from(begin, call.B);
      read_rows(call.dtype, call.input, begin, n, in, work.x);
      read_rows(call.dtype, job.pass.grad_output, begin, n, out, work.unit.y);
      for_each_kept(job, work, begin, n, [&](T* here, T* there) { copy(there, out * n, here); });
      make_planes(work.unit, own, work.x, true, n);
      backward<T>(work.unit, own, work.x, work.unit.y, gradients, n);
      if (work.unit.grad_x != nullptr) {
        write_rows(call.dtype, work.unit.grad_x, begin, n, in, job.pass.input);
      }
    }
    finish(work.unit, gradients);
  }
}

// A block sums kWide columns, its threads every kPartsAtOnce-th part of that.
constexpr int kPartsAtOnce = kThreads / kWide;

struct ParameterGradients {
  void* of[kMostParameters];
};

// From the sums of the parts (parts, count).
template <class S>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(
    const Compute<S>* sums, int64_t parts, int64_t count, RowsCall call, ParameterGradients to) {
  using T = Compute<S>;
  __shared__ T of_threads[kThreads];
  const int thread = static_cast<int>(threadIdx.x), place = thread / kWide;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWide + thread % kWide;
  Cascade<T> sum;
  if (column < count) {
    for (int64_t part = place; part < parts; part += kPartsAtOnce) {
      sum += sums[part * count + column];
    }
  }
  of_threads[thread] = sum.total();
  tree_sum(of_threads + thread % kWide, kWide, place, kPartsAtOnce);
  if (place > 0) {
    return;
  }
  int64_t at = column;
  NALU_UNROLL
  for (int i = 0; i < kMostParameters; ++i) {
    if (at >= 0 && at < call.sizes[i] && to.of[i] != nullptr) {
      store<S>(to.of[i], at, of_threads[thread]);
    }
    at -= call.sizes[i];
  }
}

template <class T>
void forward_of(Call& call, const RowsCall& layer, void* output, void* saved) {
  const Job<T> job{blocks_of<T>(layer), layer, output, static_cast<T*>(saved), {}};
  launch_job<Work<T>>(call, job, kMostTeam, job.blocks.chunks.count, forward_kernel<T>);
}

template <class T>
void backward_of(Call& call, const RowsCall& layer, const RowsBackward& pass) {
  T* saved = static_cast<T*>(const_cast<void*>(pass.saved)); // only read
  Job<T> job{blocks_of<T>(layer), layer, nullptr, saved, pass};
  const int64_t parts = job.blocks.chunks.parts;
  job.blocks.sums = call.scratch<T>(parts * layer.layer.parameters());
  launch_job<Work<T>>(call, job, kMostTeam, parts, backward_kernel<T>);
  add_parts(call, layer, job.blocks.sums, parts, pass.parameters);
}

} // namespace

void add_parts(
    Call& call,
    const RowsCall& layer,
    const void* sums,
    int64_t parts,
    void* const (&to)[kMostParameters]) {
  ParameterGradients gradients{};
  std::copy(to, to + kMostParameters, gradients.of);
  if (std::all_of(to, to + kMostParameters, [](const void* one) { return one == nullptr; })) {
    return;
  }
  const int64_t count = layer.layer.parameters(), blocks = divide_up(count, kWide);
  dispatch(layer.dtype, [&](auto s) {
    using S = decltype(s);
    const auto* numbers = static_cast<const Compute<S>*>(sums);
    launch(call, blocks, sum_parts_kernel<S>, numbers, parts, count, layer, gradients);
  });
}

void forward_rows(Call& call, const RowsCall& layer, void* output, void* saved) {
  with_compute(layer.dtype, [&](auto t) { forward_of<decltype(t)>(call, layer, output, saved); });
}

void backward_rows(Call& call, const RowsCall& layer, const RowsBackward& pass) {
  with_compute(layer.dtype, [&](auto t) { backward_of<decltype(t)>(call, layer, pass); });
}

} // namespace cuda
} // namespace nalu
