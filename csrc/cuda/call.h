// What the kernels ask of torch while an operator runs: a stream, scratch memory and BLAS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "../matrix.h"

namespace nalu {

class Tensor;

namespace cuda {

// How a product of float32 is made. double has one way.
enum class Precision {
  full, // float32, whatever torch is set to
  setting, // as torch.set_float32_matmul_precision says
  tf32, // 11 bits of each operand: all of a bfloat16 or float16
};

// While it lives, the input's device is the current one.
class Call {
 public:
  explicit Call(const Tensor& input);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // torch's current stream of that device.
  void* stream() const;

  // Memory on the device for n numbers, until the call ends: work on the stream that was launched
  // before is still sound. Null for none.
  template <class T>
  T* scratch(int64_t n) {
    return n > 0 ? static_cast<T*>(scratch_bytes(n * static_cast<int64_t>(sizeof(T)))) : nullptr;
  }

  // Ends the life of the scratch memory that came after a mark.
  size_t mark() const;
  void release(size_t mark);

  // C (rows, cols, contiguous) = or += A B by cuBLAS. One of each operand's strides must be 1, and
  // no side empty.
  void matmul(
      float* C, const Matrix& A, const Matrix& B, bool accumulate, Precision precision);
  void matmul(
      double* C, const Matrix& A, const Matrix& B, bool accumulate, Precision precision);
  // The same of bfloat16 operands, summed in float32 on tensor cores.
  void matmul_of_bf16(float* C, const Matrix& A, const Matrix& B, bool accumulate);

  // Whether torch.set_float32_matmul_precision allows products of less than float32.
  bool less_than_float32() const;

 private:
  void* scratch_bytes(int64_t bytes);

  struct State;
  std::unique_ptr<State> state_;
};

} // namespace cuda
} // namespace nalu
