// Layers side by side on a GPU: by the kernels of one, as it would take them itself.
#include <algorithm>

#include "geometry.h"
#include "kernels.h"

namespace nalu {
namespace cuda {

namespace {

// Whether small.cu and large.cu serve it; the others go row by row.
bool has_products(Kind kind) {
  return kind == Kind::nac || kind == Kind::nac_log_space || kind == Kind::nalu;
}

UnitSteps steps_of(const UnitsCall& call, int64_t units, int64_t grad_step) {
  const StackLayer& layer = call.first.layer;
  const int64_t size = bytes_of(call.first.dtype), B = call.first.B;
  return {
      units,
      call.input_step * size,
      layer.out * layer.in * size,
      layer.gates * layer.in * size,
      layer.gates * size,
      B * layer.out * size,
      call.saved_bytes(),
      grad_step * size,
      B * layer.in * size};
}

// small(first, count) for as many units as a launch takes, or large(unit) for each.
template <class Small, class Large>
void by_size(const UnitsCall& call, const Small& small, const Large& large) {
  const bool alone = !is_small(as_layer(call.first).shape);
  const int64_t step = alone ? 1 : kMostUnits;
  for (int64_t first = 0; first < call.units; first += step) {
    alone ? large(first) : small(first, std::min(step, call.units - first));
  }
}

} // namespace

void forward_units(Call& call, const UnitsCall& given, void* output, void* saved) {
  if (!has_products(given.first.layer.kind)) {
    return forward_rows(call, given, output, saved);
  }
  const auto forward = [&](int64_t u, const auto& kernels) {
    const RowsCall unit = given.unit(u);
    kernels(
        as_layer(unit), given.output(output, u), split(unit, behind(saved, u * given.saved_bytes())));
  };
  by_size(
      given,
      [&](int64_t first, int64_t count) {
        forward(first, [&](const Layer& layer, void* to, const Saved& kept) {
          forward_small(call, layer, to, kept, steps_of(given, count, 0));
        });
      },
      [&](int64_t u) {
        forward(u, [&](const Layer& layer, void* to, const Saved& kept) {
          const size_t mark = call.mark();
          forward_large(call, layer, to, kept);
          call.release(mark);
        });
      });
}

void backward_units(Call& call, const UnitsCall& given, const UnitsBackward& pass) {
  if (!has_products(given.first.layer.kind)) {
    return backward_rows(call, given, pass);
  }
  const auto backward = [&](int64_t u, const auto& kernels) {
    const RowsCall unit = given.unit(u);
    kernels(as_layer(unit), as_backward(unit, pass.unit(given, u)));
  };
  by_size(
      given,
      [&](int64_t first, int64_t count) {
        backward(first, [&](const Layer& layer, const Backward& own) {
          backward_small(call, layer, own, steps_of(given, count, pass.grad_step));
        });
      },
      [&](int64_t u) {
        backward(u, [&](const Layer& layer, const Backward& own) {
          const size_t mark = call.mark();
          backward_large(call, layer, own);
          call.release(mark);
        });
      });
}

} // namespace cuda
} // namespace nalu
