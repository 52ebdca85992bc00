// A matrix in memory, as BLAS is told of it.
#pragma once

#include <cstdint>

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

inline Matrix transposed(const Matrix& m) {
  return {m.data, m.cols, m.rows, m.col_stride, m.row_stride};
}

// Whether each row lies together, apart from the others. BLAS can walk such a matrix, or one whose
// transpose is so.
inline bool has_dense_rows(const Matrix& m) {
  return m.col_stride == 1 && m.row_stride >= m.cols;
}

} // namespace nalu
