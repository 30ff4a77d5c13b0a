// Numbers as a person reads them: bytes, durations, rates.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace hone {

// Three digits and a decimal unit: "999 B", "1.50 MB", "93.8 GB".
std::string human_bytes(std::int64_t bytes);
// "12.3 us", "4.56 ms", "7.89 s", "2 min 05 s", "3 h 07 min".
std::string human_duration(double seconds);
// Thousands set apart: "1,234,567".
std::string human_count(std::int64_t count);

}  // namespace hone
