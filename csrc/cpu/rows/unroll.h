// A recurrent cell's operators by ../../rows/: the rows of a batch in chunks, each of which goes
// through all steps in one thread, or in turn with the help of all threads.
//
// The size of chunks depends on the shape alone, and sums are added in the order of the chunks, so the
// result has the same bits for every number of threads.
#pragma once

#include "layer.h"

#include "../../rows/unroll.h"

namespace nalu {
namespace NALU_NAMESPACE {

// What a thread works with: the cell, its parameters in the compute type, and rows as columns.
//
// A row behind its end takes the step on ones, which every layer maps to something finite, and what
// comes of it is dropped.
template <class T, class S>
class Unroller {
 public:
  Unroller(const UnrollCall& call, int64_t rows, bool backward)
      : call_(call),
        layer_(call.cell.layer),
        I_(call.features()),
        H_(call.state()),
        steps_between_(stretch(call.T)),
        backward_(backward),
        size_(placed(rows, nullptr, nullptr)),
        own_(size_.own),
        block_(size_.block),
        rounded_(std::is_same_v<S, T> ? 0 : H_ * rows),
        parameters_(call.cell) {
    placed(rows, own_.get(), block_.get());
    prepare<T>(unit_, parameters_.get(), true);
  }

  // `states`: where those for the backward are to lie; null: none are kept.
  void forward(int64_t begin, int64_t n, S* output, S* states) {
    begin_rows(begin, n);
    copy(start_, H_ * n, state_);
    for (int64_t t = 0; t < longest_; ++t) {
      if (states != nullptr && t % steps_between_ == 0) {
        write(state_, H_, t / steps_between_, states);
      }
      step(t);
      if (!call_.last_only) {
        if (t >= shortest_) {
          select(H_, state_, T(0), unit_.y);
        }
        write(t >= shortest_ ? unit_.y : state_, H_, t, output);
      }
    }
    if (call_.last_only) {
      write(state_, H_, 0, output);
    } else {
      write_zeros(H_, output);
    }
  }

  // Before the chunks of a part, and after them.
  void begin_sums(T* gradients) const {
    clear(gradients, layer_.parameters());
    clear_sums(unit_);
  }
  void end_sums(T* gradients) const {
    finish<T>(unit_, gradients);
  }

  void backward(int64_t begin, int64_t n, const UnrollBackward& pass, T* gradients) {
    begin_rows(begin, n);
    clear(grad_start_, H_ * n);
    clear(carried_, H_ * n);
    const Steps kept{pass.states, call_.cell.B * H_, H_, 1};
    if (call_.last_only) {
      read(pass.grad_output, 0, H_, carried_);
      for (int64_t end = longest_; end > 0;) {
        const int64_t segment = (end - 1) / steps_between_, first = segment * steps_between_;
        read(kept, segment, H_, state_);
        for (int64_t t = first; t < end; ++t) {
          copy(state_, H_ * n, between_ + (t - first) * H_ * n);
          if (t + 1 < end) {
            step(t);
          }
        }
        for (int64_t t = end - 1; t >= first; --t) {
          copy(between_ + (t - first) * H_ * n, H_ * n, state_);
          step_back(t, pass, gradients);
        }
        end = first;
      }
    } else {
      for (int64_t t = longest_ - 1; t >= 0; --t) {
        if (t > 0) {
          fetch(kept, t - 2, H_);
          read(kept, t - 1, H_, state_);
        } else {
          copy(start_, H_ * n, state_);
        }
        step_back(t, pass, gradients);
      }
    }
    if (pass.input != nullptr) {
      write_zeros(I_, static_cast<S*>(pass.input));
    }
    if (pass.hx != nullptr) {
      for_each_vector<T>(H_ * n, [&](int64_t k, auto lanes) {
        const Vec<T> sum = load<T>(carried_ + k, lanes) + load<T>(grad_start_ + k, lanes);
        store<T>(carried_ + k, sum, lanes);
      });
      write(carried_, H_, 0, static_cast<S*>(pass.hx));
    }
  }

