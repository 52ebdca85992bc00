// What the kernels ask of torch: its threads and its BLAS.
#pragma once

#include <cstdint>

#include "../layer.h"
#include "../matrix.h"

namespace nalu {

// Whether torch's threads, and with them its BLAS, must not be asked for: the process was forked from
// one that may have started them. They did not come along, and GNU's OpenMP would wait for them for
// ever, unless torch.set_num_threads(1) was called since.
bool runs_alone();

// body(begin, end, context) over [0, n) on torch's threads, in pieces of at least `grain`.
void parallel_for(
    int64_t n, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

// C (rows, cols, contiguous) = or += A B by torch's BLAS, at the precision that
// torch.set_float32_matmul_precision asks for.
void matmul(Dtype dtype, const Matrix& A, const Matrix& B, void* C, bool accumulate);

} // namespace nalu
