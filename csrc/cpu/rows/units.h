// Independent layers side by side: the kernels of a layer for each of them, so that a unit has the bits
// of a layer of its own.
#pragma once

#include "../large.h"
#include "../small.h"
#include "layer.h"
#include "slices.h"

#include "../../rows/units.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Whether the kernels of `Layer` serve it: they are faster for it than rows/ are.
inline bool has_paths(Kind kind) {
  return kind == Kind::nac || kind == Kind::nac_log_space || kind == Kind::nalu || kind == Kind::nau;
}

// f(unit) for each: by several threads, or one after the other where a unit is worth all of them.
template <class F>
inline void for_each_unit(const UnitsCall& call, const F& f) {
  const RowsCall& first = call.first;
  const StackLayer& layer = first.layer;
  const bool alone = has_paths(layer.kind) ? is_small(as_layer(first)) : !wants_help(first) && !wants_slices(first);
  if (!alone) {
    for (int64_t u = 0; u < call.units; ++u) {
      f(u);
    }
    return;
  }
  // A unit takes this long at least, and a thread wants work for 10 microseconds.
  const double in = static_cast<double>(layer.in), out = static_cast<double>(layer.out);
  const double nanoseconds = 500 + static_cast<double>(first.B) * (in + out + in * out / 8);
  const int64_t grain = 1 + static_cast<int64_t>(10e3 / nanoseconds);
  parallel(call.units, grain, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      f(u);
    }
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
