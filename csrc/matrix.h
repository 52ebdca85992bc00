// A matrix in memory, as BLAS is told of it.
#pragma once

#include <cstdint>

#include "layer.h"

namespace nalu {

// Of the compute type, float or double; strides count elements.
struct Matrix {
  const void* data;
  int64_t rows, cols, row_stride, col_stride;
};

// Contiguous rows.
inline Matrix matrix(const void* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols, 1};
}

// `made` as contiguous rows, or where it is null these rows, which are of the compute type.
inline Matrix matrix_or(const void* made, const Rows& there, int64_t rows, int64_t cols) {
  return made != nullptr ? matrix(made, rows, cols)
                         : Matrix{there.data, rows, cols, there.row_stride, there.col_stride};
}

inline Matrix transposed(const Matrix& m) {
  return {m.data, m.cols, m.rows, m.col_stride, m.row_stride};
}

// Whether each row lies together, apart from the others. BLAS can walk such a matrix, or one whose
// transpose is so.
inline bool has_dense_rows(const Matrix& m) {
  return m.col_stride == 1 && m.row_stride >= m.cols;
}

} // namespace nalu
