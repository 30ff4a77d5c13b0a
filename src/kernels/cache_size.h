// The sizes of the caches, as the operating system reports it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace hone::kernels {

// Bytes of CPU 0's largest cache; 32 MiB where the system does not say. A virtual machine may
// report a cache that it shares with others, or see less of it: a bound, not a promise.
std::size_t last_level_cache_bytes();

// Bytes of CPU 0's second level cache, which belongs to one core; 1 MiB where the system is silent.
std::size_t private_cache_bytes();

}  // namespace hone::kernels
