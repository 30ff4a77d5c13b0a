// The name that somebody probably meant: for "unknown X, did you mean Y".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace hone {

// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `text`; empty where none is close (a third of the letters differ).
std::string nearest(std::string_view text, std::span<const std::string_view> candidates);

}  // namespace hone
