// Layers that go row by row, by ../rows/: a block of threads takes chunks of a batch's rows, transposed
// so that they lie along its threads.
//
// A block prepares the weights once for all of its chunks. What it works with lies in its shared
// memory as far as that goes. Sums over rows are made by parts, runs of chunks, and added in order.
#include "kernels.h"

#include <new>
#include <type_traits>

#include "launch.cuh"
#include "team.cuh"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

// Of a chunk's planes, and of the weights: a block counts in 32 bits.
constexpr int64_t kMostNumbers = int64_t{1} << 30;
// Of all blocks' scratch memory; one more block's may be above.
constexpr int64_t kMostScratch = int64_t{1} << 26;

template <class T>
struct Job {
  RowsCall call;
  Chunks chunks;
  const T* parameters; // where they are one array of T already; null: each block makes that
  void* output; // of a forward
  T* saved; // what a forward keeps; null: nothing
  RowsBackward pass; // of a backward, as is
  T* sums; // (parts, parameters)
  T* memory; // (blocks, size): what a block needs beside its shared memory
  int64_t size, shared_size;
};

// What a block works with.
template <class T>
struct Work {
  Unit<T> unit{};
  T *copied, *x, *kept;
  const T* own;

  NALU_BOTH Work(const Job<T>& job, Arena<T>& arena) {
    const StackLayer& layer = job.call.layer;
    const int64_t n = job.chunks.rows, a_row = kept_a_row(layer);
    unit.layer = layer;
    copied = job.parameters == nullptr ? arena.take(layer.parameters()) : nullptr;
    own = copied != nullptr ? copied : job.parameters;
    x = arena.take(layer.in * n);
    kept = arena.take((a_row + layer.gates) * n); // a gate per sample is there without outputs too
    Arena<T> planes(nullptr, 0, kept, 1);
    LayOut<T>(unit, n, arena, arena, planes);
    unit.grad_x = job.pass.input != nullptr ? arena.take(layer.in * n) : nullptr;
  }
};

// f(S{}) for the storage type of a tensor that is computed in T.
template <class T, class F>
NALU_INLINE void with_storage(Dtype dtype, const F& f) {
  if constexpr (sizeof(T) == 8) {
    f(double{});
  } else if (dtype == Dtype::float32) {
    f(float{});
  } else if (dtype == Dtype::bfloat16) {
    f(BFloat16{});
  } else {
    f(Float16{});
  }
}

// (columns, n) from n rows that may lie anywhere; and to rows one after the other.
template <class T>
NALU_INLINE void read_rows(
    Dtype dtype, const Rows& rows, int64_t begin, int64_t n, int64_t columns, T* to) {
  with_storage<T>(dtype, [&](auto s) {
    for_each_vector_of_rows<T>(n, columns, [&](int64_t r, int64_t c, One) {
      to[c * n + r] = load<decltype(s)>(rows, begin + r, c);
    });
  });
}
template <class T>
NALU_INLINE void write_rows(
    Dtype dtype, const T* from, int64_t begin, int64_t n, int64_t columns, void* to) {
  with_storage<T>(dtype, [&](auto s) {
    for_each_vector_of_rows<T>(n, columns, [&](int64_t r, int64_t c, One) {
      store<decltype(s)>(to, (begin + r) * columns + c, from[c * n + r]);
    });
  });
}

// The job and the work of a block, in its shared memory, with the weights prepared.
template <class T>
NALU_INLINE Work<T>& begin_work(const Job<T>& given, Job<T>& job, void* place, void* shared) {
  if (is_leader()) {
    job = given;
    Arena<T> arena(
        static_cast<T*>(shared), job.shared_size, job.memory + blockIdx.x * job.size);
    new (place) Work<T>(job, arena);
  }
  __syncthreads();
  Work<T>& work = *static_cast<Work<T>*>(place);
  const RowsCall& call = job.call;
  if (work.copied != nullptr) {
    T* to = work.copied;
    for (int i = 0; i < call.parameter_count; to += call.sizes[i], ++i) {
      const void* from = call.parameters[i];
      with_storage<T>(call.dtype, [&](auto s) {
        for_each(call.sizes[i], [&](int64_t k) { to[k] = load<decltype(s)>(from, k); });
      });
    }
  }
  prepare(work.unit, work.own, true);
  return work;
}

// f(where the block has it, where the backward finds it), for each plane that is kept.
template <class T, class F>
NALU_INLINE void for_each_kept(
    const Job<T>& job, const Work<T>& work, int64_t begin, int64_t n, const F& f) {
  const int64_t out = job.call.layer.out, a_row = kept_a_row(job.call.layer);
  for (int64_t at = 0; at < a_row; at += out) {
    f(work.kept + at * job.chunks.rows, job.saved + a_row * begin + at * n);
  }
}

