// Vectors as wide as NALU_VECTOR_BYTES (0: plain scalars), and exp, log and tanh on them.
//
// One algorithm for every lane and every width, so a value never depends on where in an array it
// stands. Arguments are reduced until a short series is exact to well below an ulp; each function is
// within 3 ulps, keeps NaN, and has the right limits at 0 and infinity. Subnormal arguments and
// results are honoured.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

// The loops live in lambdas; left as calls they would reload what they capture at every step.
#ifdef __GNUC__
#define NALU_INLINE inline __attribute__((always_inline))
#else
#define NALU_INLINE inline
#endif
// For sources that GPUs share.
#define NALU_DEVICE
#define NALU_APART
#define NALU_BOTH

#if defined(__clang__)
#define NALU_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define NALU_UNROLL _Pragma("GCC unroll 16")
#else
#define NALU_UNROLL
#endif

#include "../half.h"

namespace nalu {
namespace NALU_NAMESPACE {

#if NALU_VECTOR_BYTES
template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(NALU_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int64_t kLanes = NALU_VECTOR_BYTES / sizeof(T);
template <class V>
using Scalar = std::remove_cv_t<std::remove_reference_t<decltype(V{}[0])>>;
#else
template <class T>
using Vec = T;
template <class T>
constexpr int64_t kLanes = 1;
template <class V>
using Scalar = V;
#endif

template <class To, class From>
inline To bitcast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class V>
inline V splat(Scalar<V> value) {
  return value - V{}; // exact for every value, -0 and NaN included, and nothing to compute
}

// How many lanes of a vector are in use: all of them, known when compiling, or the first few.
template <class T>
struct Full {
  constexpr operator int64_t() const {
    return kLanes<T>;
  }
};
using Partial = int64_t;

// Asks for the cache line of an address, which need not be one.
inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  static_cast<void>(address);
#endif
}

// Fewer than kLanes elements. Lanes that are not in use read as 0.
#if NALU_VECTOR_BYTES == 64
inline Vec<float> load_few(const float* from, int64_t count) {
  return bitcast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), from));
}
inline Vec<double> load_few(const double* from, int64_t count) {
  return bitcast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1 << count) - 1), from));
}
inline void store_few(float* to, Vec<float> v, int64_t count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1 << count) - 1), bitcast<__m512>(v));
}
inline void store_few(double* to, Vec<double> v, int64_t count) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1 << count) - 1), bitcast<__m512d>(v));
}
#elif NALU_VECTOR_BYTES == 32
inline __m256i first_of_8(int64_t count) {
  const auto lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
inline __m256i first_of_4(int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline Vec<float> load_few(const float* from, int64_t count) {
  return bitcast<Vec<float>>(_mm256_maskload_ps(from, first_of_8(count)));
}
inline Vec<double> load_few(const double* from, int64_t count) {
  return bitcast<Vec<double>>(_mm256_maskload_pd(from, first_of_4(count)));
}
// In pieces, for AMD's processors take 12 cycles and more for a masked store.
inline void store_few(float* to, Vec<float> v, int64_t count) {
  const __m256 lanes = bitcast<__m256>(v);
  __m128 rest = _mm256_castps256_ps128(lanes);
  if (count & 4) {
    _mm_storeu_ps(to, rest);
    rest = _mm256_extractf128_ps(lanes, 1);
    to += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(to), rest);
    rest = _mm_movehl_ps(rest, rest);
    to += 2;
  }
  if (count & 1) {
    _mm_store_ss(to, rest);
  }
}
inline void store_few(double* to, Vec<double> v, int64_t count) {
  const __m256d lanes = bitcast<__m256d>(v);
  __m128d rest = _mm256_castpd256_pd128(lanes);
  if (count & 2) {
    _mm_storeu_pd(to, rest);
    rest = _mm256_extractf128_pd(lanes, 1);
    to += 2;
  }
  if (count & 1) {
    _mm_store_sd(to, rest);
  }
}
#else
template <class T>
inline Vec<T> load_few(const T* from, int64_t count) {
  T lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) {
    lanes[i] = from[i];
  }
  return bitcast<Vec<T>>(lanes);
}
template <class T>
inline void store_few(T* to, Vec<T> v, int64_t count) {
  T lanes[kLanes<T>];
  std::memcpy(lanes, &v, sizeof v);
  for (int64_t i = 0; i < count; ++i) {
    to[i] = lanes[i];
  }
}
#endif

