// A recurrent cell over its steps, for every device: rows of a batch go through all of them together.
//
// What is the device's own is how rows of a tensor become columns of numbers, and back:
//   Columns(const UnrollCall&, int64_t rows, Arena<T>&)
//   read(const Steps&, step, next, rows, columns, to); `next`: the step that will be read after it
//   write(from, columns, step, rows, to), to steps of the whole batch
//   round(count, from, to), to the precision of the tensors
#pragma once

#include <type_traits>

#include "unroll.h"
#include "walk.h"

namespace nalu {
namespace NALU_NAMESPACE {

// Rows of a batch, and the steps of the shortest and of the longest of them.
struct RowsOverTime {
  int64_t begin, n, shortest, longest;
};

// A row behind its end takes the step on ones, which every layer maps to something finite, and what
// comes of it is dropped.
template <class T, class Columns, class Own>
class Unroller {
 public:
  // For up to so many rows at a time; `own` are the parameters in the compute type.
  NALU_BOTH Unroller(
      const UnrollCall& call, Own own, int64_t rows, bool backward, Arena<T>& arena)
      : call_(call),
        own_(own),
        I_(call.features()),
        H_(call.state()),
        steps_between_(stretch(call.T)),
        columns_(call, rows, arena) {
    unit_.layer = call.cell.layer;
    x_ = arena.take((I_ + H_) * rows);
    start_ = arena.take(H_ * rows);
    kept_ = arena.take(H_ * rows);
    alive_ = arena.take(rows);
    LayOut<T>(unit_, rows, arena, arena, arena);
    if (backward) {
      unit_.grad_x = arena.take((I_ + H_) * rows);
      dy_ = arena.take(H_ * rows);
      carried_ = arena.take(H_ * rows);
      grad_start_ = arena.take(H_ * rows);
      between_ = arena.take(call.last_only ? steps_between_ * H_ * rows : 0);
    }
  }

  // Before all rows.
  NALU_DEVICE void prepare() const {
    NALU_NAMESPACE::prepare<T>(unit_, own_, true);
  }

  // `states`: where those for the backward are to lie; null: none are kept.
  NALU_DEVICE void forward(int64_t begin, int64_t n, void* output, void* states) const {
    const RowsOverTime rows = begin_rows(begin, n);
    T* const state = state_of(rows);
    copy(start_, H_ * n, state);
    for (int64_t t = 0; t < rows.longest; ++t) {
      if (states != nullptr && t % steps_between_ == 0) {
        columns_.write(state, H_, t / steps_between_, rows, states);
      }
      step(t, rows);
      if (!call_.last_only) {
        const bool ragged = t >= rows.shortest;
        if (ragged) {
          select(H_, n, state, T(0), unit_.y);
        }
        columns_.write(ragged ? unit_.y : state, H_, t, rows, output);
      }
    }
    if (call_.last_only) {
      columns_.write(state, H_, 0, rows, output);
    } else {
      write_zeros(unit_.y, H_, rows, output);
    }
  }

  // Before the rows whose gradients are summed, and after them.
  NALU_DEVICE void begin_sums(T* gradients) const {
    clear(gradients, unit_.layer.parameters());
    clear_sums(unit_);
  }
  NALU_DEVICE void end_sums(T* gradients) const {
    finish<T>(unit_, gradients);
  }

  NALU_DEVICE void backward(
      int64_t begin, int64_t n, const UnrollBackward& pass, T* gradients) const {
    const RowsOverTime rows = begin_rows(begin, n);
    T* const state = state_of(rows);
    const int64_t count = H_ * n;
    clear(grad_start_, count);
    clear(carried_, count);
    const Steps kept{pass.states, call_.cell.B * H_, H_, 1};
    if (call_.last_only) {
      columns_.read(pass.grad_output, 0, 0, rows, H_, carried_);
      for (int64_t end = rows.longest; end > 0;) {
        const int64_t segment = (end - 1) / steps_between_, first = segment * steps_between_;
        columns_.read(kept, segment, segment - 1, rows, H_, state);
        for (int64_t t = first; t < end; ++t) {
          copy(state, count, between_ + (t - first) * count);
          if (t + 1 < end) {
            step(t, rows);
          }
        }
        for (int64_t t = end - 1; t >= first; --t) {
          copy(between_ + (t - first) * count, count, state);
          step_back(t, rows, pass, gradients);
        }
        end = first;
      }
    } else {
      for (int64_t t = rows.longest - 1; t >= 0; --t) {
        if (t > 0) {
          columns_.read(kept, t - 1, t - 2, rows, H_, state);
        } else {
          copy(start_, count, state);
        }
        step_back(t, rows, pass, gradients);
      }
    }
    if (pass.input != nullptr) {
      write_zeros(unit_.grad_x, I_, rows, pass.input);
    }
    if (pass.hx != nullptr) {
      add(carried_, count, grad_start_);
      columns_.write(grad_start_, H_, 0, rows, pass.hx);
    }
  }

 private:
  NALU_DEVICE RowsOverTime begin_rows(int64_t begin, int64_t n) const {
    RowsOverTime rows{begin, n, call_.T, call_.T};
    if (call_.lengths != nullptr) {
      rows.longest = 0;
      for (int64_t row = begin; row < begin + n; ++row) {
        const int64_t length = call_.lengths[row];
        rows.shortest = length < rows.shortest ? length : rows.shortest;
        rows.longest = length > rows.longest ? length : rows.longest;
      }
      rows.longest = rows.longest < call_.T ? rows.longest : call_.T;
    }
    if (call_.hx != nullptr) {
      columns_.read({call_.hx, 0, H_, 1}, 0, 0, rows, H_, start_);
    } else {
      clear(start_, H_ * n);
    }
    return rows;
  }

