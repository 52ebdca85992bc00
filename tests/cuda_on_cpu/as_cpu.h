// Included before everything else: CUDA's operators become operators on CPU tensors, in a namespace
// of their own.
#pragma once

#include "../../csrc/torch.h"

#define CUDA CPU
#define nalu_kernels nalu_kernels_cuda_on_cpu
#define aoti_torch_device_type_cuda aoti_torch_device_type_cpu
#define NALU_MOST_UNITS 4 // so that some tests' units take several launches
