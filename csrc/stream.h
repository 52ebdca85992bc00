// The random numbers of trainings: a function of (seed, stream, step, row, column), for every device
// and vector width alike. nalu_kernels/sweep/stream.py defines them, in words and in Python.
//
// U is uint32_t or a vector of it. Before including this file define NALU_NAMESPACE, NALU_INLINE and NALU_DEVICE,
// and declare in that namespace: multiply_wide(U a, uint32_t b, U& high, U& low).
//
// Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32, here with
// the seven rounds that they found to be enough); Blackman and Vigna 2021, "Scrambled linear
// pseudorandom number generators" (xoshiro128+, of whose outputs the upper 24 bits are used).
#pragma once

#include <cstdint>

namespace nalu {
namespace NALU_NAMESPACE {

// Streams, as nalu_kernels/sweep/stream.py has them: of noise, those of eight layers.
constexpr int64_t kTrainStream = 0, kShuffleStream = 3, kRestartStream = 5, kNoiseStream = 8;

// The numbers of rows, column after column, for N vectors of rows side by side: one alone waits for
// its own results.
template <class U, int N = 1>
class RowGenerator {
 public:
  static constexpr int vectors = N;

  NALU_INLINE RowGenerator(int64_t seed, int64_t stream, int64_t step, const U (&rows)[N]) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    const U zero = rows[0] - rows[0];
    NALU_UNROLL
    for (int i = 0; i < N; ++i) {
      state_[0][i] = rows[i];
      state_[1][i] = zero + static_cast<uint32_t>(step);
      state_[2][i] = zero + static_cast<uint32_t>(step >> 32);
      state_[3][i] = zero + static_cast<uint32_t>(stream);
    }
    for (int round = 0; round < 7; ++round) {
      NALU_UNROLL
      for (int i = 0; i < N; ++i) {
        U high0, low0, high1, low1;
        multiply_wide(state_[0][i], 0xD2511F53u, high0, low0);
        multiply_wide(state_[2][i], 0xCD9E8D57u, high1, low1);
        state_[0][i] = high1 ^ state_[1][i] ^ key0;
        state_[1][i] = low1;
        state_[2][i] = high0 ^ state_[3][i] ^ key1;
        state_[3][i] = low0;
      }
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    NALU_UNROLL
    for (int i = 0; i < N; ++i) {
      const U any = state_[0][i] | state_[1][i] | state_[2][i] | state_[3][i];
      state_[3][i] = any == zero ? zero + 1u : state_[3][i];
    }
  }

  // The four words, by which the generator begins.
  NALU_DEVICE const U& word(int i) const {
    return state_[i][0];
  }

  // 24 random bits of each row.
  NALU_INLINE void next(U (&bits)[N]) {
    NALU_UNROLL
    for (int i = 0; i < N; ++i) {
      U &s0 = state_[0][i], &s1 = state_[1][i], &s2 = state_[2][i], &s3 = state_[3][i];
      bits[i] = (s0 + s3) >> 8;
      const U t = s1 << 9;
      s2 ^= s0;
      s3 ^= s1;
      s1 ^= s2;
      s0 ^= s3;
      s2 ^= t;
      s3 = (s3 << 11) | (s3 >> 21);
    }
  }

 private:
  U state_[4][N];
};

// The place of a sample in the shuffled order of `rows`, for the epoch that the keys belong to.
struct Shuffle {
  uint32_t key[4];
  int64_t rows;
  int half;

  NALU_DEVICE Shuffle(int64_t seed, int64_t epoch, int64_t count) : rows(count), half(1) {
    const RowGenerator<uint32_t> generator(seed, kShuffleStream, epoch, {0u});
    for (int i = 0; i < 4; ++i) {
      key[i] = generator.word(i);
    }
    while ((int64_t{1} << 2 * half) < rows) {
      ++half;
    }
  }

  NALU_DEVICE int64_t operator()(int64_t position) const {
    const uint32_t mask = static_cast<uint32_t>((uint64_t{1} << half) - 1);
    do {
      uint32_t left = static_cast<uint32_t>(position >> half);
      uint32_t right = static_cast<uint32_t>(position) & mask;
      for (const uint32_t k : key) {
        uint32_t mixed = right + k;
        mixed = (mixed ^ mixed >> 16) * 0x85ebca6bu;
        mixed = (mixed ^ mixed >> 13) * 0xc2b2ae35u;
        mixed ^= mixed >> 16;
        const uint32_t next = left ^ (mixed & mask);
        left = right;
        right = next;
      }
      position = static_cast<int64_t>(left) << half | right;
    } while (position >= rows);
    return position;
  }
};

} // namespace NALU_NAMESPACE
} // namespace nalu
