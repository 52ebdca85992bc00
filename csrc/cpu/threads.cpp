#include "threads.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace nalu {

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

class Tickets {
 public:
  std::atomic<int64_t> next{0};
};

int64_t take(Tickets& tickets) {
  return tickets.next.fetch_add(1, std::memory_order_relaxed);
}

void on_threads(int64_t threads, void (*body)(int64_t, Tickets&, void*), void* context) {
  Tickets tickets;
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back([=, &tickets] { body(i, tickets, context); });
  }
  body(0, tickets, context);
  for (std::thread& other : others) {
    other.join();
  }
}

} // namespace nalu
