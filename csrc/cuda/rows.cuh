// What the kernels over the rows of a batch share (rows.cu, unroll.cu): how blocks divide the rows,
// what a block has of memory and of the parameters, and how rows become columns.
#pragma once

#include <new>

#include "../rows/call.h"
#include "launch.cuh"
#include "team.cuh"

namespace nalu {
namespace cuda {

// Of a chunk's planes, and of the weights: a block counts in 32 bits.
constexpr int64_t kMostNumbers = int64_t{1} << 30;
// Of all blocks' scratch memory; one more block's may be above.
constexpr int64_t kMostScratch = int64_t{1} << 26;
// Bytes of the kernels' named arrays, their own and team.cuh's.
constexpr int kNamed = 9 << 10;
constexpr size_t kTeamNamed = device::kTile * device::kMostTeam * sizeof(double) + 2048;

template <class T>
struct Blocks {
  Chunks chunks;
  const T* parameters; // where they are one array of T already; null: each block makes that
  T* sums; // (parts, parameters)
  T* memory; // (blocks, size): what a block needs beside its shared memory
  int64_t size, shared_size;

  // Rows of a chunk, of B in all.
  NALU_INLINE int64_t rows_from(int64_t begin, int64_t B) const {
    const int64_t left = B - begin;
    return left < chunks.rows ? left : chunks.rows;
  }
};

template <class T>
Blocks<T> blocks_of(const RowsCall& call) {
  const StackLayer& layer = call.layer;
  Blocks<T> blocks{};
  blocks.chunks = chunks_of(call.B, layer.in, layer.out, layer.parameters());
  const int64_t plane = (2 * layer.in + layer.out) * (blocks.chunks.rows + device::kMostTeam);
  if (plane > kMostNumbers || layer.parameters() > kMostNumbers) {
    throw std::runtime_error("nalu_kernels: a layer of too many weights for one launch");
  }
  if (call.parameter_count == 1 && call.dtype == (sizeof(T) == 8 ? Dtype::float64 : Dtype::float32)) {
    blocks.parameters = static_cast<const T*>(call.parameters[0]);
  }
  return blocks;
}

// f(T{}) for the type in which tensors are computed.
template <class F>
void with_compute(Dtype dtype, const F& f) {
  if (dtype == Dtype::float64) {
    f(double{});
  } else {
    f(float{});
  }
}

// The parameters' gradients, contiguous, null where not wanted: of sums (units, parts, parameters) in
// the compute type, in the order of the parts. By one more launch, if any is wanted.
void add_parts(
    Call&,
    const RowsCall&,
    const void* sums,
    int64_t parts,
    int64_t units,
    void* const (&to)[kMostParameters]);

// Jobs have their Blocks, `blocks`, and of so many units() a job each, an OfUnit, by put_unit(u, job). A
// job's Work takes (const Job&, Arena<T>&): what a block works with.

// kernel(jobs) by at most `wanted` blocks of so many threads for each unit.
template <class Work, class Jobs>
void launch_jobs(Call& call, Jobs jobs, int threads, int64_t wanted, void (*kernel)(Jobs)) {
  using T = typename Work::Number;
  static_assert(sizeof(typename Jobs::OfUnit) + sizeof(Work) + kTeamNamed < kNamed);
  if (wanted == 0) {
    return;
  }
  Blocks<T>& own = jobs.blocks;
  const int most = most_shared(kNamed);
  own.shared_size = most / static_cast<int64_t>(sizeof(T));
  device::Arena<T> counted(nullptr, own.shared_size, nullptr);
  typename Jobs::OfUnit first;
  jobs.put_unit(0, first);
  Work(first, counted);
  const int64_t shared_bytes = counted.shared_used() * static_cast<int64_t>(sizeof(T));
  own.size = counted.global_used();
  int64_t blocks = divide_up(blocks_at_once(kernel, threads, shared_bytes, most), jobs.units());
  blocks = blocks < wanted ? blocks : wanted;
  const int64_t room = own.size > 0 ? kMostScratch / own.size / jobs.units() + 1 : blocks;
  blocks = blocks < room ? blocks : room;
  own.memory = call.scratch<T>(jobs.units() * blocks * own.size);
  launch_of(threads, shared_bytes, call, {blocks, jobs.units()}, kernel, jobs);
}

} // namespace cuda

namespace device {

// The job and the work of a block, in its shared memory.
template <class Work, class Jobs>
NALU_INLINE Work& begin_work(
    const Jobs& given, typename Jobs::OfUnit& job, void* place, void* shared) {
  using T = typename Work::Number;
  if (is_leader()) {
    given.put_unit(blockIdx.y, job);
    const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    T* memory = job.blocks.memory + block * job.blocks.size;
    Arena<T> arena(static_cast<T*>(shared), job.blocks.shared_size, memory);
    new (place) Work(job, arena);
  }
  __syncthreads();
  return *static_cast<Work*>(place);
}

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

// The parameters, one after the other in the compute type: where they are that, or in memory of the
// block's.
template <class T>
class Parameters {
 public:
  NALU_BOTH Parameters(const cuda::Blocks<T>& blocks, const RowsCall& call, Arena<T>& arena)
      : copied_(blocks.parameters == nullptr ? arena.take(call.layer.parameters()) : nullptr),
        own_(copied_ != nullptr ? copied_ : blocks.parameters) {}

  NALU_DEVICE void read(const RowsCall& call) const {
    if (copied_ == nullptr) {
      return;
    }
    T* to = copied_;
    for (int i = 0; i < call.parameter_count; to += call.sizes[i], ++i) {
      const void* from = call.parameters[i];
      with_storage<T>(call.dtype, [&](auto s) {
        for_each(call.sizes[i], [&](int64_t k) { to[k] = load<decltype(s)>(from, k); });
      });
    }
  }

  NALU_BOTH const T* get() const {
    return own_;
  }

 private:
  T* copied_;
  const T* own_;
};

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

} // namespace device
} // namespace nalu
