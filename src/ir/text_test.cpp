// Graphs as text: what is printed comes back the same, and what is wrong is named by its place.
// SPDX-License-Identifier: Apache-2.0
#include "ir/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ir/toy_ops.h"

namespace hone::ir {
namespace {

// Prints, parses, prints again; the attribute must come back bit for bit.
void expect_round_trip(const Attribute& attribute) {
  Builder builder("g", toy::find);
  const ValueId a = builder.source("input", tensor_type({2}), {{"value", attribute}});
  builder.output(builder.emit("add", {a, a}), "out");
  const auto graph = builder.finish();
  ASSERT_TRUE(graph.ok());
  const std::string text = print(*graph);
  const auto parsed = parse(text, toy::find);
  ASSERT_TRUE(parsed.ok()) << parsed.error().text() << "\n" << text;
  EXPECT_EQ(print(*parsed), text);
  EXPECT_EQ(structural_hash(*parsed), structural_hash(*graph)) << text;
}

TEST(Text, AttributesOfAllKindsComeBack) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<Attribute> attributes = {
      true,
      false,
      std::int64_t{0},
      std::int64_t{-7},
      std::numeric_limits<std::int64_t>::max(),
      std::numeric_limits<std::int64_t>::min(),
      0.0,
      -0.0,
      1.0,
      -1e-5,
      1e22,
      1e300,
      0.1,
      1.0 / 3.0,
      std::numeric_limits<double>::max(),
      std::numeric_limits<double>::min(),
      std::numeric_limits<double>::denorm_min(),
      infinity,
      -infinity,
      std::numeric_limits<double>::quiet_NaN(),
      std::string(),
      std::string("plain"),
      std::string("a \"quote\", a \\, a } and a %0"),
      std::string("line\nbreak, tab\t, null\0, bell\a", 30),
      std::string("\xc3\xa9\xe2\x82\xac \xff\xfe no utf-8"),
      std::string("// no comment"),
      Integers{},
      Integers{1},
      Integers{std::numeric_limits<std::int64_t>::min(), 0, 9},
      Numbers{},
      Numbers{1, -0.5, 1e-320, infinity, -infinity},
      Strings{},
      Strings{""},
      Strings{"a", "", "\"", "]"},
  };
  for (const Attribute& attribute : attributes) expect_round_trip(attribute);
}

TEST(Text, SeveralResultsAndSourcesComeBack) {
  const Graph graph = toy::small_graph();
  const std::string text = print(graph);
  EXPECT_NE(text.find("%3:2 = \"hone.split\"(%2) {parts = 2 : i64}"), std::string::npos) << text;
  EXPECT_NE(text.find("(%3, %3#1)"), std::string::npos + 1) << text;
  const auto parsed = parse(text, toy::find);
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  EXPECT_EQ(print(*parsed), text);
  EXPECT_EQ(parsed->name, "small");
  EXPECT_EQ(parsed->output_names, graph.output_names);
}

TEST(Text, TypesComeBack) {
  for (const Layout layout :
       {Layout::kRowMajor, Layout::kRows16, Layout::kInt8Rows, Layout::kCache}) {
    for (const DTypeInfo& info : all_dtypes()) {
      for (const Shape& shape : {Shape{}, Shape{7}, Shape{3, 256}, Shape{2, 1, 256}}) {
        Builder builder("g", toy::find);
        const ValueId a = builder.source("input", Type{info.dtype, shape, layout}, {});
        builder.output(builder.emit("add", {a, a}), "out");
        const auto graph = builder.finish();
        const auto parsed = parse(print(*graph), toy::find);
        ASSERT_TRUE(parsed.ok()) << parsed.error().text() << "\n" << print(*graph);
        EXPECT_EQ(parsed->type(0), graph->type(0));
      }
    }
  }
}

TEST(Text, NamesAndNumbersAreFree) {
  const auto parsed = parse(
      "// a comment\n\"hone.graph\"() ({ // another\n"
      "%70=\"hone.input\"(){name=\"x\"}:()->(tensor<4xf32>)\n"
      "%8 = \"hone.add\"(%70, %70#0) : (tensor<4xf32>,tensor<4xf32>) -> (tensor<4xf32>)\n"
      "\"hone.return\"(%8) {names = [\"y\"]} : (tensor<4xf32>) -> ()\n}) : () -> ()",
      toy::find);
  ASSERT_TRUE(parsed.ok()) << parsed.error().text();
  EXPECT_EQ(parsed->operations.size(), 2u);
  EXPECT_EQ(parsed->outputs, std::vector<ValueId>{1});
}

// Replaces the first `from` of a good text by `to`: an error at this place, with these words.
void expect_error(const char* from, const char* to, const char* place, const char* expected) {
  std::string text = print(toy::small_graph());
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  text.replace(at, std::string_view(from).size(), to);
  const auto parsed = parse(text, toy::find);
  ASSERT_FALSE(parsed.ok()) << text;
  EXPECT_EQ(parsed.error().where, place) << parsed.error().text() << "\n" << text;
  EXPECT_NE(parsed.error().expected.find(expected), std::string::npos) << parsed.error().text();
}

TEST(Text, ErrorsNameLineColumnFoundAndExpected) {
  expect_error("hone.graph", "hone.grape", "line 1, column 1", "\"hone.graph\"");
  expect_error("\"hone.add\"", "\"hone.sub\"", "line 4, column 18", "a known op, not 'hone.sub'");
  expect_error("\"hone.add\"", "\"tosa.add\"", "line 4, column 18", "a known op, not 'tosa.add'");
  expect_error("(%0, %1)", "(%0, %9)", "line 4, column 25", "a value that was made before");
  expect_error("(%0, %1)", "(%0 %1)", "line 4, column 22", "','");
  expect_error("rate = 0.5 : f64", "rate = 0.5 : f32", "line 4, column 41", "'i64'");
  expect_error("2 : i64", "2.5 : i64", "line 5, column 45", "an integer");
  expect_error("2 : i64", "99999999999999999999 : i64", "line 5, column 62", "an integer");
  expect_error("rate", "=", "line 4, column 28", "an attribute name");
  expect_error("tensor<2x3xf32>", "tensor<2x3xf33>", "line 2, column 59", "a known element type");
  expect_error("tensor<2x3xf32>", "tensor<-2xf32>", "line 2, column 52", "a known element type");
  expect_error("tensor<2x3xf32>", "vector<2x3xf32>", "line 2, column 45", "'!hone.array<'");
  expect_error("tensor<2x3xf32>", "!hone.array<f32, diagonal, 2x3>", "line 2, column 70",
               "a layout");
  expect_error("tensor<2x3xf32>", "tensor<4294967296x4294967296xf32>", "line 2, column 73",
               "elements");
  expect_error("%2 =", "%1 =", "line 4, column 103", "a value number that is not taken yet");
  expect_error("%3:2", "%3:3", "line 5, column 102", "as many types as results");
  expect_error("(tensor<2x3xf32>, tensor<2x3xf32>)", "(tensor<2x3xf32>)", "line 4, column 65",
               "the types that the operands were made with");
  expect_error("\"hone.return\"", "}", "line 6, column 3", "\"hone.return\"");
  expect_error("\"first\"", "\"fi\\Zrst\"", "line 6, column 42", "an escape");
}

TEST(Text, CutAnywhereIsAnErrorAndNeverMore) {
  const std::string text = print(toy::small_graph());
  const std::size_t last = text.find_last_not_of(" \n");
  for (std::size_t size = 0; size <= last; ++size) {
    const auto parsed = parse(std::string_view(text).substr(0, size), toy::find);
    ASSERT_FALSE(parsed.ok()) << size;
    EXPECT_NE(parsed.error().where.find("line "), std::string::npos);
  }
  EXPECT_FALSE(parse(text + "more", toy::find).ok());
}

TEST(Text, WhatParsesIsVerified) {
  std::string text = print(toy::small_graph());
  const std::string type = "(tensor<2x3xf32>)\n  %3";
  const std::size_t at = text.find(type);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 15 + 1, "(tensor<2x4xf32>");  // the sum under a type that its rule denies
  EXPECT_FALSE(parse(text, toy::find).ok());
}

}  // namespace
}  // namespace hone::ir
