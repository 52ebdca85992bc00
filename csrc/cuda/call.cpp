#include "call.h"

#include <string>
#include <vector>

#include "../tensor.h"

// cuBLAS, as far as it is used here: torch's own products cannot be told which precision one of them
// is to have. torch has loaded cuBLAS and holds its handles; its header, whose values these are,
// comes with the larger of CUDA's toolkits only.
extern "C" int cublasGemmEx_64(
    void* handle,
    int transpose_A,
    int transpose_B,
    int64_t m,
    int64_t n,
    int64_t k,
    const void* alpha,
    const void* A,
    int A_type,
    int64_t A_stride,
    const void* B,
    int B_type,
    int64_t B_stride,
    const void* beta,
    void* C,
    int C_type,
    int64_t C_stride,
    int compute_type,
    int algorithm);
extern "C" int cublasGetMathMode(void* handle, int* mode);

namespace nalu {
namespace cuda {

namespace {

constexpr int kNotTransposed = 0, kTransposed = 1; // cublasOperation_t
constexpr int kFloat = 0, kDouble = 1, kBFloat16 = 14; // cudaDataType
// cublasComputeType_t. The plain one of float32 obeys the handle, and torch sets its handle to what
// torch.set_float32_matmul_precision says.
constexpr int kCompute32 = 68, kCompute32Pedantic = 69, kCompute32Tf32 = 77, kCompute64 = 70;
constexpr int kDefaultAlgorithm = -1; // cublasGemmAlgo_t
// cublasMath_t, and a flag beside it about sums of half precision.
constexpr int kTf32Math = 3, kSumsInFull = 16;

void* blas_handle() {
  void* handle = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&handle));
  return handle;
}

void check_blas(int status, const char* function) {
  if (status != 0) {
    refuse(std::string(function) + " failed with status " + std::to_string(status));
  }
}

int compute_type(Precision precision) {
  switch (precision) {
    case Precision::full:
      return kCompute32Pedantic;
    case Precision::setting:
      return kCompute32;
    case Precision::tf32:
      return kCompute32Tf32;
  }
  return kCompute32Pedantic;
}

// cuBLAS counts by columns: it takes our rows, where they lie together, for the columns of the
// transpose.
struct Operand {
  int transposed;
  int64_t stride;

  explicit Operand(const Matrix& m)
      : transposed(has_dense_rows(m) ? kNotTransposed : kTransposed),
        stride(has_dense_rows(m) ? m.row_stride : m.col_stride) {}
};

template <class T>
void gemm(
    T* C, const Matrix& A, const Matrix& B, bool accumulate, int operand_type, int compute_type) {
  // C^T = B^T A^T
  const Operand a(A), b(B);
  const T alpha = 1, beta = accumulate ? 1 : 0;
  const int status = cublasGemmEx_64(
      blas_handle(),
      b.transposed,
      a.transposed,
      B.cols,
      A.rows,
      A.cols,
      &alpha,
      B.data,
      operand_type,
      b.stride,
      A.data,
      operand_type,
      a.stride,
      &beta,
      C,
      sizeof(T) == 8 ? kDouble : kFloat,
      B.cols,
      compute_type,
      kDefaultAlgorithm);
  check_blas(status, "cublasGemmEx_64");
}

// While it lives, that device is the current one.
class DeviceGuard {
 public:
  explicit DeviceGuard(int32_t device) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_cuda_guard(device, &handle_));
  }
  ~DeviceGuard() {
    aoti_torch_delete_cuda_guard(handle_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  CUDAGuardHandle handle_ = nullptr;
};

} // namespace

struct Call::State {
  explicit State(const Tensor& beside) : input(beside), guard(input.device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(input.device_index(), &stream));
  }

  const Tensor& input;
  const DeviceGuard guard;
  void* stream = nullptr;
  std::vector<Tensor> scratch;
};

Call::Call(const Tensor& input) : state_(std::make_unique<State>(input)) {}

Call::~Call() = default;

void* Call::stream() const {
  return state_->stream;
}

void* Call::scratch_bytes(int64_t bytes) {
  // In doubles, for their alignment.
  const int64_t count = (bytes + 7) / 8;
  state_->scratch.push_back(state_->input.empty(&count, 1, aoti_torch_dtype_float64()));
  return state_->scratch.back().data();
}

size_t Call::mark() const {
  return state_->scratch.size();
}

void Call::release(size_t mark) {
  auto& scratch = state_->scratch;
  scratch.erase(scratch.begin() + static_cast<std::ptrdiff_t>(mark), scratch.end());
}

void Call::matmul(
    float* C, const Matrix& A, const Matrix& B, bool accumulate, Precision precision) {
  gemm(C, A, B, accumulate, kFloat, compute_type(precision));
}

void Call::matmul(double* C, const Matrix& A, const Matrix& B, bool accumulate, Precision) {
  gemm(C, A, B, accumulate, kDouble, kCompute64);
}

void Call::matmul_of_bf16(float* C, const Matrix& A, const Matrix& B, bool accumulate) {
  gemm(C, A, B, accumulate, kBFloat16, kCompute32);
}

bool Call::less_than_float32() const {
  int mode = 0;
  check_blas(cublasGetMathMode(blas_handle(), &mode), "cublasGetMathMode");
  return (mode & ~kSumsInFull) == kTf32Math;
}

} // namespace cuda
} // namespace nalu
