// How a thread that goes through a layer alone knows that it may ask for others.
#pragma once

#include "baseline.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Whether this thread has torch's others and its BLAS to help: in the operators of large layers, of
// which there is one at a time.
inline bool& is_helped() {
  static thread_local bool helped = false;
  return helped;
}

} // namespace NALU_NAMESPACE
} // namespace nalu
