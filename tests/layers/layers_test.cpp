// The rules of the house on this tree, and on small broken trees to show that each rule can fail.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>

#include "rules.h"

namespace hone::house {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = HONE_SOURCE_DIR;

std::string text(const Findings& findings) {
  std::string out;
  for (const std::string& finding : findings) out += finding + "\n";
  return out;
}

void expect_none(const Findings& findings) {
  EXPECT_TRUE(findings.empty()) << findings.size() << " findings\n" << text(findings);
}

TEST(House, TheTableHasNoCycle) { expect_none(check_table(kRoot)); }
TEST(House, RoomsIncludeOnlyWhatTheirRowAllows) { expect_none(check_includes(kRoot)); }
TEST(House, FilesPathsAndLinesAreShort) { expect_none(check_sizes(kRoot)); }
TEST(House, ListsAndFilesAgree) { expect_none(check_lists(kRoot)); }
TEST(House, EverySourceNamesItsLicence) { expect_none(check_licence(kRoot)); }
TEST(House, LongFunctionsAreTold) {
  const Findings findings = long_functions(kRoot, 80);
  RecordProperty("functions_over_80_lines", static_cast<int>(findings.size()));
  std::cout << findings.size() << " functions over 80 lines\n" << text(findings);
}

// A sound small tree in a temporary folder, for each test to break in one place.
class BrokenHouse : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "hone-house-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    write("src/layers.txt",
          "# a table\nlow:\nmiddle: low\nmiddle/part: low middle\nhigh: low middle/part\n");
    write("src/low/a.h", kHead);
    write("src/middle/m.h", kHead + "#include \"low/a.h\"\n");
    write("src/middle/part/p.h", kHead + "#include \"middle/m.h\"\n#include <vector>\n");
    write("src/middle/sub/s.h", kHead + "#include \"middle/m.h\"\n");  // of the room middle
    write("src/high/list.inc", "// Members.\nHONE_THING(one)\n");
    write("src/high/one.cpp", kHead + "#include \"middle/part/p.h\"\n#include \"high/shared.h\"\n");
    write("src/high/shared.h", kHead);
    write("src/high/shared.cpp", kHead);
    write("src/high/one_test.cpp", kHead);
    write("src/kernels/list.inc", "// wave.inl; out may be x\nHONE_KERNEL(sine, void, (int x))\n");
    write("src/kernels/wave.inl", kHead + "void sine(int x) {}\n");
    write("src/quant/list.inc", "HONE_CODEC(kQ4_0, q4_0)\n");
    write("src/quant/old.cpp", kHead + "void decode_q4_0() {}\n");
    append("src/layers.txt", "kernels: low\nquant: low\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& file, const std::string& content) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << content;
  }
  void append(const std::string& file, const std::string& content) {
    std::ofstream(root_ / file, std::ios::app) << content;
  }
  Findings all() {
    Findings findings;
    for (auto check : {check_table, check_includes, check_sizes, check_lists, check_licence}) {
      for (std::string& finding : check(root_)) findings.push_back(std::move(finding));
    }
    return findings;
  }
  // Exactly one finding, with these words in it.
  void expect_only(const std::vector<std::string>& words) {
    const Findings findings = all();
    EXPECT_EQ(findings.size(), 1U) << text(findings);
    for (const std::string& word : words) {
      EXPECT_NE(text(findings).find(word), std::string::npos) << word << "\n" << text(findings);
    }
  }

  const std::string kHead = "// A file.\n// SPDX-License-Identifier: Apache-2.0\n";
  fs::path root_;
};

TEST_F(BrokenHouse, SoundBeforeItIsBroken) { EXPECT_EQ(text(all()), ""); }

TEST_F(BrokenHouse, ForbiddenIncludeIsFound) {
  append("src/low/a.h", "\n  #  include \"middle/m.h\"\n");
  expect_only({"src/low/a.h:4", "low may not include middle", "\"middle/m.h\"", "allowed: low"});
}

TEST_F(BrokenHouse, SubRoomsHaveRowsOfTheirOwn) {
  append("src/middle/m.h", "#include \"middle/part/p.h\"\n");
  expect_only({"middle may not include middle/part", "allowed: low, middle"});
}

TEST_F(BrokenHouse, RowOfARoomSaysNothingOfTheRoomsInside) {
  append("src/high/one.cpp", "#include \"middle/m.h\"\n");
  expect_only({"high may not include middle ", "allowed: high, low, middle/part"});
}

