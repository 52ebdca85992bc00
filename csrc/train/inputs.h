// From 24 random bits to a number of a training's inputs: uniform on one interval or two, normal, or
// exponential.
//
// Before including this file define NALU_NAMESPACE and NALU_DEVICE, and declare in that namespace
// apart(V): its argument, never a part of a fused multiply-add.
#pragma once

#include <limits>

#include "../training.h"

namespace nalu {
namespace NALU_NAMESPACE {

// A polynomial of degree 7 over another, by Horner's rule.
NALU_DEVICE inline double ratio(double r, const double* above, const double* below) {
  double numerator = above[7], denominator = below[7];
  for (int i = 6; i >= 0; --i) {
    numerator = numerator * r + above[i];
    denominator = denominator * r + below[i];
  }
  return numerator / denominator;
}

// The inverse of the normal distribution's function. Source: Wichura 1988, algorithm AS 241 (PPND16).
NALU_DEVICE inline double normal_quantile(double p) {
  const double q = p - 0.5;
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

// How the numbers of a training, or of its runs, are distributed.
template <class T>
struct Inputs {
  Distribution distribution;
  bool two_parts;
  bool plain = false; // low[0] + (width[0] 2^-24) bits: one interval, and not so narrow that it rounds
  T low[2], width[2];
  double mean, deviation, p_low, p_width, least, most;

  NALU_BOTH explicit Inputs(const Training& training) : distribution(training.distribution) {
    const double* c = training.constants;
    if (distribution == Distribution::uniform) {
      for (int part = 0; part < 2; ++part) {
        low[part] = static_cast<T>(c[2 * part]);
        width[part] = static_cast<T>(c[2 * part + 1]) - low[part];
      }
      two_parts = c[0] != c[2] || c[1] != c[3];
      plain = !two_parts && width[0] * T(0x1p-24) >= std::numeric_limits<T>::min();
    } else {
      // Of an exponential distribution the mean alone.
      mean = c[0], deviation = c[1], p_low = c[2], p_width = c[3], least = c[4], most = c[5];
    }
  }

  // Uniform on [0, 1).
  NALU_BOTH Inputs()
      : distribution(Distribution::uniform), two_parts(false), plain(true), low{}, width{1, 1} {}

  NALU_DEVICE T value(uint32_t bits) const {
    if (distribution == Distribution::uniform) {
      const T u = static_cast<T>(bits) * T(0x1p-24); // exact, as is all of what follows but the last
      const bool second = two_parts && u >= T(0.5);
      const T within = two_parts ? 2 * u - T(second) : u;
      return low[second] + apart(width[second] * within);
    }
    if (distribution == Distribution::exponential) {
      return static_cast<T>(-mean * std::log(1 - (bits + 0.5) * 0x1p-24));
    }
    const double p = p_low + apart(p_width * ((bits + 0.5) * 0x1p-24));
    const double x = mean + apart(deviation * normal_quantile(p));
    return static_cast<T>(x < least ? least : (x > most ? most : x));
  }
};

} // namespace NALU_NAMESPACE
} // namespace nalu
