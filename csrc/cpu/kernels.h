// The set of kernels of the instruction set that the including file has chosen.
#pragma once

#include "large.h"
#include "rows/layer.h"
#include "rows/slices.h"
#include "rows/units.h"
#include "rows/unroll.h"
#include "small.h"
#include "train/train.h"

namespace nalu {
namespace NALU_NAMESPACE {

inline void forward(const Layer& layer, void* output, const Saved& saved) {
  dispatch(layer.dtype, [&](auto s) {
    using S = decltype(s);
    is_small(layer) ? forward_small<S>(layer, output, saved)
                    : forward_large(LargePasses<S>(layer), layer, output, saved);
  });
}

inline void backward(const Layer& layer, const Backward& pass) {
  dispatch(layer.dtype, [&](auto s) {
    using S = decltype(s);
    is_small(layer) ? backward_small<S>(layer, pass)
                    : backward_large(LargePasses<S>(layer), layer, pass);
  });
}

inline void forward_rows(const RowsCall& call, void* output, void* saved) {
  if (has_paths(call.layer.kind)) {
    forward(as_layer(call), output, split(call, saved));
    return;
  }
  dispatch(call.dtype, [&](auto s) {
    using S = decltype(s);
    wants_slices(call) ? forward_by_slices<S>(call, output, saved)
                       : forward_by_rows<S>(call, output, saved);
  });
}

inline void backward_rows(const RowsCall& call, const RowsBackward& pass) {
  if (has_paths(call.layer.kind)) {
    backward(as_layer(call), as_backward(call, pass));
    return;
  }
  dispatch(call.dtype, [&](auto s) {
    using S = decltype(s);
    wants_slices(call) ? backward_by_slices<S>(call, pass) : backward_by_rows<S>(call, pass);
  });
}

inline void forward_units(const UnitsCall& call, void* output, void* saved) {
  for_each_unit(call, [&](int64_t u) {
    forward_rows(call.unit(u), call.output(output, u), behind(saved, u * call.saved_bytes()));
  });
}

inline void backward_units(const UnitsCall& call, const UnitsBackward& pass) {
  for_each_unit(call, [&](int64_t u) { backward_rows(call.unit(u), pass.unit(call, u)); });
}

inline void unroll_forward(const UnrollCall& call, void* output, void* states) {
  dispatch(call.cell.dtype, [&](auto s) { unroll_forward_as<decltype(s)>(call, output, states); });
}

inline void unroll_backward(const UnrollCall& call, const UnrollBackward& pass) {
  dispatch(call.cell.dtype, [&](auto s) { unroll_backward_as<decltype(s)>(call, pass); });
}

inline void transform(const Layer& layer, void* W) {
  dispatch(layer.dtype, [&](auto s) { transform_of<decltype(s)>(layer, W); });
}

constexpr Kernels kKernels{
    NALU_STRING(NALU_NAMESPACE),
    forward,
    backward,
    forward_rows,
    backward_rows,
    unroll_forward,
    unroll_backward,
    forward_units,
    backward_units,
    transform,
    train,
    draw};

} // namespace NALU_NAMESPACE
} // namespace nalu
