// The random numbers of trainings: a function of (seed, stream, step, row, column), for every device
// and vector width alike. nalu_kernels/sweep/stream.py defines them, in words and in Python.
//
// U is uint32_t or a vector of it. Before including this file define NALU_NAMESPACE and NALU_INLINE,
// and declare in that namespace: multiply_wide(U a, uint32_t b, U& high, U& low).
//
// Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32, here with
// the seven rounds that they found to be enough); Blackman and Vigna 2021, "Scrambled linear
// pseudorandom number generators" (xoshiro128+, of whose outputs the upper 24 bits are used).
#pragma once

#include <cstdint>

namespace nalu {
namespace NALU_NAMESPACE {

template <class U>
struct Words {
  U w[4];
};

// A row's four words.
template <class U>
NALU_INLINE Words<U> philox(int64_t seed, int64_t stream, int64_t step, U rows) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  const U zero = rows - rows;
  U c0 = rows, c1 = zero + static_cast<uint32_t>(step);
  U c2 = zero + static_cast<uint32_t>(step >> 32), c3 = zero + static_cast<uint32_t>(stream);
  NALU_UNROLL
  for (int round = 0; round < 7; ++round) {
    U high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, high0, low0);
    multiply_wide(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The numbers of a row's columns, one after the other.
template <class U>
struct RowGenerator {
  U s0, s1, s2, s3;

  NALU_INLINE explicit RowGenerator(const Words<U>& words)
      : s0(words.w[0]), s1(words.w[1]), s2(words.w[2]), s3(words.w[3]) {
    const U any = s0 | s1 | s2 | s3, one = any - any + 1u;
    s3 = any == any - any ? one : s3;
  }

  // 24 random bits.
  NALU_INLINE U next() {
    const U result = s0 + s3;
    const U t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = (s3 << 11) | (s3 >> 21);
    return result >> 8;
  }
};

// The place of a sample in the shuffled order of `rows`, for the epoch that the keys belong to.
struct Shuffle {
  uint32_t key[4];
  int64_t rows;
  int half;

  Shuffle(int64_t seed, int64_t epoch, int64_t count) : rows(count), half(1) {
    const Words<uint32_t> words = philox<uint32_t>(seed, 3, epoch, 0u);
    for (int i = 0; i < 4; ++i) {
      key[i] = words.w[i];
    }
    while ((int64_t{1} << 2 * half) < rows) {
      ++half;
    }
  }

  int64_t operator()(int64_t position) const {
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
