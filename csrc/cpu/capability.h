// The sets of kernels, one for each instruction set.
#pragma once

#include "../layer.h"
#include "../rows/units.h"
#include "../rows/unroll.h"
#include "../training.h"

namespace nalu {

// One set of kernels for each instruction set (avx512.cpp, avx2.cpp, portable.cpp).
struct Kernels {
  const char* name;
  void (*forward)(const Layer&, void* output, const Saved&);
  void (*backward)(const Layer&, const Backward&);
  void (*forward_rows)(const RowsCall&, void* output, void* saved);
  void (*backward_rows)(const RowsCall&, const RowsBackward&);
  void (*unroll_forward)(const UnrollCall&, void* output, void* states);
  void (*unroll_backward)(const UnrollCall&, const UnrollBackward&);
  void (*forward_units)(const UnitsCall&, void* output, void* saved);
  void (*backward_units)(const UnitsCall&, const UnitsBackward&);
  void (*transform)(const Layer&, void* W);
  void (*train)(const Training&);
  void (*draw)(const Draw&);
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels(); // null where the compiler or the processor has none
const Kernels* avx512_kernels();

} // namespace nalu
