// Recurrent cells over their steps, by ../rows/steps.h: a block of threads takes chunks of a batch's
// rows, each through all steps, transposed so that they lie along its threads.
//
// A block prepares the weights once for all of its chunks. What it works with lies in its shared
// memory as far as that goes. Sums over rows and steps are made by parts, runs of chunks, and added
// in order.
#include "kernels.h"

#include "rows.cuh"

#include "../rows/steps.h"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

// Rows of a tensor as columns of T, and back.
template <class T>
class Columns {
 public:
  NALU_BOTH Columns(const UnrollCall& call, int64_t, Arena<T>&) : call_(call) {}

  NALU_DEVICE void read(
      const Steps& from,
      int64_t t,
      int64_t next,
      const RowsOverTime& rows,
      int64_t columns,
      T* to) const {
    fetch(from, next, rows, columns);
    read_rows(call_.cell.dtype, of_step(from, t), rows.begin, rows.n, columns, to);
  }

  NALU_DEVICE void write(
      const T* from, int64_t columns, int64_t t, const RowsOverTime& rows, void* to) const {
    const int64_t begin = t * call_.cell.B + rows.begin;
    write_rows(call_.cell.dtype, from, begin, rows.n, columns, to);
  }

  NALU_DEVICE void round(int64_t count, const T* from, T* to) const {
    with_storage<T>(call_.cell.dtype, [&](auto s) {
      for_each(count, [&](int64_t k) {
        auto narrowed = s;
        narrow(from[k], narrowed);
        to[k] = widen(narrowed);
      });
    });
  }

 private:
  NALU_DEVICE int64_t bytes() const {
    const Dtype dtype = call_.cell.dtype;
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
  }
  NALU_DEVICE Rows of_step(const Steps& steps, int64_t t) const {
    const char* data = static_cast<const char*>(steps.data) + t * steps.step_stride * bytes();
    return {data, steps.row_stride, steps.col_stride};
  }

  // Into the cache, while the step before it computes: a step would wait for its memory otherwise.
  NALU_DEVICE void fetch(
      const Steps& from, int64_t t, const RowsOverTime& rows, int64_t columns) const {
    if (t < 0 || t >= call_.T) {
      return;
    }
    const Rows all = of_step(from, t);
    const int width = static_cast<int>(columns), count = static_cast<int>(rows.n) * width;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += team()) {
      const int row = i / width, column = i - row * width;
      const int64_t at = (rows.begin + row) * all.row_stride + column * all.col_stride;
      prefetch(static_cast<const char*>(all.data) + at * bytes());
    }
  }

  const UnrollCall& call_;
};

template <class T>
struct Job {
  Blocks<T> blocks;
  UnrollCall call;
  void *output, *states; // of a forward
  bool backward;
  UnrollBackward pass; // of a backward

  using OfUnit = Job;
  static constexpr int64_t units() {
    return 1;
  }
  NALU_BOTH void put_unit(int64_t, Job& job) const {
    job = *this;
  }
};

template <class T>
struct Work {
  using Number = T;

  Parameters<T> parameters;
  Unroller<T, Columns<T>, const T*> unroller;

  NALU_BOTH Work(const Job<T>& job, Arena<T>& arena)
      : parameters(job.blocks, job.call.cell, arena),
        unroller(job.call, parameters.get(), job.blocks.chunks.rows, job.backward, arena) {}

  NALU_DEVICE void prepare(const RowsCall& call) const {
    parameters.read(call);
    unroller.prepare();
  }
};

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) forward_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Work<T>) __shared__ unsigned char place[sizeof(Work<T>)];
  const Work<T>& work = begin_work<Work<T>>(given, job, place, shared);
  work.prepare(job.call.cell);
  const Chunks& chunks = job.blocks.chunks;
  for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
    const int64_t begin = chunk * chunks.rows, n = job.blocks.rows_from(begin, job.call.cell.B);
    work.unroller.forward(begin, n, job.output, job.states);
  }
}

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 3) backward_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Work<T>) __shared__ unsigned char place[sizeof(Work<T>)];
  const Work<T>& work = begin_work<Work<T>>(given, job, place, shared);
  work.prepare(job.call.cell);
  const Chunks& chunks = job.blocks.chunks;
  const int64_t parameters = job.call.cell.layer.parameters();
  for (int64_t part = blockIdx.x; part < chunks.parts; part += gridDim.x) {
    T* const gradients = job.blocks.sums + part * parameters;
    work.unroller.begin_sums(gradients);
    const int64_t first = part * chunks.chunks_a_part, behind = first + chunks.chunks_a_part;
    for (int64_t chunk = first; chunk < behind && chunk < chunks.count; ++chunk) {
      const int64_t begin = chunk * chunks.rows, n = job.blocks.rows_from(begin, job.call.cell.B);
      work.unroller.backward(begin, n, job.pass, gradients);
    }
    work.unroller.end_sums(gradients);
  }
}

// Threads of a block: one warp, whose barriers cost nearly nothing, where a step has no work for more.
// A matter of the shape alone, for it decides over the order of sums.
template <class T>
int team_of(const Job<T>& job) {
  constexpr int warp = 32, numbers_of_thread = 4;
  const int64_t numbers = job.call.cell.layer.in * job.blocks.chunks.rows;
  return numbers <= warp * numbers_of_thread ? warp : kMostTeam;
}

template <class T>
void forward_of(Call& call, const UnrollCall& given, void* output, void* states) {
  const Job<T> job{blocks_of<T>(given.cell), given, output, states, false, {}};
  launch_jobs<Work<T>>(call, job, team_of(job), job.blocks.chunks.count, forward_kernel<T>);
}

template <class T>
void backward_of(Call& call, const UnrollCall& given, const UnrollBackward& pass) {
  Job<T> job{blocks_of<T>(given.cell), given, nullptr, nullptr, true, pass};
  const int64_t parts = job.blocks.chunks.parts;
  job.blocks.sums = call.scratch<T>(parts * given.cell.layer.parameters());
  launch_jobs<Work<T>>(call, job, team_of(job), parts, backward_kernel<T>);
  add_parts(call, given.cell, job.blocks.sums, parts, 1, pass.parameters);
}

} // namespace

void unroll_forward(Call& call, const UnrollCall& given, void* output, void* states) {
  with_compute(given.cell.dtype, [&](auto t) {
    forward_of<decltype(t)>(call, given, output, states);
  });
}

void unroll_backward(Call& call, const UnrollCall& given, const UnrollBackward& pass) {
  with_compute(given.cell.dtype, [&](auto t) { backward_of<decltype(t)>(call, given, pass); });
}

} // namespace cuda
} // namespace nalu
