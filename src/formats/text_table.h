// Many short texts in one buffer: a vocabulary as strings of its own would be 32 bytes a token
// more.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace hone::formats {

// Item i keeps its place; views live as long as the table. Below 4 GiB in all.
class TextTable {
 public:
  using value_type = std::string;
  static constexpr std::size_t kMostBytes = std::numeric_limits<std::uint32_t>::max();

  TextTable() = default;
  TextTable(std::initializer_list<std::string_view> texts) {
    for (const std::string_view text : texts) push_back(text);
  }
  void reserve(std::size_t items, std::size_t bytes) {
    ends_.reserve(items);
    bytes_.reserve(bytes);
  }
  void push_back(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }
  std::size_t size() const { return ends_.size(); }
  bool empty() const { return ends_.empty(); }
  std::size_t total_bytes() const { return bytes_.size(); }
  bool operator==(const TextTable&) const = default;
  std::string_view operator[](std::size_t item) const {
    const std::uint32_t begin = item == 0 ? 0 : ends_[item - 1];
    return std::string_view(bytes_).substr(begin, ends_[item] - begin);
  }

 private:
  std::string bytes_;
  std::vector<std::uint32_t> ends_;
};

}  // namespace hone::formats
