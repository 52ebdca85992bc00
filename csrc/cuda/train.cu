// Trainings on a GPU: a block of threads for each that is under way, and a block takes one after the
// other, so that none waits for the longest.
#include "train.h"

#include <new>

#include "launch.cuh"
#include "team.cuh"

namespace nalu {
namespace cuda {

namespace {

using namespace device;

template <class T>
struct Job {
  Training training;
  TestSet<T> inside, outside;
  T* memory; // (blocks, size): what a block needs beside its shared memory
  int64_t size, shared_size;
  unsigned long long* next; // run that no block has taken
};

template <class T>
__global__ void __launch_bounds__(kMostTeam)
    fill_kernel(Training given, Samples samples, TestSet<T> set) {
  __shared__ Training training; // or each thread would have its own
  if (is_leader()) {
    training = given;
  }
  __syncthreads();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kBlockRows, left = set.rows - begin;
  set.fill(training, samples, begin, left < kBlockRows ? left : kBlockRows);
}

template <class T>
__global__ void __launch_bounds__(kMostTeam, sizeof(T) == 8 ? 2 : 4) train_kernel(Job<T> given) {
  NALU_DYNAMIC_SHARED(shared);
  __shared__ Job<T> job;
  alignas(Trainer<T>) __shared__ unsigned char place[sizeof(Trainer<T>)];
  __shared__ int64_t taken;
  if (is_leader()) {
    job = given;
    auto* units = reinterpret_cast<Unit<T>*>(shared);
    auto* numbers = reinterpret_cast<T*>(shared + sizeof(Unit<T>) * job.training.depth);
    Arena<T> arena(numbers, job.shared_size, job.memory + blockIdx.x * job.size);
    new (place) Trainer<T>(job.training, job.inside, job.outside, units, arena);
  }
  Trainer<T>& trainer = *reinterpret_cast<Trainer<T>*>(place);
  __syncthreads();
  const double deadline = now() + job.training.seconds;
  for (;;) {
    if (is_leader()) {
      taken = static_cast<int64_t>(atomicAdd(job.next, 1ull));
    }
    __syncthreads();
    const int64_t run = taken;
    if (run >= job.training.runs || now() >= deadline) {
      return;
    }
    trainer.train(run, deadline);
  }
}

__global__ void __launch_bounds__(kMostTeam) draw_kernel(Draw wanted) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kMostTeam + threadIdx.x;
  if (i >= wanted.count * wanted.rows) {
    return;
  }
  const uint32_t row[] = {static_cast<uint32_t>(i % wanted.rows)};
  RowGenerator<uint32_t> generator(
      wanted.seeds[i / wanted.rows], wanted.stream, wanted.step, row);
  for (int64_t column = 0; column < wanted.columns; ++column) {
    uint32_t bits[1];
    generator.next(bits);
    wanted.to[i * wanted.columns + column] = static_cast<float>(bits[0]) * 0x1p-24f;
  }
}

// The kernel's named arrays, its own and team.cuh's.
constexpr int kNamed = 9 << 10;
constexpr size_t kSums = (1 + kTile) * kMostTeam * sizeof(double);
static_assert(sizeof(Job<double>) + sizeof(Trainer<double>) + kSums + 2048 < kNamed);

// Threads for a training. It decides over the order of sums, so it is a matter of the stack alone. A
// small one has no work for many, and a GPU has room for the more of them.
int team_of(const Training& training) {
  int64_t widest = training.inputs();
  for (int64_t i = 0; i < training.depth; ++i) {
    widest = training.layers[i].out > widest ? training.layers[i].out : widest;
  }
  return widest <= 16 ? 32 : kMostTeam;
}

template <class T>
TestSet<T> test_set(Call& call, const Training& training, const Samples& samples) {
  T* memory = call.scratch<T>(TestSet<T>::size(training, samples));
  const TestSet<T> set = TestSet<T>::in(memory, training, samples);
  const int64_t blocks = divide_up(samples.rows, kBlockRows);
  launch_of(kMostTeam, 0, call, blocks, fill_kernel<T>, training, samples, set);
  return set;
}

template <class T>
void train_of(Call& call, const Training& training) {
  if (training.runs == 0) {
    return;
  }
  Unit<T> units[kMostLayers];
  Job<T> job{};
  job.training = training;
  static_assert(sizeof(Unit<T>) % 16 == 0);
  const auto units_bytes = static_cast<int64_t>(sizeof(Unit<T>)) * training.depth;
  const int most = most_shared(kNamed);
  job.shared_size = (most - units_bytes) / static_cast<int64_t>(sizeof(T));
  Arena<T> counted(nullptr, job.shared_size, nullptr);
  Trainer<T>(training, job.inside, job.outside, units, counted);
  const int64_t shared_bytes =
      units_bytes + counted.shared_used() * static_cast<int64_t>(sizeof(T));
  const int threads = team_of(training);
  const int64_t at_once = blocks_at_once(train_kernel<T>, threads, shared_bytes, most);
  const int64_t blocks = at_once < training.runs ? at_once : training.runs;
  job.inside = test_set<T>(call, training, training.inside);
  job.outside = test_set<T>(call, training, training.outside);
  job.size = counted.global_used();
  job.memory = call.scratch<T>(blocks * job.size);
  job.next = call.scratch<unsigned long long>(1);
  const auto stream = static_cast<cudaStream_t>(call.stream());
  check(cudaMemsetAsync(job.next, 0, sizeof(*job.next), stream), "cudaMemsetAsync");
  launch_of(threads, shared_bytes, call, blocks, train_kernel<T>, job);
}

} // namespace

void train(Call& call, const Training& training) {
  if (training.dtype == Dtype::float64) {
    train_of<double>(call, training);
  } else {
    train_of<float>(call, training);
  }
}

void draw(Call& call, const Draw& wanted) {
  launch_of(kMostTeam, 0, call, divide_up(wanted.count * wanted.rows, kMostTeam), draw_kernel, wanted);
}

} // namespace cuda
} // namespace nalu
