// AVX2 with FMA, F16C and BMI2 (Haswell, Zen and later).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define HONE_ISA_NAMESPACE avx2
#define HONE_ISA_AVX2 1
// Highway would ask for AES and PCLMUL flags before it believes in AVX2; no kernel uses them.
#define HWY_DISABLE_PCLMUL_AES

#include "kernels/isa/vocabulary.h"

static_assert(HWY_TARGET == HWY_AVX2, "the flags in cmake/isa.cmake do not match this header");
