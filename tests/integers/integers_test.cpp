// The integer network's machine code: no instruction that computes with floating-point numbers.
// Moves and logic of vector registers are allowed, whatever type their names speak of; additions,
// products, comparisons, conversions and the x87 unit are not.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <vector>

namespace hone {
namespace {

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 65536> portion{};
  if (pipe == nullptr) return text;
  for (std::size_t got = 0; (got = fread(portion.data(), 1, portion.size(), pipe.get())) > 0;) {
    text.append(portion.data(), got);
  }
  return text;
}

struct Code {
  std::int64_t instructions = 0;
  std::vector<std::string> floating;  // lines
};

Code read_code(const std::string& object) {
  static const std::regex kFloating(
      "v?(add|sub|mul|div|sqrt|rsqrt|rsqrt14|rcp|rcp14|max|min|cmp[a-z]*|u?comi|hadd|hsub|addsub|"
      "round|rndscale|scalef|dp|fn?m(add|sub|addsub|subadd)(132|213|231))(s|p)[sdh]"
      "|v?cvt[a-z0-9]+|f[a-z0-9]+");
  Code code;
  const std::string text =
      output_of("objdump -d --no-show-raw-insn -M att '" + object + "' 2>/dev/null");
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t tab = line.find(":\t");
    if (tab == std::string::npos) continue;
    const std::string mnemonic = line.substr(tab + 2, line.find_first_of(" \t", tab + 2) - tab - 2);
    ++code.instructions;
    if (std::regex_match(mnemonic, kFloating)) code.floating.push_back(line);
  }
  return code;
}

const std::string kObjects = std::string(HONE_BINARY_DIR) + "/CMakeFiles/";

// Elsewhere the names of the instructions are others.
bool can_read() {
#if defined(__x86_64__)
  return !output_of("objdump --version 2>/dev/null").empty();
#else
  return false;
#endif
}

TEST(Integers, NoFloatingPointOnThePath) {
  if (!can_read()) GTEST_SKIP() << "there is no objdump (binutils), or this is no x86-64";
  for (const char* object : {"hone_tune.dir/src/tune/integer_network.cpp.o",
                             "hone_tune.dir/src/tune/integer_arithmetic.cpp.o",
                             "hone_kernels.dir/isa/integer_product_scalar.cpp.o",
                             "hone_kernels.dir/isa/integer_product_avx2.cpp.o",
                             "hone_kernels.dir/isa/integer_product_avx512.cpp.o"}) {
    const std::string path = kObjects + object;
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "objects are not kept: " << path;
    const Code code = read_code(path);
    EXPECT_GT(code.instructions, 50) << object;
    EXPECT_TRUE(code.floating.empty())
        << object << ": " << code.floating.size()
        << (code.floating.empty() ? "" : ", as " + code.floating.front());
  }
}

// The same reading finds them where they are.
TEST(Integers, TheReaderSeesFloatingPoint) {
  if (!can_read()) GTEST_SKIP() << "there is no objdump (binutils), or this is no x86-64";
  for (const char* object :
       {"hone_tune.dir/src/tune/elastic.cpp.o", "hone_kernels.dir/isa/gemm_avx2.cpp.o",
        "hone_kernels.dir/isa/int8_gemm_scalar.cpp.o"}) {
    const std::string path = kObjects + object;
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "objects are not kept: " << path;
    EXPECT_FALSE(read_code(path).floating.empty()) << object;
  }
}

}  // namespace
}  // namespace hone
