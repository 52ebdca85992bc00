// The stream of random numbers in vectors of rows, and the inputs that are made of it.
#pragma once

#include "../simd.h"

#include "../../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

inline void multiply_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
  const uint64_t product = uint64_t{a} * b;
  high = static_cast<uint32_t>(product >> 32);
  low = static_cast<uint32_t>(product);
}

using Rows32 = Vec<uint32_t>; // as many rows as a vector has floats

#if NALU_VECTOR_BYTES == 64
// By products of the even and of the odd elements; a swap of neighbours under a mask puts a half of
// these beside the other's. The masks of the products keep GCC from warning of its own header.
inline void multiply_wide(Rows32 a, uint32_t b, Rows32& high, Rows32& low) {
  constexpr __mmask16 evens = 0x5555, odds = 0xaaaa;
  const __m512i x = bitcast<__m512i>(a), y = _mm512_set1_epi64(b);
  const __m512i odd_x = bitcast<__m512i>(bitcast<Vec<uint64_t>>(a) >> 32);
  const __m512i even = _mm512_maskz_mul_epu32(0xff, x, y);
  const __m512i odd = _mm512_maskz_mul_epu32(0xff, odd_x, y);
  high = bitcast<Rows32>(_mm512_mask_shuffle_epi32(odd, evens, even, _MM_PERM_CDAB));
  low = bitcast<Rows32>(_mm512_mask_shuffle_epi32(even, odds, odd, _MM_PERM_CDAB));
}
#elif NALU_VECTOR_BYTES == 32
// By products of the even and of the odd elements.
inline void multiply_wide(Rows32 a, uint32_t b, Rows32& high, Rows32& low) {
  constexpr int odds = 0xaa;
  const __m256i x = bitcast<__m256i>(a), y = _mm256_set1_epi64x(b);
  const __m256i even = _mm256_mul_epu32(x, y), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
  high = bitcast<Rows32>(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, odds));
  low = bitcast<Rows32>(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), odds));
}
#elif NALU_VECTOR_BYTES
inline void multiply_wide(Rows32 a, uint32_t b, Rows32& high, Rows32& low) {
  for (int64_t i = 0; i < kLanes<uint32_t>; ++i) {
    uint32_t upper, lower;
    multiply_wide(a[i], b, upper, lower);
    high[i] = upper;
    low[i] = lower;
  }
}
#endif

} // namespace NALU_NAMESPACE
} // namespace nalu

#include "../../stream.h"