 private:
  struct Size {
    int64_t own, block;
  };

  // Returns what it takes; without memory it only counts.
  Size placed(int64_t n, T* own_memory, T* block_memory) {
    Arena<T> own(own_memory), block(block_memory);
    unit_ = {};
    unit_.layer = layer_;
    x_ = block.take(layer_.in * n);
    state_ = block.take(H_ * n);
    start_ = block.take(H_ * n);
    kept_ = block.take(H_ * n);
    alive_ = block.take(n);
    turned_ = block.take((I_ > H_ ? I_ : H_) * n);
    LayOut<T>(unit_, n, own, block, block);
    if (backward_) {
      unit_.grad_x = block.take(layer_.in * n);
      dy_ = block.take(H_ * n);
      carried_ = block.take(H_ * n);
      grad_start_ = block.take(H_ * n);
      between_ = block.take(call_.last_only ? steps_between_ * H_ * n : 0);
    }
    return {own.used(), block.used()};
  }

  void begin_rows(int64_t begin, int64_t n) {
    begin_ = begin;
    n_ = n;
    placed(n, own_.get(), block_.get());
    shortest_ = longest_ = call_.T;
    if (call_.lengths != nullptr) {
      longest_ = 0;
      for (int64_t row = begin; row < begin + n; ++row) {
        const int64_t length = call_.lengths[row];
        shortest_ = length < shortest_ ? length : shortest_;
        longest_ = length > longest_ ? length : longest_;
      }
    }
    if (call_.hx != nullptr) {
      read({call_.hx, 0, H_, 1}, 0, H_, start_);
    } else {
      clear(start_, H_ * n);
    }
  }

  // The columns of x_ for step t, of the state before it. `towards`: the step that is next.
  void make_input(int64_t t, int64_t towards) {
    fetch(call_.input, towards, I_);
    read(call_.input, t, I_, x_);
    T* h = x_ + I_ * n_;
    copy(state_, H_ * n_, h);
    for_each_reset(t, [&](int64_t at) { h[at] = start_[at]; });
    if (t >= shortest_) {
      for (int64_t row = 0; row < n_; ++row) {
        alive_[row] = t < call_.lengths[begin_ + row];
      }
      select(layer_.in, x_, T(1), x_);
    }
  }

  // state_ becomes that after step t, in the precision in which single calls have it.
  void step(int64_t t) {
    make_input(t, t + 1);
    const int64_t count = H_ * n_;
    if (t >= shortest_) {
      copy(state_, count, kept_);
    }
    nalu::NALU_NAMESPACE::forward<T>(unit_, parameters_.get(), x_, nullptr, true, n_);
    if constexpr (std::is_same_v<S, T>) {
      copy(unit_.y, count, state_);
    } else {
      S* rounded = rounded_.get();
      for_each_vector<T>(count, [&](int64_t k, auto lanes) {
        store<T>(rounded + k, load<T>(unit_.y + k, lanes), lanes);
        store<T>(state_ + k, load<T>(rounded + k, lanes), lanes);
      });
    }
    if (t >= shortest_) {
      select(H_, state_, kept_, state_);
    }
  }

