// Fills the kernel tables from list.inc and asks the CPU which of them it can run.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/registry.h"

#include <cpuid.h>

#include <array>
#include <cstdlib>

namespace hone::kernels {

#define HONE_KERNEL(name, result, parameters) result name parameters;
namespace scalar {
#include "kernels/list.inc"
}
namespace avx2 {
#include "kernels/list.inc"
}
namespace avx512 {
#include "kernels/list.inc"
}
#undef HONE_KERNEL

namespace {

#define HONE_KERNEL(name, result, parameters) &name,
constexpr KernelTable scalar_table() {
  using namespace scalar;
  return {
      "scalar",
#include "kernels/list.inc"
  };
}
constexpr KernelTable avx2_table() {
  using namespace avx2;
  return {
      "avx2",
#include "kernels/list.inc"
  };
}
constexpr KernelTable avx512_table() {
  using namespace avx512;
  return {
      "avx512",
#include "kernels/list.inc"
  };
}
#undef HONE_KERNEL

constexpr KernelTable kScalar = scalar_table();
constexpr KernelTable kAvx2 = avx2_table();
constexpr KernelTable kAvx512 = avx512_table();

// Not among the names that older compilers' checks know; leaf 1, ECX bit 29.
bool cpu_has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 29 & 1u) != 0;
}

// The compiler's checks include the operating system's (XGETBV: does it save these registers?).
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && cpu_has_f16c();
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512vnni");
}

struct Available {
  std::array<const KernelTable*, 3> tables{};
  std::size_t count = 0;
};

Available detect() {
  Available available;
  available.tables[available.count++] = &kScalar;
  if (cpu_has_avx2()) available.tables[available.count++] = &kAvx2;
  if (cpu_has_avx512()) available.tables[available.count++] = &kAvx512;
  return available;
}

const KernelTable& choose() {
  if (const char* wanted = std::getenv("HONE_ISA")) {
    if (const KernelTable* table = find_kernels(wanted)) return *table;
  }
  return *available_kernels().back();
}

}  // namespace

std::span<const KernelTable* const> available_kernels() {
  static const Available available = detect();
  return {available.tables.data(), available.count};
}

const KernelTable& kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

const KernelTable* find_kernels(std::string_view isa) {
  for (const KernelTable* table : available_kernels()) {
    if (isa == table->isa) return table;
  }
  return nullptr;
}

}  // namespace hone::kernels
