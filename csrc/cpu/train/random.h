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

#if NALU_VECTOR_BYTES == 64 || NALU_VECTOR_BYTES == 32
// Products of the even and of the odd elements.
inline void multiply_wide(Rows32 a, uint32_t b, Rows32& high, Rows32& low) {
  const Vec<uint64_t> x = bitcast<Vec<uint64_t>>(a), odd_x = x >> 32;
#if NALU_VECTOR_BYTES == 64
  // The masks keep GCC from warning of its own header.
  const __m512i y = _mm512_set1_epi64(b);
  const auto even = bitcast<Vec<uint64_t>>(_mm512_maskz_mul_epu32(0xff, bitcast<__m512i>(x), y));
  const auto odd = bitcast<Vec<uint64_t>>(_mm512_maskz_mul_epu32(0xff, bitcast<__m512i>(odd_x), y));
#else
  const __m256i y = _mm256_set1_epi64x(b);
  const auto even = bitcast<Vec<uint64_t>>(_mm256_mul_epu32(bitcast<__m256i>(x), y));
  const auto odd = bitcast<Vec<uint64_t>>(_mm256_mul_epu32(bitcast<__m256i>(odd_x), y));
#endif
  constexpr uint64_t upper = 0xffffffff00000000u;
  high = bitcast<Rows32>((even >> 32) | (odd & upper));
  low = bitcast<Rows32>((even & ~upper) | (odd << 32));
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

// The first `count` of a vector of floats, as T.
template <class T, class Count>
inline void store_floats(T* to, Vec<float> v, Count count) {
  if constexpr (std::is_same_v<T, float>) {
    store<float>(to, v, count);
  } else {
    float lanes[kLanes<float>];
    std::memcpy(lanes, &v, sizeof v);
    for (int64_t i = 0; i < count; ++i) {
      to[i] = lanes[i];
    }
  }
}

// The inverse of the normal distribution's function. Source: Wichura 1988, algorithm AS 241 (PPND16).
inline double normal_quantile(double p) {
  const double q = p - 0.5;
  const auto ratio = [](double r, const double (&a)[8], const double (&b)[8]) {
    double above = a[7], below = b[7];
    for (int i = 6; i >= 0; --i) {
      above = above * r + a[i];
      below = below * r + b[i];
    }
    return above / below;
  };
  if (q >= -0.425 && q <= 0.425) {
    constexpr double a[] = {
        3.3871328727963666080e0,
        1.3314166789178437745e+2,
        1.9715909503065514427e+3,
        1.3731693765509461125e+4,
        4.5921953931549871457e+4,
        6.7265770927008700853e+4,
        3.3430575583588128105e+4,
        2.5090809287301226727e+3};
    constexpr double b[] = {
        1.0,
        4.2313330701600911252e+1,
        6.8718700749205790830e+2,
        5.3941960214247511077e+3,
        2.1213794301586595867e+4,
        3.9307895800092710610e+4,
        2.8729085735721942674e+4,
        5.2264952788528545610e+3};
    return q * ratio(0.180625 - q * q, a, b);
  }
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  double magnitude;
  if (r <= 5) {
    constexpr double a[] = {
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4};
    constexpr double b[] = {
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9};
    magnitude = ratio(r - 1.6, a, b);
  } else {
    constexpr double a[] = {
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7};
    constexpr double b[] = {
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15};
    magnitude = ratio(r - 5, a, b);
  }
  return q < 0 ? -magnitude : magnitude;
}

// Where the numbers of a training, or of its runs, are distributed.
template <class T>
struct Inputs {
  Distribution distribution;
  bool two_parts;
  T low[2], width[2];
  double mean, deviation, p_low, p_width, least, most;

  explicit Inputs(const Training& training) : distribution(training.distribution) {
    const double* c = training.constants;
    if (distribution == Distribution::uniform) {
      for (int part = 0; part < 2; ++part) {
        low[part] = static_cast<T>(c[2 * part]);
        width[part] = static_cast<T>(c[2 * part + 1]) - low[part];
      }
      two_parts = c[0] != c[2] || c[1] != c[3];
    } else {
      mean = c[0], deviation = c[1], p_low = c[2], p_width = c[3], least = c[4], most = c[5];
    }
  }

  // A vector of rows, of which `count` are stored, from 24 random bits each. `plain`: uniform on one
  // interval, which is known outside of the loop.
  template <bool plain, class Count>
  NALU_INLINE void write(Rows32 bits, T* to, Count count) const {
    if constexpr (plain && std::is_same_v<T, float>) {
      store<T>(to, low[0] + apart(width[0] * 0x1p-24f * to_float(bits)), count); // a power of two
    } else if (distribution == Distribution::uniform) {
      const Vec<float> u = to_float(bits) * 0x1p-24f;
      if constexpr (std::is_same_v<T, float>) {
        store<T>(to, two_parts ? in_part(u) : low[0] + apart(width[0] * u), count);
      } else {
        float lanes[kLanes<float>];
        std::memcpy(lanes, &u, sizeof u);
        for (int64_t i = 0; i < count; ++i) {
          const T one = lanes[i];
          const int part = two_parts && one >= T(0.5);
          const T within = two_parts ? 2 * one - part : one;
          to[i] = low[part] + apart(width[part] * within);
        }
      }
    } else {
      uint32_t lanes[kLanes<uint32_t>];
      std::memcpy(lanes, &bits, sizeof bits);
      for (int64_t i = 0; i < count; ++i) {
        const double p = p_low + apart(p_width * ((lanes[i] + 0.5) * 0x1p-24));
        const double x = mean + apart(deviation * normal_quantile(p));
        to[i] = static_cast<T>(x < least ? least : (x > most ? most : x));
      }
    }
  }

  NALU_INLINE Vec<float> in_part(Vec<float> u) const {
    const Vec<float> doubled = u + u, one = splat<Vec<float>>(1);
    const auto second = doubled >= one;
    const Vec<float> within = second ? doubled - one : doubled;
    const Vec<float> from = second ? splat<Vec<float>>(low[1]) : splat<Vec<float>>(low[0]);
    const Vec<float> across = second ? splat<Vec<float>>(width[1]) : splat<Vec<float>>(width[0]);
    return from + apart(across * within);
  }
};

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
    int64_t step,
    int64_t begin,
    int64_t end,
    int64_t columns,
    T* x) {
  const int64_t n = end - begin;
  const auto fill = [&](auto plain) {
    for_each_generator(seed, 0, step, begin, n, [&](auto generator, int64_t row, auto count) {
      constexpr int vectors = decltype(generator)::vectors;
      Rows32 bits[vectors];
      for (int64_t column = 0; column < columns; ++column) {
        generator.next(bits);
        for (int i = 0; i < vectors; ++i) {
          T* to = x + column * n + row + i * kLanes<float>;
          inputs.template write<decltype(plain)::value>(bits[i], to, count);
        }
      }
    });
  };
  if (inputs.distribution == Distribution::uniform && !inputs.two_parts) {
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
