// What the kernels include and must be compiled for every processor alike: included before a target
// is switched on.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "capability.h"
#include "runtime.h"
#include "threads.h"

#define NALU_STRING_OF(...) #__VA_ARGS__
#define NALU_STRING(...) NALU_STRING_OF(__VA_ARGS__)
