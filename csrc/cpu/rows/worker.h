// What one thread goes through a layer with, by ../../rows/: some of a batch's rows, transposed so that
// they lie along the vectors.
#pragma once

#include "../small.h"
#include "parameters.h"

#include "../../rows/call.h"
#include "../../rows/walk.h"

namespace nalu {
namespace NALU_NAMESPACE {

// (columns, n) as n rows of S, which begin `stride` apart. `turned` has room for as many numbers.
template <class T, class S>
inline void put_rows(
    const T* from, int64_t columns, int64_t n, T* turned, S* to, int64_t stride) {
  const bool dense = stride == columns || n == 1;
  if constexpr (std::is_same_v<S, T>) {
    if (dense) {
      transpose_rows(from, columns, n, to);
      return;
    }
  }
  transpose_rows(from, columns, n, turned);
  const int64_t rows = dense ? 1 : n, each = columns * n / rows;
  for (int64_t row = 0; row < rows; ++row) {
    convert<T>(each, turned + row * each, to + row * stride);
  }
}

// What a thread works with: the layer, its parameters in the compute type, and rows as columns.
template <class T, class S>
class RowsWorker {
 public:
  RowsWorker(const RowsCall& call, int64_t rows, bool grad_x)
      : call_(call),
        grad_x_(grad_x),
        size_(placed(rows, nullptr, nullptr, nullptr)),
        own_(size_.own),
        block_(size_.block),
        parameters_(call),
        reader_(call.input, call.layer.in, rows) {
    lay_out(rows, nullptr);
    prepare<T>(unit_, parameters_.get(), true);
  }

  // `kept`: where what the backward needs is to lie; null where there will be none. `stride`: of the
  // output's rows.
  void forward(int64_t begin, int64_t n, T* kept, S* output, int64_t stride) {
    read(begin, n, kept);
    nalu::NALU_NAMESPACE::forward<T>(unit_, parameters_.get(), x_, nullptr, true, n);
    put_rows(unit_.y, call_.layer.out, n, turned_, output + begin * stride, stride);
  }

  // Before the chunks of a part, and after them.
  void begin_sums(const Apart<T>& gradients) const {
    for (int i = 0; i < call_.parameter_count; ++i) {
      clear(gradients[i], call_.sizes[i]);
    }
    clear_sums(unit_);
  }
  void end_sums(const Apart<T>& gradients) const {
    finish<T>(unit_, gradients);
  }

  // `kept` by a forward; `dy`: the rows of the output's gradient. Returns the input's (in, n), if that
  // is wanted.
  const T* backward(int64_t begin, int64_t n, const T* kept, const T* dy, const Apart<T>& gradients) {
    read(begin, n, const_cast<T*>(kept));
    transpose_rows(dy, n, call_.layer.out, unit_.y);
    make_planes<T>(unit_, parameters_.get(), x_, true, n);
    nalu::NALU_NAMESPACE::backward<T>(unit_, parameters_.get(), x_, unit_.y, gradients, n);
    return unit_.grad_x;
  }

  // The gradient of n rows' inputs as rows.
  void put_gradient(int64_t n, S* to) {
    put_rows(unit_.grad_x, call_.layer.in, n, turned_, to, call_.layer.in);
  }

 private:
  struct Size {
    int64_t own, block;
  };

  // Returns what it takes; without memory it only counts.
  Size placed(int64_t n, T* own_memory, T* block_memory, T* kept) {
    const StackLayer& layer = call_.layer;
    Arena<T> own(own_memory), block(block_memory), apart(kept, 1);
    unit_ = {};
    unit_.layer = layer;
    x_ = block.take(layer.in * n);
    turned_ = block.take((layer.in > layer.out ? layer.in : layer.out) * n);
    LayOut<T>(unit_, n, own, block, kept != nullptr ? apart : block);
    unit_.grad_x = grad_x_ ? block.take(layer.in * n) : nullptr;
    return {own.used(), block.used()};
  }
  void lay_out(int64_t n, T* kept) {
    placed(n, own_.get(), block_.get(), kept);
  }

  void read(int64_t begin, int64_t n, T* kept) {
    lay_out(n, kept);
    transpose_rows(reader_(begin, begin + n), n, call_.layer.in, x_);
  }

  const RowsCall& call_;
  const bool grad_x_;
  Unit<T> unit_{};
  T *x_ = nullptr, *turned_ = nullptr;
  const Size size_;
  Buffer<T> own_, block_;
  const Parameters<T, S> parameters_;
  RowReader<T, S> reader_;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