  // From the gradient of the state after step t, carried_, and of the output to those of the state
  // before it and of the input; state_ is that state.
  void step_back(int64_t t, const UnrollBackward& pass, T* gradients) {
    const Apart<const T>& own = parameters_.get();
    const int64_t count = H_ * n_;
    const bool ragged = t >= shortest_;
    make_input(t, t - 1);
    T* dy = carried_;
    if (!call_.last_only) {
      dy = dy_;
      fetch(pass.grad_output, t - 1, H_);
      read(pass.grad_output, t, H_, dy);
      for_each_vector<T>(count, [&](int64_t k, auto lanes) {
        store<T>(dy + k, load<T>(dy + k, lanes) + load<T>(carried_ + k, lanes), lanes);
      });
    }
    if (ragged) {
      copy(carried_, count, kept_);
      select(H_, dy, T(0), dy);
    }
    if (needs_forward(layer_.kind)) {
      nalu::NALU_NAMESPACE::forward<T>(unit_, own, x_, nullptr, true, n_);
    }
    nalu::NALU_NAMESPACE::backward<T>(unit_, own, x_, dy, gradients, n_);
    copy(unit_.grad_x + I_ * n_, count, carried_);
    if (ragged) {
      select(H_, carried_, kept_, carried_);
      select(I_, unit_.grad_x, T(0), unit_.grad_x);
    }
    for_each_reset(t, [&](int64_t at) {
      grad_start_[at] += carried_[at];
      carried_[at] = 0;
    });
    if (pass.input != nullptr) {
      write(unit_.grad_x, I_, t, static_cast<S*>(pass.input));
    }
  }

  // f(place of a state's number) for the rows that begin anew with step t.
  template <class F>
  void for_each_reset(int64_t t, const F& f) const {
    if (call_.reset == nullptr) {
      return;
    }
    const bool* marks = call_.reset + t * call_.cell.B + begin_;
    for (int64_t row = 0; row < n_; ++row) {
      if (marks[row] && (call_.lengths == nullptr || t < call_.lengths[begin_ + row])) {
        for (int64_t i = 0; i < H_; ++i) {
          f(i * n_ + row);
        }
      }
    }
  }