template <class T, class S, class Count>
inline Vec<T> load(const S* from, Count count) {
  Vec<T> v{};
  if constexpr (!std::is_same_v<S, T>) {
    T lanes[kLanes<T>] = {};
    for (int64_t i = 0; i < count; ++i) {
      lanes[i] = widen(from[i]);
    }
    std::memcpy(&v, lanes, sizeof v);
  } else if constexpr (std::is_same_v<Count, Partial>) {
    v = load_few(from, count);
  } else {
    std::memcpy(&v, from, sizeof v);
  }
  return v;
}

template <class T, class S, class Count>
inline void store(S* to, Vec<T> v, Count count) {
  if constexpr (!std::is_same_v<S, T>) {
    T lanes[kLanes<T>];
    std::memcpy(lanes, &v, sizeof v);
    for (int64_t i = 0; i < count; ++i) {
      narrow(lanes[i], to[i]);
    }
  } else if constexpr (std::is_same_v<Count, Partial>) {
    store_few(to, v, count);
  } else {
    std::memcpy(to, &v, sizeof v);
  }
}

// Halves are added until one lane is left.
template <class T, size_t bytes = sizeof(Vec<T>), class V>
inline T sum_lanes(V v) {
  if constexpr (bytes == sizeof(T)) {
    return bitcast<T>(v);
  } else {
#if NALU_VECTOR_BYTES
    typedef T Half __attribute__((vector_size(bytes / 2)));
    Half halves[2];
    std::memcpy(&halves, &v, sizeof v);
    return sum_lanes<T, bytes / 2>(halves[0] + halves[1]);
#endif
  }
}

// f(offset, count) over n elements, a vector at a time.
template <class T, class F>
NALU_INLINE void for_each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    f(i, Full<T>{});
  }
  if (i < n) {
    f(i, Partial{n - i});
  }
}

#if NALU_VECTOR_BYTES
// The lanes that `lane` names, of both vectors one after the other.
template <int... lane, class V>
inline V shuffle(V a, V b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, lane...);
#else
  typedef decltype(a < b) Mask;
  return __builtin_shuffle(a, b, Mask{lane...});
#endif
}

// a0 b0 a1 b1 ... of the lower halves, or of the upper.
template <class V, bool upper, int... i>
inline V interleave(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int lanes = sizeof...(i), start = upper ? lanes / 2 : 0;
  return shuffle<(start + i / 2 + (i % 2) * lanes)...>(a, b);
}

// The lanes of even number of both vectors one after the other, or those of odd number.
template <class V, bool odd, int... i>
inline V separate(V a, V b, std::integer_sequence<int, i...>) {
  return shuffle<(2 * i + odd)...>(a, b);
}

// Each lane plus that `width` further: a's where the lane's number has no bit of `width`, else b's.
template <int width, class V, int... i>
inline V fold(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int lanes = sizeof...(i);
  return shuffle<(i & width ? lanes + i - width : i)...>(a, b) +
      shuffle<(i & width ? lanes + i : i + width)...>(a, b);
}
#endif

// The sums of each vector's lanes, added as in sum_lanes.
template <class T, int vectors = kLanes<T>>
NALU_INLINE Vec<T> sums_of_lanes(Vec<T> (&of)[kLanes<T>]) {
#if NALU_VECTOR_BYTES
  if constexpr (vectors > 1) {
    constexpr int width = vectors / 2;
    NALU_UNROLL
    for (int i = 0; i < width; ++i) {
      of[i] = fold<width>(of[i], of[i + width], std::make_integer_sequence<int, kLanes<T>>{});
    }
    return sums_of_lanes<T, width>(of);
  }
#endif
  return of[0];
}

