// What each pass does, as text: tests/passes/<pass>*.ir holds the graph before and, after a line
// of dashes, the graph as it must come out.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/file.h"
#include "ir/text.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone {
namespace {

constexpr std::string_view kBorder = "// -----\n";

std::vector<std::string> cases() {
  std::vector<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(HONE_SOURCE_DIR) + "/tests/passes")) {
    if (entry.path().extension() == ".ir") out.push_back(entry.path().stem().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// "fuse_norm-add" is a case of the pass "fuse_norm".
std::string pass_of(const std::string& name) { return name.substr(0, name.find('-')); }

class PassText : public testing::TestWithParam<std::string> {};

TEST_P(PassText, ComesOutAsWritten) {
  const std::string path = std::string(HONE_SOURCE_DIR) + "/tests/passes/" + GetParam() + ".ir";
  const auto text = read_file(path);
  ASSERT_TRUE(text.ok());
  const std::string_view whole(*text);
  const std::size_t border = whole.find(kBorder);
  ASSERT_NE(border, std::string::npos) << path << " has no border";
  const auto before = ir::parse(whole.substr(0, border), ops::find_op);
  ASSERT_TRUE(before.ok()) << path << ": " << before.error().text();
  const passes::Pass* pass = passes::find_pass(pass_of(GetParam()));
  ASSERT_NE(pass, nullptr) << path << " is named after no pass";
  const auto found = pass->run(*before);
  ASSERT_TRUE(found.ok()) << found.error().text();
  const auto expected = ir::parse(whole.substr(border), ops::find_op);
  ASSERT_TRUE(expected.ok()) << path << ": " << expected.error().text() << "; found\n"
                             << ir::print(*found);
  EXPECT_EQ(ir::print(*found), ir::print(*expected)) << path;
}

INSTANTIATE_TEST_SUITE_P(All, PassText, testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(PassTexts, EveryPassHasOne) {
  std::map<std::string, int> count;
  for (const std::string& name : cases()) ++count[pass_of(name)];
  for (const passes::Pass* pass : passes::all_passes()) {
    EXPECT_GT(count[std::string(pass->name)], 0)
        << "add tests/passes/" << pass->name << ".ir with a graph before and after";
  }
}

}  // namespace
}  // namespace hone
