// The rules of the house as checks over a source tree: who includes whom, sizes, lists.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace hone::house {

// One sentence each: file, line, what is forbidden, what is allowed.
using Findings = std::vector<std::string>;

struct Layers {
  std::vector<std::string> rooms;  // in the order of the table, bottom to top
  std::map<std::string, std::set<std::string>> allowed;
  // The most specific room of a path below src ("passes/rewrite/fold.cpp"); "" if in none.
  std::string room_of(const std::string& path) const;
  // A room includes itself and the rooms of its row; a room inside of a room is another room.
  bool may_include(const std::string& from, const std::string& to) const;
};

Layers parse_layers(const std::string& table);

// All take the root of a tree that holds src/layers.txt.
Findings check_table(const std::filesystem::path& root);     // a row names only rows above it
Findings check_includes(const std::filesystem::path& root);  // every include by room path, allowed
Findings check_sizes(const std::filesystem::path& root);     // lines, columns, path, depth
Findings check_lists(const std::filesystem::path& root);     // list.inc and files agree
Findings check_licence(const std::filesystem::path& root);   // the SPDX line

// Functions longer than `limit` lines, as "file:line name (lines)"; told, not forbidden. By layout:
// an opening line in column 0 or 2 up to the closing brace in the same column.
Findings long_functions(const std::filesystem::path& root, int limit);

}  // namespace hone::house