// The square matrix whose rows are the vectors: log2(lanes) perfect shuffles.
template <class T, int round = 1>
NALU_INLINE void transpose(Vec<T> (&rows)[kLanes<T>]) {
#if NALU_VECTOR_BYTES
  constexpr int L = kLanes<T>;
  if constexpr (round < L) {
    constexpr auto lanes = std::make_integer_sequence<int, L>{};
    Vec<T> shuffled[L];
    NALU_UNROLL
    for (int i = 0; i < L / 2; ++i) {
      shuffled[2 * i] = interleave<Vec<T>, false>(rows[i], rows[i + L / 2], lanes);
      shuffled[2 * i + 1] = interleave<Vec<T>, true>(rows[i], rows[i + L / 2], lanes);
    }
    NALU_UNROLL
    for (int i = 0; i < L; ++i) {
      rows[i] = shuffled[i];
    }
    transpose<T, 2 * round>(rows);
  }
#else
  static_cast<void>(rows);
#endif
}

// Format constants. `magic` added to a small number leaves its nearest integer in the low bits.
template <class T>
struct Format;

template <>
struct Format<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23;
  static constexpr Int bias = 127;
  static constexpr float magic = 0x1.8p23f;
  static constexpr Int sqrt_half = 0x3f3504f3;
  // ln 2 in two parts, the first short enough for exact products with exponents.
  static constexpr float ln2_high = 0x1.62e3p-1f;
  static constexpr float ln2_low = 0x1.2fefa4p-17f;
  static constexpr float exp_underflow = -105;
  static constexpr float exp_overflow = 90;
  static constexpr int exp_terms = 7;
};

template <>
struct Format<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52;
  static constexpr Int bias = 1023;
  static constexpr double magic = 0x1.8p52;
  static constexpr Int sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1;
  static constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double exp_underflow = -746;
  static constexpr double exp_overflow = 711;
  static constexpr int exp_terms = 13;
};

template <class V>
using Int = Vec<typename Format<Scalar<V>>::Int>;

// The lanes in use; 0 in the others.
template <class T, class Count>
NALU_INLINE Vec<T> first_lanes(Vec<T> v, Count count) {
#if NALU_VECTOR_BYTES
  if constexpr (std::is_same_v<Count, Partial>) {
    using I = Scalar<Int<Vec<T>>>;
    I lanes[kLanes<T>];
    NALU_UNROLL
    for (int i = 0; i < kLanes<T>; ++i) {
      lanes[i] = i;
    }
    const Int<Vec<T>> used = bitcast<Int<Vec<T>>>(lanes) < static_cast<I>(count);
    return bitcast<Vec<T>>(bitcast<Int<Vec<T>>>(v) & used);
  }
#endif
  static_cast<void>(count);
  return v;
}

template <class V>
inline V abs(V x) {
  constexpr auto magnitude = std::numeric_limits<Scalar<Int<V>>>::max();
  return bitcast<V>(bitcast<Int<V>>(x) & magnitude);
}

// -1, 0 or 1; 0 for NaN, as in torch.
template <class V>
inline V sign(V x) {
  const V zero{}, one = splat<V>(1);
  return x > zero ? one : (x < zero ? -one : zero);
}

// 2^n for n in the range of normal numbers.
template <class V>
inline V power_of_two(Int<V> n) {
  using F = Format<Scalar<V>>;
  return bitcast<V>((n + F::bias) << F::mantissa);
}

template <class T>
struct InverseFactorials {
  T of[Format<T>::exp_terms + 1];
};

template <class T>
constexpr InverseFactorials<T> inverse_factorials() {
  InverseFactorials<T> result{};
  double factorial = 1;
  for (int i = 0; i <= Format<T>::exp_terms; ++i) {
    factorial *= i > 0 ? i : 1;
    result.of[i] = static_cast<T>(1 / factorial);
  }
  return result;
}

