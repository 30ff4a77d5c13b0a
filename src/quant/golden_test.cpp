// Decoding against the bits that the `gguf` package gives; encoding against the error of
// llama.cpp's quantizers. tests/golden/quant/make.py made the files.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "quant/codec.h"

namespace hone::quant {
namespace {

const std::string kFolder = std::string(HONE_SOURCE_DIR) + "/tests/golden/quant/";

std::vector<float> floats_of(std::string_view bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

TEST(Golden, DecodesBitForBit) {
  for (const Codec& codec : codecs()) {
    const DTypeInfo& info = dtype_info(codec.dtype);
    const auto file = read_file(kFolder + std::string(info.name) + ".golden");
    ASSERT_TRUE(file.ok()) << file.error().text();
    // n blocks, then their n * block weights.
    const auto each = static_cast<std::size_t>(info.bytes + 4 * info.block);
    ASSERT_EQ(file->size() % each, 0u) << info.name;
    const std::size_t encoded = file->size() / each * static_cast<std::size_t>(info.bytes);
    ASSERT_GT(encoded, 0u) << info.name;
    const auto decoded = dequantize(codec.dtype, std::as_bytes(std::span(file->data(), encoded)));
    ASSERT_TRUE(decoded.ok());
    const std::vector<float> expected = floats_of(std::string_view(*file).substr(encoded));
    ASSERT_EQ(decoded->size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>((*decoded)[i]),
                std::bit_cast<std::uint32_t>(expected[i]))
          << info.name << ", weight " << i << ": " << (*decoded)[i] << " and " << expected[i];
    }
  }
}

// rmse.txt: format, sample, error without importance, error with it (weighted).
TEST(Golden, EncodesAtLeastAsWell) {
  const auto importance_file = read_file(kFolder + "importance.f32");
  ASSERT_TRUE(importance_file.ok());
  const std::vector<float> row_importance = floats_of(*importance_file);
  std::ifstream table(kFolder + "rmse.txt");
  std::string line;
  std::map<DType, int> seen;
  while (std::getline(table, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string name, sample;
    double plain = 0.0, weighted = 0.0;
    ASSERT_TRUE(fields >> name >> sample >> plain >> weighted) << line;
    const auto dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    const auto file = read_file(kFolder + sample + ".f32");
    ASSERT_TRUE(file.ok());
    const std::vector<float> weights = floats_of(*file);
    std::vector<float> importance(weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      importance[i] = row_importance[i % row_importance.size()];
    }
    const auto error = [&](std::span<const float> guide) {
      const auto blocks = quantize(*dtype, weights, guide);
      const auto decoded = dequantize(*dtype, *blocks);
      double total = 0.0;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const double difference = static_cast<double>((*decoded)[i]) - weights[i];
        total += difference * difference * (guide.empty() ? 1.0 : guide[i]);
      }
      return std::sqrt(total / static_cast<double>(weights.size()));
    };
    // The last digit of the table is rounded: 1e-6 of the value.
    EXPECT_LE(error({}), plain * (1.0 + 1e-6)) << line;
    EXPECT_LE(error(importance), weighted * (1.0 + 1e-6)) << line;
    ++seen[*dtype];
  }
  for (const Codec& codec : codecs()) {
    const int samples = codec.dtype == DType::kF32 ? 0 : 4;
    EXPECT_EQ(seen[codec.dtype], samples) << dtype_name(codec.dtype);
  }
}

}  // namespace
}  // namespace hone::quant
