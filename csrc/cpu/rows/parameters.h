// A layer's parameters as the walk over its rows wants them.
#pragma once

#include "../elementwise.h"
#include "../train/team.h"

#include "../../rows/call.h"

namespace nalu {
namespace NALU_NAMESPACE {

// A layer's parameters, or their gradients, each where it lies: what else a pointer to them all is.
template <class T>
class Apart {
 public:
  // One behind the other.
  Apart(const RowsCall& call, T* all) : count_(call.parameter_count) {
    int64_t at = 0;
    for (int i = 0; i < count_; ++i) {
      begins_[i] = at;
      of_[i] = all != nullptr ? all + at : nullptr;
      at += call.sizes[i];
    }
  }
  T*& operator[](int i) {
    return of_[i];
  }
  T* operator[](int i) const {
    return of_[i];
  }
  T* operator+(int64_t at) const {
    int i = count_ - 1;
    while (i > 0 && at < begins_[i]) {
      --i;
    }
    return of_[i] + (at - begins_[i]);
  }

 private:
  T* of_[kMostParameters];
  int64_t begins_[kMostParameters];
  int count_;
};

// Gradients in the results where these are wanted and of T, else in `all`, one behind the other.
template <class T, class S>
inline Apart<T> in_results(const RowsCall& call, void* const* results, T* all) {
  Apart<T> gradients(call, all);
  if constexpr (std::is_same_v<S, T>) {
    for (int i = 0; i < call.parameter_count; ++i) {
      gradients[i] = results[i] != nullptr ? static_cast<T*>(results[i]) : gradients[i];
    }
  }
  return gradients;
}

// The parameters in the compute type.
template <class T, class S>
class Parameters {
 public:
  explicit Parameters(const RowsCall& call)
      : converted_(std::is_same_v<S, T> ? 0 : call.layer.parameters()), each_(call, converted_.get()) {
    T* to = converted_.get();
    for (int i = 0; i < call.parameter_count; ++i) {
      const S* from = static_cast<const S*>(call.parameters[i]);
      if constexpr (std::is_same_v<S, T>) {
        each_[i] = from;
      } else {
        for_each_vector_of_matrix<T>(call.sizes[i], [=](int64_t k, auto lanes) {
          store<T>(to + k, load<T>(from + k, lanes), lanes);
        });
        to += call.sizes[i];
      }
    }
  }

  const Apart<const T>& get() const {
    return each_;
  }

 private:
  Buffer<T> converted_;
  Apart<const T> each_;
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