namespace nalu {
namespace NALU_NAMESPACE {

// v, and never a part of a fused multiply-add: the numbers are to be the same everywhere.
template <class V>
NALU_INLINE V apart(V v) {
#if defined(__GNUC__) && defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__GNUC__) && defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

inline Rows32 rows_from(int64_t first) {
  uint32_t lanes[kLanes<uint32_t>];
  for (int64_t i = 0; i < kLanes<uint32_t>; ++i) {
    lanes[i] = static_cast<uint32_t>(first + i);
  }
  return bitcast<Rows32>(lanes);
}

// Numbers below 2^24, exactly.
inline Vec<float> to_float(Rows32 bits) {
#if NALU_VECTOR_BYTES
  return __builtin_convertvector(bitcast<Vec<int32_t>>(bits), Vec<float>);
#else
  return static_cast<float>(bits);
#endif
}

} // namespace NALU_NAMESPACE
} // namespace nalu

#include "../../train/inputs.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Of uniform inputs on two intervals.
NALU_INLINE Vec<float> in_part(const Inputs<float>& inputs, Vec<float> u) {
  const Vec<float> doubled = u + u, one = splat<Vec<float>>(1);
  const auto second = doubled >= one;
  const Vec<float> within = second ? doubled - one : doubled;
  const auto either = [&](const float (&of)[2]) {
    return second ? splat<Vec<float>>(of[1]) : splat<Vec<float>>(of[0]);
  };
  return either(inputs.low) + apart(either(inputs.width) * within);
}

// A vector of rows, of which `count` are stored, from 24 random bits each. `plain` is inputs.plain,
// known outside of the loop.
template <bool plain, class T, class Count>
NALU_INLINE void write(const Inputs<T>& inputs, Rows32 bits, T* to, Count count) {
  if constexpr (std::is_same_v<T, float>) {
    if constexpr (plain) {
      const float step = inputs.width[0] * 0x1p-24f; // a power of two
      store<T>(to, inputs.low[0] + apart(step * to_float(bits)), count);
      return;
    }
    if (inputs.distribution == Distribution::uniform && inputs.two_parts) {
      store<T>(to, in_part(inputs, to_float(bits) * 0x1p-24f), count);
      return;
    }
  }
  uint32_t lanes[kLanes<uint32_t>];
  std::memcpy(lanes, &bits, sizeof bits);
  for (int64_t i = 0; i < count; ++i) {
    to[i] = inputs.value(lanes[i]);
  }
}

// f(generator, first row, lanes in use) over n rows, with as many vectors side by side as pay.
template <class F>
NALU_INLINE void for_each_generator(
    int64_t seed, int64_t stream, int64_t step, int64_t first, int64_t n, const F& f) {
  constexpr int64_t L = kLanes<uint32_t>;
  int64_t row = 0;
  for (; row + 2 * L <= n; row += 2 * L) {
    const Rows32 rows[] = {rows_from(first + row), rows_from(first + row + L)};
    f(RowGenerator<Rows32, 2>(seed, stream, step, rows), row, Full<float>{});
  }
  for (; row < n; row += L) {
    const Rows32 rows[] = {rows_from(first + row)};
    f(RowGenerator<Rows32, 1>(seed, stream, step, rows), row, Partial{n - row < L ? n - row : L});
  }
}

// The rows [begin, end) of a step's batch, as (columns, end - begin).
template <class T>
inline void draw_batch(
    const Inputs<T>& inputs,
    int64_t seed,
    int64_t stream,
    int64_t step,
    int64_t begin,
    int64_t end,
    int64_t columns,
    T* x) {
  const int64_t n = end - begin;
  const auto fill = [&](auto plain) {
    for_each_generator(seed, stream, step, begin, n, [&](auto generator, int64_t row, auto count) {
      constexpr int vectors = decltype(generator)::vectors;
      Rows32 bits[vectors];
      // Copies: what is captured would be read again after each store.
      const Inputs<T> own = inputs;
      const int64_t width = columns, stride = n;
      T* to = x + row;
      for (int64_t column = 0; column < width; ++column, to += stride) {
        generator.next(bits);
        for (int i = 0; i < vectors; ++i) {
          write<decltype(plain)::value>(own, bits[i], to + i * kLanes<float>, count);
        }
      }
    });
  };
  if (inputs.plain) {
    fill(std::true_type{});
  } else {
    fill(std::false_type{});
  }
}

inline void draw(const Draw& wanted) {
  for (int64_t s = 0; s < wanted.count; ++s) {
    float* to = wanted.to + s * wanted.rows * wanted.columns;
    const auto fill = [&](auto generator, int64_t row, auto count) {
      constexpr int64_t L = kLanes<float>;
      constexpr int vectors = decltype(generator)::vectors;
      Rows32 bits[vectors];
      for (int64_t column = 0; column < wanted.columns; ++column) {
        generator.next(bits);
        for (int i = 0; i < vectors; ++i) {
          float lanes[L];
          const Vec<float> u = to_float(bits[i]) * 0x1p-24f;
          std::memcpy(lanes, &u, sizeof u);
          for (int64_t lane = 0; lane < count; ++lane) {
            to[(row + i * L + lane) * wanted.columns + column] = lanes[lane];
          }
        }
      }
    };
    for_each_generator(wanted.seeds[s], wanted.stream, wanted.step, 0, wanted.rows, fill);
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