  // The state stands behind a step's input: together they are the layer's.
  NALU_DEVICE T* state_of(const RowsOverTime& rows) const {
    return x_ + I_ * rows.n;
  }

  // The layer's input for step t, around the state before it.
  NALU_DEVICE void make_input(int64_t t, int64_t next, const RowsOverTime& rows) const {
    columns_.read(call_.input, t, next, rows, I_, x_);
    T* const state = state_of(rows);
    for_each_reset(t, rows, [&](int64_t at) { state[at] = start_[at]; });
    if (t >= rows.shortest) {
      for_each(rows.n, [&](int64_t row) { alive_[row] = t < call_.lengths[rows.begin + row]; });
      select(I_ + H_, rows.n, x_, T(1), x_);
    }
  }

  // The state becomes that after step t, in the precision in which single calls have it.
  NALU_DEVICE void step(int64_t t, const RowsOverTime& rows) const {
    const int64_t count = H_ * rows.n;
    T* const state = state_of(rows);
    const bool ragged = t >= rows.shortest;
    if (ragged) {
      copy(state, count, kept_);
    }
    make_input(t, t + 1, rows);
    NALU_NAMESPACE::forward<T>(unit_, own_, x_, nullptr, true, rows.n);
    columns_.round(count, unit_.y, state);
    if (ragged) {
      select(H_, rows.n, state, kept_, state);
    }
  }

  // From the gradient of the state after step t, carried_, and of the output to those of the state
  // before it, which stands in its place, and of the input.
  NALU_DEVICE void step_back(
      int64_t t, const RowsOverTime& rows, const UnrollBackward& pass, T* gradients) const {
    const int64_t n = rows.n, count = H_ * n;
    const bool ragged = t >= rows.shortest;
    make_input(t, t - 1, rows);
    T* dy = carried_;
    if (!call_.last_only) {
      dy = dy_;
      columns_.read(pass.grad_output, t, t - 1, rows, H_, dy);
      add(carried_, count, dy);
    }
    if (ragged) {
      copy(carried_, count, kept_);
      select(H_, n, dy, T(0), dy);
    }
    if (needs_forward(unit_.layer.kind)) {
      NALU_NAMESPACE::forward<T>(unit_, own_, x_, nullptr, true, n);
    }
    NALU_NAMESPACE::backward<T>(unit_, own_, x_, dy, gradients, n);
    copy(unit_.grad_x + I_ * n, count, carried_);
    if (ragged) {
      select(H_, n, carried_, kept_, carried_);
      select(I_, n, unit_.grad_x, T(0), unit_.grad_x);
    }
    for_each_reset(t, rows, [&](int64_t at) {
      grad_start_[at] += carried_[at];
      carried_[at] = 0;
    });
    if (pass.input != nullptr) {
      columns_.write(unit_.grad_x, I_, t, rows, pass.input);
    }
  }

  // f(place of a state's number) for the rows that begin anew with step t.
  template <class F>
  NALU_INLINE void for_each_reset(int64_t t, const RowsOverTime& rows, const F& f) const {
    if (call_.reset == nullptr) {
      return;
    }
    const bool* marks = call_.reset + t * call_.cell.B + rows.begin;
    const int64_t* lengths = call_.lengths != nullptr ? call_.lengths + rows.begin : nullptr;
    for_each(rows.n, [&](int64_t row) {
      if (marks[row] && (lengths == nullptr || t < lengths[row])) {
        for (int64_t i = 0; i < H_; ++i) {
          f(i * rows.n + row);
        }
      }
    });
  }

  // to (columns, n) = from where rows go on, else `other`: a number, or numbers.
  template <class Other>
  NALU_INLINE void select(
      int64_t columns, int64_t n, const T* from, const Other& other, T* to) const {
    for_each_vector_of_rows<T>(columns, n, [&](int64_t column, int64_t k, auto lanes) {
      const int64_t at = column * n + k;
      Vec<T> instead;
      if constexpr (std::is_same_v<Other, T>) {
        instead = splat<Vec<T>>(other);
      } else {
        instead = load<T>(other + at, lanes);
      }
      const Vec<T> going = load<T>(alive_ + k, lanes), zero{};
      store<T>(to + at, going != zero ? load<T>(from + at, lanes) : instead, lanes);
    });
  }

  NALU_INLINE void add(const T* from, int64_t count, T* to) const {
    for_each_vector<T>(count, [&](int64_t k, auto lanes) {
      store<T>(to + k, load<T>(to + k, lanes) + load<T>(from + k, lanes), lanes);
    });
  }

  // To the steps behind the end of all rows; `plane` is overwritten.
  NALU_DEVICE void write_zeros(
      T* plane, int64_t columns, const RowsOverTime& rows, void* to) const {
    clear(plane, columns * rows.n);
    for (int64_t t = rows.longest; t < call_.T; ++t) {
      columns_.write(plane, columns, t, rows, to);
    }
  }

  const UnrollCall& call_;
  Own own_;
  int64_t I_, H_, steps_between_;
  Columns columns_;
  Unit<T> unit_{};
  T *x_, *start_, *kept_, *alive_;
  T *dy_ = nullptr, *carried_ = nullptr, *grad_start_ = nullptr, *between_ = nullptr;
};

} // namespace NALU_NAMESPACE
} // namespace nalu
