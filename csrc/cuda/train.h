// Trainings on a GPU, and the numbers of their stream.
#pragma once

#include "../training.h"
#include "call.h"

namespace nalu {
namespace cuda {

// All pointers are to memory of the GPU.
void train(Call&, const Training&);
void draw(Call&, const Draw&);

} // namespace cuda
} // namespace nalu