// x = n ln 2 + r with |r| <= ln(2) / 2; returns exp(r) - 1 and sets n.
template <class V>
inline V expm1_reduced(V x, Int<V>& n) {
  using T = Scalar<V>;
  using F = Format<T>;
  constexpr T log2e = static_cast<T>(1.44269504088896340735992468100189214L);
  const V shifted = x * log2e + F::magic;
  n = bitcast<Int<V>>(shifted) - bitcast<Int<V>>(splat<V>(F::magic));
  const V k = shifted - F::magic;
  const V r = (x - k * F::ln2_high) - k * F::ln2_low;
  // r + r^2 (1/2! + r/3! + r^2/4! + ...)
  constexpr auto coefficients = inverse_factorials<T>();
  V p = splat<V>(coefficients.of[F::exp_terms]);
  for (int i = F::exp_terms - 1; i >= 2; --i) {
    p = p * r + coefficients.of[i];
  }
  return r + (r * r) * p;
}

template <class V>
inline V exp(V x) {
  using F = Format<Scalar<V>>;
  const V low = splat<V>(F::exp_underflow), high = splat<V>(F::exp_overflow);
  x = x < low ? low : x; // a NaN passes both comparisons
  x = x > high ? high : x;
  Int<V> n;
  const V q = expm1_reduced(x, n);
  // In two steps: 2^n itself may lie outside the normal range where the result does not.
  const Int<V> half = n >> 1;
  return ((splat<V>(1) + q) * power_of_two<V>(half)) * power_of_two<V>(n - half);
}

constexpr bool kOneLog = false;

// For x >= 0 or NaN; with `normal`, not 0 and not subnormal either, which saves a fifth of the time.
template <bool normal, class V>
NALU_INLINE V log(V x) {
  using T = Scalar<V>;
  using F = Format<T>;
  constexpr int up = F::mantissa + 2;
  const V smallest = splat<V>(std::numeric_limits<T>::min());
  const V infinity = splat<V>(std::numeric_limits<T>::infinity());
  V scaled = x, shift{};
  if constexpr (!normal) {
    scaled = x < smallest ? x * static_cast<T>(int64_t{1} << up) : x;
    shift = x < smallest ? splat<V>(static_cast<T>(-up)) : V{};
  }
  // scaled = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2))
  const Int<V> bits = bitcast<Int<V>>(scaled);
  const Int<V> e = (bits - F::sqrt_half) >> F::mantissa;
  const V f = bitcast<V>(bits - (e << F::mantissa)) - static_cast<T>(1);
  const Int<V> magic = bitcast<Int<V>>(splat<V>(F::magic));
  V k = bitcast<V>(e + magic) - F::magic;
  if constexpr (!normal) {
    k += shift;
  }
  // f - log(1 + f), so that the leading term is exact.
  V rest;
  if constexpr (std::is_same_v<T, float>) {
    // f^2/2 - f^3 P(f), without the division that would take half of the time: P is the minimax
    // polynomial for log(1 + f), relative error 2^-27 (Remez).
    constexpr float P[] = {
        0x1.555554p-2f,
        -0x1.000228p-2f,
        0x1.99a00ap-3f,
        -0x1.54722ap-3f,
        0x1.22d9d8p-3f,
        -0x1.0d8618p-3f,
        0x1.055dd2p-3f,
        -0x1.38b6d6p-4f};
    V p = splat<V>(P[7]);
    for (int i = 6; i >= 0; --i) {
      p = p * f + P[i];
    }
    const V square = f * f;
    rest = square * 0.5f - square * f * p;
  } else {
    // s (f - s^2 (2/3 + 2/5 s^2 + 2/7 s^4 + ...)) with s = f / (2 + f): the series of 2 artanh s.
    const V s = f / (f + 2.0);
    const V z = s * s;
    constexpr int terms = 11;
    V p = splat<V>(2.0 / (2 * terms + 1));
    for (int i = terms - 1; i >= 1; --i) {
      p = p * z + 2.0 / (2 * i + 1);
    }
    rest = s * (f - z * p);
  }
  V result = k * F::ln2_high + (f - (rest - k * F::ln2_low));
  if constexpr (!normal) {
    result = x == V{} ? -infinity : result;
  }
  return x < infinity ? result : x; // infinity or NaN
}

