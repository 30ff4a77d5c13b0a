// Plain C++ behind the same vocabulary: the fallback, and the reference for the other sets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define HONE_ISA_NAMESPACE scalar
#define HONE_ISA_SCALAR 1
#define HWY_COMPILE_ONLY_SCALAR

#include "kernels/isa/vocabulary.h"

static_assert(HWY_TARGET == HWY_SCALAR, "the flags in cmake/isa.cmake do not match this header");
