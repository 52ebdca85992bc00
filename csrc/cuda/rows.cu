// Layers that go row by row, by ../rows/: a block of threads takes chunks of a batch's rows, transposed
// so that they lie along its threads. Layers side by side have blocks of their own each.
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
struct Jobs {
  using OfUnit = Job<T>;

  Blocks<T> blocks; // the first unit's
  UnitsCall call;
  void* output;
  void* saved;
  UnitsBackward pass;

  NALU_BOTH int64_t units() const {
    return call.units;
  }

  // Into memory of the caller's: on a stack it would be in the way.
  NALU_BOTH void put_unit(int64_t u, Job<T>& job) const {
    const int64_t count = call.first.layer.parameters();
    job.blocks = blocks;
    if (blocks.parameters != nullptr) {
      job.blocks.parameters += u * count;
    }
    if (blocks.sums != nullptr) {
      job.blocks.sums += u * blocks.chunks.parts * count;
    }
    job.call = call.first;
    call.move(job.call, u);
    job.output = call.output(output, u);
    job.pass = pass.first;
    pass.move(job.pass, call, u);
    void* const kept = behind(saved, u * call.saved_bytes());
    job.saved = static_cast<T*>(kept != nullptr ? kept : const_cast<void*>(job.pass.saved));
  }
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
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) forward_kernel(Jobs<T> given) {
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
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) backward_kernel(Jobs<T> given) {
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

// From the sums of the parts (units, parts, count).
template <class S>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(
    const Compute<S>* sums, int64_t parts, int64_t count, RowsCall call, ParameterGradients to) {
  using T = Compute<S>;
  __shared__ T of_threads[kThreads];
  const int thread = static_cast<int>(threadIdx.x), place = thread / kWide;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWide + thread % kWide;
  const int64_t unit = blockIdx.y;
  sums += unit * parts * count;
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
      store<S>(to.of[i], unit * call.sizes[i] + at, of_threads[thread]);
    }
    at -= call.sizes[i];
  }
}

// f(jobs, first unit) of as many units at a time as `numbers` of scratch memory for each leave room for.
template <class T, class F>
void by_launches(
    Call& call, const UnitsCall& given, const UnitsBackward& pass, int64_t numbers, const F& f) {
  const int64_t room = kMostScratch / (numbers + 1) + 1;
  const int64_t most = room < kMostUnits ? room : kMostUnits;
  for (int64_t first = 0; first < given.units; first += most) {
    const int64_t left = given.units - first, count = left < most ? left : most;
    const UnitsCall part{given.unit(first), count, given.input_step};
    const UnitsBackward own{pass.unit(given, first), pass.grad_step};
    const size_t mark = call.mark();
    f(Jobs<T>{blocks_of<T>(part.first), part, nullptr, nullptr, own}, first);
    call.release(mark);
  }
}

// Numbers that a block needs, in whichever memory.
template <class T>
int64_t all_of_block(const UnitsCall& given, const UnitsBackward& pass) {
  const Jobs<T> jobs{blocks_of<T>(given.first), given, nullptr, nullptr, pass};
  Job<T> first;
  jobs.put_unit(0, first);
  Arena<T> counted(nullptr, 0, nullptr);
  Work<T>(first, counted);
  return counted.global_used();
}

template <class T>
void forward_of(Call& call, const UnitsCall& given, void* output, void* saved) {
  const int64_t numbers = all_of_block<T>(given, {});
  by_launches<T>(call, given, {}, numbers, [&](Jobs<T> jobs, int64_t first) {
    jobs.output = given.output(output, first);
    jobs.saved = behind(saved, first * given.saved_bytes());
    launch_jobs<Work<T>>(call, jobs, kMostTeam, jobs.blocks.chunks.count, forward_kernel<T>);
  });
}

template <class T>
void backward_of(Call& call, const UnitsCall& given, const UnitsBackward& pass) {
  const RowsCall& layer = given.first;
  const int64_t parts = blocks_of<T>(layer).chunks.parts, sums = parts * layer.layer.parameters();
  const int64_t numbers = sums + all_of_block<T>(given, pass);
  by_launches<T>(call, given, pass, numbers, [&](Jobs<T> jobs, int64_t) {
    jobs.blocks.sums = call.scratch<T>(jobs.units() * sums);
    launch_jobs<Work<T>>(call, jobs, kMostTeam, parts, backward_kernel<T>);
    add_parts(
        call, layer, jobs.blocks.sums, parts, jobs.units(), jobs.pass.first.parameters);
  });
}

} // namespace

void add_parts(
    Call& call,
    const RowsCall& layer,
    const void* sums,
    int64_t parts,
    int64_t units,
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
    launch(call, {blocks, units}, sum_parts_kernel<S>, numbers, parts, count, layer, gradients);
  });
}

void forward_rows(Call& call, const UnitsCall& given, void* output, void* saved) {
  with_compute(given.first.dtype, [&](auto t) {
    forward_of<decltype(t)>(call, given, output, saved);
  });
}

void backward_rows(Call& call, const UnitsCall& given, const UnitsBackward& pass) {
  with_compute(given.first.dtype, [&](auto t) { backward_of<decltype(t)>(call, given, pass); });
}

} // namespace cuda
} // namespace nalu
