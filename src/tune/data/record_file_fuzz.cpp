// Fuzzes the reader of data files, and what turns its records into tokens: whatever the bytes are,
// it ends with examples that keep their promises or with an error.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tune/data/dataset.h"
#include "tune/data/small_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hone::tune;
  static const hone::formats::Tokenizer kTokenizer = testing_data::base_tokenizer();
  // The first byte chooses the file's name and the mask; the rest is the file.
  constexpr std::array<const char*, 4> kNames = {"data", "data.json", "data.csv", "data.txt"};
  const std::size_t choice = size == 0 ? 0 : data[0];
  const std::string_view text(reinterpret_cast<const char*>(data) + (size == 0 ? 0 : 1),
                              size == 0 ? 0 : size - 1);
  const DataOptions options{.length = 24, .everything = choice / 4 % 2 == 1, .most_dropped = 1};
  const auto dataset =
      dataset_of_text(text, kNames[choice % kNames.size()], kTokenizer, nullptr, options);
  if (!dataset) {
    if (dataset.error().what.empty()) __builtin_trap();
    return 0;
  }
  const DataReport& report = dataset->report;
  if (report.kept + report.dropped != report.records) __builtin_trap();
  if (report.kept != std::ssize(dataset->examples)) __builtin_trap();
  for (const Example& example : dataset->examples) {
    if (example.tokens.size() != example.learn.size() || example.tokens.size() > 24 ||
        example.learn.at(0) != 0 ||
        std::find(example.learn.begin(), example.learn.end(), 1) == example.learn.end()) {
      __builtin_trap();
    }
  }
  return 0;
}