// Rows of a chunk.
template <class T>
NALU_INLINE int64_t rows_from(const Job<T>& job, int64_t begin) {
  const int64_t left = job.call.B - begin;
  return left < job.chunks.rows ? left : job.chunks.rows;
}

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) forward_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Work<T>) __shared__ unsigned char place[sizeof(Work<T>)];
  const Work<T>& work = begin_work(given, job, place, shared);
  const RowsCall& call = job.call;
  const int64_t in = call.layer.in, out = call.layer.out;
  for (int64_t chunk = blockIdx.x; chunk < job.chunks.count; chunk += gridDim.x) {
    const int64_t begin = chunk * job.chunks.rows, n = rows_from(job, begin);
    read_rows(call.dtype, call.input, begin, n, in, work.x);
    forward<T>(work.unit, work.own, work.x, nullptr, true, n);
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
  const Work<T>& work = begin_work(given, job, place, shared);
  const RowsCall& call = job.call;
  const int64_t in = call.layer.in, out = call.layer.out, count = call.layer.parameters();
  for (int64_t part = blockIdx.x; part < job.chunks.parts; part += gridDim.x) {
    T* const gradients = job.sums + part * count;
    clear(gradients, count);
    clear_sums(work.unit);
    for (int64_t i = 0; i < job.chunks.chunks_a_part; ++i) {
      const int64_t chunk = part * job.chunks.chunks_a_part + i;
      if (chunk >= job.chunks.count) {
        break;
      }
      const int64_t begin = chunk * job.chunks.rows, n = rows_from(job, begin);
      read_rows(call.dtype, call.input, begin, n, in, work.x);
      read_rows(call.dtype, job.pass.grad_output, begin, n, out, work.unit.y);
      for_each_kept(job, work, begin, n, [&](T* here, T* there) { copy(there, out * n, here); });
      make_planes(work.unit, work.own, work.x, true, n);
      backward<T>(work.unit, work.own, work.x, work.unit.y, gradients, n);
      if (work.unit.grad_x != nullptr) {
        write_rows(call.dtype, work.unit.grad_x, begin, n, in, job.pass.input);
      }
    }
    finish(work.unit, gradients);
  }
}

// A block sums kWide columns, its threads every kPartsAtOnce-th part of that.
constexpr int kPartsAtOnce = kThreads / kWide;

// The gradients of the parameters, from those of the parts (parts, count).
template <class S>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(
    const Compute<S>* sums, int64_t parts, int64_t count, RowsCall call, RowsBackward pass) {
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
    if (at >= 0 && at < call.sizes[i] && pass.parameters[i] != nullptr) {
      store<S>(pass.parameters[i], at, of_threads[thread]);
    }
    at -= call.sizes[i];
  }
}

// The kernels' named arrays, their own and team.cuh's.
constexpr int kNamed = 9 << 10;
constexpr size_t kSums = kTile * kMostTeam * sizeof(double);
static_assert(sizeof(Job<double>) + sizeof(Work<double>) + kSums + 2048 < kNamed);

template <class T>
Job<T> job_of(const RowsCall& call) {
  const StackLayer& layer = call.layer;
  Job<T> job{};
  job.call = call;
  job.chunks = chunks_of(call.B, layer.in, layer.out, layer.parameters());
  const int64_t plane = (2 * layer.in + layer.out) * (job.chunks.rows + kMostTeam);
  if (plane > kMostNumbers || layer.parameters() > kMostNumbers) {
    throw std::runtime_error("nalu_kernels: a layer of too many weights for one launch");
  }
  if (call.parameter_count == 1 && call.dtype == (sizeof(T) == 8 ? Dtype::float64 : Dtype::float32)) {
    job.parameters = static_cast<const T*>(call.parameters[0]);
  }
  return job;
}

// By at most so many blocks.
template <class T>
void launch_job(Call& call, Job<T> job, int64_t wanted, void (*kernel)(Job<T>)) {
  if (wanted == 0) {
    return;
  }
  const int most = most_shared(kNamed);
  job.shared_size = most / static_cast<int64_t>(sizeof(T));
  Arena<T> counted(nullptr, job.shared_size, nullptr);
  Work<T>(job, counted);
  const int64_t shared_bytes = counted.shared_used() * static_cast<int64_t>(sizeof(T));
  job.size = counted.global_used();
  int64_t blocks = blocks_at_once(kernel, kMostTeam, shared_bytes, most);
  blocks = blocks < wanted ? blocks : wanted;
  const int64_t room = job.size > 0 ? kMostScratch / job.size + 1 : blocks;
  blocks = blocks < room ? blocks : room;
  job.memory = call.scratch<T>(blocks * job.size);
  launch_of(kMostTeam, shared_bytes, call, blocks, kernel, job);
}

template <class T>
void forward_of(Call& call, const RowsCall& layer, void* output, void* saved) {
  Job<T> job = job_of<T>(layer);
  job.output = output;
  job.saved = static_cast<T*>(saved);
  launch_job(call, job, job.chunks.count, forward_kernel<T>);
}

template <class S>
void backward_of(Call& call, const RowsCall& layer, const RowsBackward& pass) {
  using T = Compute<S>;
  Job<T> job = job_of<T>(layer);
  const int64_t count = layer.layer.parameters();
  job.saved = static_cast<T*>(const_cast<void*>(pass.saved)); // only read
  job.pass = pass;
  job.sums = call.scratch<T>(job.chunks.parts * count);
  launch_job(call, job, job.chunks.parts, backward_kernel<T>);
  bool any = false;
  for (const void* gradient : pass.parameters) {
    any = any || gradient != nullptr;
  }
  if (any) {
    const int64_t blocks = divide_up(count, kWide);
    launch(call, blocks, sum_parts_kernel<S>, job.sums, job.chunks.parts, count, layer, pass);
  }
}

} // namespace

void forward_rows(Call& call, const RowsCall& layer, void* output, void* saved) {
  if (layer.dtype == Dtype::float64) {
    forward_of<double>(call, layer, output, saved);
  } else {
    forward_of<float>(call, layer, output, saved);
  }
}

void backward_rows(Call& call, const RowsCall& layer, const RowsBackward& pass) {
  dispatch(layer.dtype, [&](auto s) { backward_of<decltype(s)>(call, layer, pass); });
}

} // namespace cuda
} // namespace nalu
