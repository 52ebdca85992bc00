// A layer's parameters as the walk over its rows wants them.
#pragma once

#include "../elementwise.h"
#include "../train/team.h"

#include "../../rows/call.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Whether they are that already: in one piece and in the compute type.
template <class T, class S>
bool is_one(const RowsCall& call) {
  return std::is_same_v<S, T> && call.parameter_count == 1;
}

template <class T, class S>
class Parameters {
 public:
  explicit Parameters(const RowsCall& call)
      : gathered_(is_one<T, S>(call) ? 0 : call.layer.parameters()), data_(gathered_.get()) {
    if constexpr (std::is_same_v<S, T>) {
      data_ = is_one<T, S>(call) ? static_cast<const T*>(call.parameters[0]) : data_;
    }
    int64_t at = 0;
    for (int i = 0; gathered_.get() != nullptr && i < call.parameter_count; ++i) {
      const S* from = static_cast<const S*>(call.parameters[i]);
      T* to = gathered_.get() + at;
      for_each_vector_of_weights<T>(call.sizes[i], [&](int64_t k, auto lanes) {
        store<T>(to + k, load<T>(from + k, lanes), lanes);
      });
      at += call.sizes[i];
    }
  }

  const T* get() const {
    return data_;
  }

 private:
  Buffer<T> gathered_;
  const T* data_;
};

// The parameters' gradients, of the sums of all parts in their order; `to` null where not wanted.
template <class T, class S>
inline void add_parts(const RowsCall& call, const T* sums, int64_t parts, void* const* to) {
  const int64_t stride = call.layer.parameters();
  int64_t at = 0;
  for (int i = 0; i < call.parameter_count; at += call.sizes[i], ++i) {
    if (to[i] != nullptr) {
      parallel(call.sizes[i], kGrain, [&](int64_t begin, int64_t end) {
        S* gradient = static_cast<S*>(to[i]) + begin;
        sum_parts<T, S>(end - begin, sums + at + begin, parts, stride, gradient);
      });
    }
  }
}

} // namespace NALU_NAMESPACE
} // namespace nalu
