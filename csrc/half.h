// bfloat16 and float16 as storage: loaded into float, rounded once (to nearest even) when stored.
//
// Before including this file define NALU_NAMESPACE and NALU_INLINE.
#pragma once

#include <cstdint>
#include <cstring>

#include "layer.h"

namespace nalu {
namespace NALU_NAMESPACE {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

NALU_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

NALU_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

NALU_INLINE float widen(float value) {
  return value;
}

NALU_INLINE double widen(double value) {
  return value;
}

NALU_INLINE float widen(BFloat16 value) {
  return float_of(static_cast<uint32_t>(value.bits) << 16);
}

NALU_INLINE float widen(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  // A product with 2^112 moves the exponent's bias from 15 to 127 and normalises subnormals.
  const uint32_t scaled = bits_of(float_of(magnitude) * 0x1p112f);
  const bool special = magnitude >= 0x0f800000u; // infinity or NaN
  return float_of(sign | (special ? magnitude | 0x7f800000u : scaled));
}

NALU_INLINE void narrow(float value, float& out) {
  out = value;
}

NALU_INLINE void narrow(double value, double& out) {
  out = value;
}

NALU_INLINE void narrow(float value, BFloat16& out) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out.bits = static_cast<uint16_t>((nan ? bits | 0x00400000u : rounded) >> 16);
}

NALU_INLINE void narrow(float value, Float16& out) {
  const uint32_t bits = bits_of(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal: rebias the exponent by 127 - 15, round the 13 bits that go. A carry that leaves the
  // largest exponent is the overflow to infinity.
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14: adding 0.5 aligns the subnormal's last bit with the float's.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  if (magnitude >= 0x47800000u) { // 65536 and above, infinity, NaN
    half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  }
  out.bits = static_cast<uint16_t>((bits >> 16 & 0x8000u) | half);
}

// The type a storage type is computed in.
template <class S>
struct ComputeOf {
  using type = float;
};

template <>
struct ComputeOf<double> {
  using type = double;
};

template <class S>
using Compute = typename ComputeOf<S>::type;

// f(S{}) for a storage type.
template <class F>
inline void dispatch(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
    case Dtype::bfloat16:
      return f(BFloat16{});
    case Dtype::float16:
      return f(Float16{});
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
