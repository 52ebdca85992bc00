// Threads of a call's own, and its clock. Not torch's threads: these stand a fork, and there are as
// many as the caller asks for.
#pragma once

#include <cstdint>

namespace nalu {

// Seconds, from whenever.
double now();

// Numbers from 0 on, each given to one thread.
class Tickets;
int64_t take(Tickets& tickets);

// body(thread, tickets, context) on so many threads at once, this one among them.
void on_threads(int64_t threads, void (*body)(int64_t, Tickets&, void*), void* context);

} // namespace nalu
