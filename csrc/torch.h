// torch's headers, as far as these sources use them, and how all of it refuses: by an exception with
// a ready-made text, never by way of a stream.
//
// Where the compiler links libstdc++ statically, a module carries a second one beside the process's,
// and its streams may crash on what they share. torch's own macros write their texts through
// streams, so its headers get these here instead. Include them by this file only.
#pragma once

#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include <stdexcept>
#include <string>

namespace nalu {

[[noreturn]] inline void refuse(const std::string& text) {
  throw std::runtime_error(text);
}

inline void check(bool sound, const char* text) {
  if (!sound) {
    refuse(text);
  }
}

} // namespace nalu

#undef STD_TORCH_CHECK
#define STD_TORCH_CHECK(condition, ...)     \
  if (!(condition)) {                       \
    ::nalu::refuse("Expected " #condition); \
  }
#undef TORCH_ERROR_CODE_CHECK
#define TORCH_ERROR_CODE_CHECK(call)           \
  if ((call) != TORCH_SUCCESS) {               \
    ::nalu::refuse("failed in torch: " #call); \
  }

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>