TEST_F(BrokenHouse, ForbiddenIncludeInAListIsFound) {
  append("src/low/table.inc", "#include \"high/shared.h\"\n");
  expect_only({"src/low/table.inc:1", "low may not include high"});
}

TEST_F(BrokenHouse, IncludeNotByRoomPathIsFound) {
  append("src/high/one.cpp", "#include \"shared.h\"\n");
  expect_only({"src/high/one.cpp:5", "room path"});
}

TEST_F(BrokenHouse, FileOutsideOfTheRoomsIsFound) {
  write("src/attic/a.cpp", kHead);
  expect_only({"src/attic/a.cpp", "no room"});
}

TEST_F(BrokenHouse, CycleInTheTableIsFound) {
  append("src/layers.txt", "early: late\nlate: early\n");
  expect_only({"early names late", "cycle"});
}

TEST_F(BrokenHouse, LongFileIsFound) {
  std::string content = kHead;
  for (int i = 0; i < 799; ++i) content += "\n";
  write("src/low/long.cpp", content);
  expect_only({"src/low/long.cpp", "801 lines", "800"});
}

TEST_F(BrokenHouse, TinyAndRecipesHaveLimitsOfTheirOwn) {
  std::string content = kHead;
  for (int i = 0; i < 149; ++i) content += "\n";
  write("recipes/paper.cpp", content);
  for (int i = 0; i < 849; ++i) content += "\n";
  write("tiny/hone.cpp", content);  // 1,000 lines
  expect_only({"recipes/paper.cpp", "151 lines", "150"});
}

TEST_F(BrokenHouse, WideLineIsFoundByCharacters) {
  std::string umlauts;
  for (int i = 0; i < 97; ++i) umlauts += "ü";  // 194 bytes, 100 columns with "// "
  append("src/low/a.h", "// " + umlauts + "\n// " + umlauts + "!\n");
  expect_only({"src/low/a.h:4", "101 columns"});
}

TEST_F(BrokenHouse, DeepFolderAndLongPathAreFound) {
  write("src/low/b/c/d.h", kHead);
  EXPECT_EQ(text(all()), "");
  write("src/low/b/c/d/e.h", kHead);
  expect_only({"src/low/b/c/d/e.h", "4 folders deep"});
  fs::remove(root_ / "src/low/b/c/d/e.h");
  write("tests/" + std::string(53, 'x') + ".h", kHead);  // 61
  expect_only({"61 characters"});
}

TEST_F(BrokenHouse, ListLineWithoutFileIsFound) {
  append("src/high/list.inc", "HONE_THING(two)\n");
  expect_only({"src/high/list.inc:3", "no src/high/two.cpp"});
}

TEST_F(BrokenHouse, FileWithoutListLineIsFound) {
  write("src/high/two.cpp", kHead);
  expect_only({"src/high/two.cpp has no line in src/high/list.inc"});
}

TEST_F(BrokenHouse, KernelFamilyWithoutHeadingIsFound) {
  write("src/kernels/extra.inl", kHead);
  expect_only({"src/kernels/extra.inl heads no lines"});
}

TEST_F(BrokenHouse, KernelWithoutCodeIsFound) {
  append("src/kernels/list.inc", "HONE_KERNEL(cosine, void, (int x))\n");
  expect_only({"src/kernels/list.inc:3", "cosine is in no member's file"});
}

TEST_F(BrokenHouse, FormatsShareAFileAndAreCheckedByDefinition) {
  append("src/quant/list.inc", "HONE_CODEC(kQ4_1, q4_1)\n");
  expect_only({"src/quant/list.inc:2", "decode_q4_1"});
  append("src/quant/old.cpp", "void decode_q4_1() {}\n");
  EXPECT_EQ(text(all()), "");
  write("src/quant/lost.cpp", kHead);
  expect_only({"src/quant/lost.cpp has no line"});
}

TEST_F(BrokenHouse, MissingLicenceIsFound) {
  write("src/low/b.h", "// A file.\n");
  expect_only({"src/low/b.h", "SPDX"});
}

TEST_F(BrokenHouse, LongFunctionIsCounted) {
  std::string body = "int f(int x) {\n";
  for (int i = 0; i < 80; ++i) body += "  ++x;\n";
  write("src/low/f.cpp", kHead + body + "}\n\nint g() {\n  return 1;\n}\n");
  const Findings findings = long_functions(root_, 80);
  EXPECT_EQ(findings.size(), 1U) << text(findings);
  EXPECT_NE(text(findings).find("src/low/f.cpp:3: 82 lines"), std::string::npos) << text(findings);
}

}  // namespace
}  // namespace hone::house
