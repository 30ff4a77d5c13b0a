// AVX-512 F, BW, DQ, VL, CD and VNNI (Cascade Lake, Ice Lake, Zen 4 and later).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define HONE_ISA_NAMESPACE avx512
#define HONE_ISA_AVX512 1
// Highway would ask for AES and PCLMUL flags before it believes in AVX-512; no kernel uses them.
#define HWY_DISABLE_PCLMUL_AES

#include "kernels/isa/vocabulary.h"

static_assert(HWY_TARGET == HWY_AVX3, "the flags in cmake/isa.cmake do not match this header");