  // to (columns, n) = from where rows go on, else `other`: a number, or numbers.
  template <class Other>
  void select(int64_t columns, const T* from, const Other& other, T* to) const {
    for_each_vector_of_rows<T>(columns, n_, [&](int64_t column, int64_t k, auto lanes) {
      const int64_t at = column * n_ + k;
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

  // What a step will read, while the one before it computes: the rows of other chunks lie between, so
  // that no processor foresees it.
  void fetch(const Steps& from, int64_t t, int64_t columns) const {
    if (0 <= t && t < call_.T && from.col_stride == 1 && from.row_stride == columns) {
      const S* data = static_cast<const S*>(from.data) + t * from.step_stride + begin_ * columns;
      constexpr int64_t line = 64 / sizeof(S);
      for (int64_t i = 0; i < n_ * columns; i += line) {
        prefetch(data + i);
      }
    }
  }

  // Of step t, this chunk's rows as (columns, n).
  void read(const Steps& from, int64_t t, int64_t columns, T* to) const {
    const S* data = static_cast<const S*>(from.data) + t * from.step_stride;
    const Rows rows{data, from.row_stride, from.col_stride};
    if constexpr (std::is_same_v<S, T>) {
      if (from.col_stride == 1 && from.row_stride == columns) {
        transpose_rows(data + begin_ * columns, n_, columns, to);
        return;
      }
    }
    pack<T, S>(rows, columns, begin_, begin_ + n_, turned_);
    transpose_rows(turned_, n_, columns, to);
  }

  // (columns, n) as this chunk's rows of step t.
  void write(const T* from, int64_t columns, int64_t t, S* to) const {
    to += (t * call_.cell.B + begin_) * columns;
    if constexpr (std::is_same_v<S, T>) {
      transpose_rows(from, columns, n_, to);
    } else {
      transpose_rows(from, columns, n_, turned_);
      convert<T>(columns * n_, turned_, to);
    }
  }

  // To the steps behind the end of all rows.
  void write_zeros(int64_t columns, S* to) const {
    for (int64_t t = longest_; t < call_.T; ++t) {
      S* step = to + (t * call_.cell.B + begin_) * columns;
      for (int64_t i = 0; i < columns * n_; ++i) {
        step[i] = S{};
      }
    }
  }

  const UnrollCall& call_;
  const StackLayer& layer_;
  const int64_t I_, H_, steps_between_;
  const bool backward_;
  Unit<T> unit_{};
  int64_t begin_ = 0, n_ = 0;
  int64_t shortest_ = 0, longest_ = 0; // of the chunk's rows
  T *x_, *state_, *start_, *kept_, *alive_, *turned_;
  T *dy_ = nullptr, *carried_ = nullptr, *grad_start_ = nullptr, *between_ = nullptr;
  const Size size_;
  Buffer<T> own_, block_;
  Buffer<S> rounded_;
  const Parameters<T, S> parameters_;
};

// Rows enough that a step's loops outweigh what it takes to begin them, and few where steps are long.
inline Chunks chunks_of_steps(const UnrollCall& call, bool helped) {
  const int64_t B = call.cell.B;
  if (helped) {
    return Chunks::of_one_part(B, B > 0 ? B : 1);
  }
  const StackLayer& layer = call.cell.layer;
  const double in = static_cast<double>(layer.in), out = static_cast<double>(layer.out);
  const bool logs = layer.kind != Kind::nac && layer.kind != Kind::nau && layer.kind != Kind::nmu;
  const double nanoseconds = (logs ? 2.5 : 0.3) * in + out + in * out * 0.05; // of a row's step
  constexpr int64_t least = 32;
  int64_t rows = least;
  while (static_cast<double>(rows) * nanoseconds < 150) {
    rows += least;
  }
  return {B, rows, layer.parameters()};
}

// Whether all threads and torch's BLAS go through a step together: large weights and so few rows that
// vectors along them would be empty. More rows take their steps sooner a thread each, measured: no
// thread waits for another before the last step.
inline bool wants_help(const UnrollCall& call) {
  const StackLayer& layer = call.cell.layer;
  constexpr int64_t few = 4;
  return call.cell.B <= few && layer.in * layer.out > kSmallWeight && !runs_alone();
}

// f(chunk's first row, rows) for the chunks from `first` on.
template <class F>
inline void for_each_rows(
    const UnrollCall& call, const Chunks& chunks, int64_t first, int64_t last, const F& f) {
  for (int64_t chunk = first; chunk < last; ++chunk) {
    const int64_t begin = chunk * chunks.rows, left = call.cell.B - begin;
    f(begin, left < chunks.rows ? left : chunks.rows);
  }
}

template <class S>
inline void unroll_forward_as(const UnrollCall& call, void* output, void* states) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = chunks_of_steps(call, helped);
  for_each_chunk(helped, chunks.count, [&](int64_t first, int64_t last) {
    Unroller<T, S> unroller(call, chunks.rows, false);
    for_each_rows(call, chunks, first, last, [&](int64_t begin, int64_t n) {
      unroller.forward(begin, n, static_cast<S*>(output), static_cast<S*>(states));
    });
  });
}

template <class S>
inline void unroll_backward_as(const UnrollCall& call, const UnrollBackward& pass) {
  using T = Compute<S>;
  const bool helped = wants_help(call);
  const Chunks chunks = chunks_of_steps(call, helped);
  const int64_t count = call.cell.layer.parameters();
  const int64_t parts = chunks.parts > 0 ? chunks.parts : 1;
  const Buffer<T> sums(parts * count);
  clear(sums.get(), chunks.parts > 0 ? 0 : count);
  for_each_chunk(helped, chunks.parts, [&](int64_t first, int64_t last) {
    Unroller<T, S> unroller(call, chunks.rows, true);
    for (int64_t part = first; part < last; ++part) {
      T* gradients = sums.get() + part * count;
      unroller.begin_sums(gradients);
      const int64_t begin = part * chunks.chunks_a_part, end = begin + chunks.chunks_a_part;
      const int64_t most = end < chunks.count ? end : chunks.count;
      for_each_rows(call, chunks, begin, most, [&](int64_t row, int64_t n) {
        unroller.backward(row, n, pass, gradients);
      });
      unroller.end_sums(gradients);
    }
  });
  add_parts<T, S>(call.cell, sums.get(), parts, pass.parameters);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