// tanh |x| = e / (e + 2) with e = exp(2 |x|) - 1, which keeps its digits near 0.
template <class V>
inline V tanh(V x) {
  using T = Scalar<V>;
  const V saturated = splat<V>(40); // far above where tanh rounds to 1
  V y = abs(x) * static_cast<T>(2);
  y = y > saturated ? saturated : y;
  Int<V> n;
  const V q = expm1_reduced(y, n);
  const V scale = power_of_two<V>(n);
  const V e = scale * q + (scale - static_cast<T>(1));
  const V magnitude = e / (e + static_cast<T>(2));
  constexpr auto sign_bit = std::numeric_limits<Scalar<Int<V>>>::min();
  return bitcast<V>(bitcast<Int<V>>(magnitude) | (bitcast<Int<V>>(x) & sign_bit));
}

// The sine and the cosine of x, within some ulps of the larger; by the C library where |x| is so large
// that pi / 2 in three parts is not enough to reduce it.
// Source of the polynomials: Moshier, Cephes (sinf, cosf, sin, cos).
template <class V>
inline void sine_cosine(V x, V& sine, V& cosine) {
  using T = Scalar<V>;
  using F = Format<T>;
  constexpr bool single = std::is_same_v<T, float>;
  constexpr T most = single ? T(8192) : T(1e6);
  const V shifted = x * static_cast<T>(0.63661977236758134308) + F::magic; // 2 / pi
  const Int<V> quadrant = bitcast<Int<V>>(shifted) - bitcast<Int<V>>(splat<V>(F::magic));
  const V k = shifted - F::magic;
  V r, z, s, c;
  if constexpr (single) {
    r = ((x - k * 0x1.92p0f) - k * 0x1.fb4p-12f) - k * 0x1.4442d2p-24f;
    z = r * r;
    s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    c = ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
        z * 0.5f + 1.0f;
  } else {
    r = ((x - k * 0x1.921fb544p0) - k * 0x1.0b4611a6p-34) - k * 0x1.3198a2e037073p-69;
    z = r * r;
    s = z * 1.58962301576546568060e-10 - 2.50507477628578072866e-8;
    s = (s * z + 2.75573136213857245213e-6) * z - 1.98412698295895385996e-4;
    s = ((s * z + 8.33333333332211858878e-3) * z - 1.66666666666666307295e-1) * z * r + r;
    c = z * -1.13585365213876817300e-11 + 2.08757008419747316778e-9;
    c = (c * z - 2.75573141792967388112e-7) * z + 2.48015872888517045348e-5;
    c = ((c * z - 1.38888888888730564116e-3) * z + 4.16666666666665929218e-2) * z * z - z * 0.5 + 1.0;
  }
  const Int<V> one = quadrant - quadrant + 1;
  const V swapped_sine = (quadrant & one) == one ? c : s, swapped_cosine = (quadrant & one) == one ? s : c;
  sine = (quadrant & (one + one)) == one + one ? -swapped_sine : swapped_sine;
  cosine = ((quadrant + one) & (one + one)) == one + one ? -swapped_cosine : swapped_cosine;
  alignas(V) T far[kLanes<T>];
  store<T>(far, abs(x), Full<T>{});
  for (int64_t i = 0; i < kLanes<T>; ++i) {
    if (!(far[i] <= most)) {
      T lanes[3][kLanes<T>];
      store<T>(lanes[0], x, Full<T>{});
      store<T>(lanes[1], sine, Full<T>{});
      store<T>(lanes[2], cosine, Full<T>{});
      lanes[1][i] = std::sin(lanes[0][i]);
      lanes[2][i] = std::cos(lanes[0][i]);
      sine = load<T>(lanes[1], Full<T>{});
      cosine = load<T>(lanes[2], Full<T>{});
    }
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
