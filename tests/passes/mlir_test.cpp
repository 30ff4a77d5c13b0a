// What ir::print writes is MLIR: mlir-opt reads every op's examples and whole models, before and
// after the passes.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "../support/command.h"
#include "../support/models.h"
#include "ir/text.h"
#include "ops/registry.h"

namespace hone::testing_models {
namespace {

// The first of Debian's names for mlir-opt that PATH holds; empty where it holds none.
std::string mlir_opt() {
  const char* path = std::getenv("PATH");
  const std::string_view folders = path == nullptr ? "" : path;
  for (const char* name : {"mlir-opt-19", "mlir-opt"}) {
    for (std::size_t at = 0; at < folders.size();) {
      const std::size_t end = std::min(folders.find(':', at), folders.size());
      const std::string file = std::string(folders.substr(at, end - at)) + "/" + name;
      if (access(file.c_str(), X_OK) == 0) return file;
      at = end + 1;
    }
  }
  return "";
}

// The ops that mlir-opt found in the text, each once; an error with its words if it refused.
Result<std::set<std::string>> read_by_mlir(const std::string& program, const std::string& text,
                                           const std::string& name) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("hone_{}_{}.mlir", name, getpid()))
          .string();
  std::ofstream(path) << text;
  const auto finished = testing_commands::run(
      {program, "--allow-unregistered-dialect", "--mlir-print-op-generic", path});
  std::filesystem::remove(path);
  if (finished.status != 0) {
    return Error{ErrorCode::kCorrupt, "mlir-opt refused the text", name, finished.output, "", ""};
  }
  std::set<std::string> ops;
  for (std::size_t at = 0; (at = finished.output.find("\"hone.", at)) != std::string::npos;) {
    const std::size_t end = finished.output.find('"', at + 1);
    ops.insert(finished.output.substr(at + 6, end - at - 6));
    at = end;
  }
  return ops;
}

// One operand an input each: what an example is inside of a text.
Result<ir::Graph> graph_of(const ir::OpDescriptor& op, const ir::Example& example) {
  ir::Builder builder("example", ops::find_op);
  std::vector<ir::ValueId> operands;
  for (const ir::ExampleOperand& operand : example.operands) {
    const std::string name = fmt::format("operand{}", operands.size());
    operands.push_back(builder.source("input", operand.type, {{"name", name}}));
  }
  const auto results = builder.emit_all(op.name, operands, example.attributes);
  for (std::size_t i = 0; i < results.size(); ++i) {
    builder.output(results[i], fmt::format("result{}", i));
  }
  return builder.finish();
}

TEST(Mlir, ReadsEveryOp) {
  const std::string program = mlir_opt();
  if (program.empty()) GTEST_SKIP() << "mlir-opt is absent: install Debian's mlir-19-tools";
  std::string text;
  std::set<std::string> expected;
  for (const ir::OpDescriptor* op : ops::all_ops()) {
    if (op->source) continue;
    for (const ir::Example& example : op->examples()) {
      const auto graph = graph_of(*op, example);
      ASSERT_TRUE(graph.ok()) << op->name << ": " << graph.error().text();
      text += ir::print(*graph);
      expected.insert(std::string(op->name));
    }
  }
  const auto found = read_by_mlir(program, text, "ops");
  ASSERT_TRUE(found.ok()) << found.error().text();
  for (const std::string& name : expected) EXPECT_TRUE(found->contains(name)) << name;
}

TEST(Mlir, RefusesWhatIsBroken) {
  const std::string program = mlir_opt();
  if (program.empty()) GTEST_SKIP() << "mlir-opt is absent: install Debian's mlir-19-tools";
  ir::Builder builder("example", ops::find_op);
  const auto x = builder.source("input", ir::tensor_type({2, 4}), {{"name", "x"}});
  builder.output(builder.emit("silu", {x}), "y");
  const auto graph = builder.finish();
  ASSERT_TRUE(graph.ok()) << graph.error().text();
  const std::string text = ir::print(*graph);
  EXPECT_TRUE(read_by_mlir(program, text, "sound").ok());
  // Another type than the value's, a value that nobody defines, a missing end.
  std::string type = text;
  type.replace(type.rfind("2x4"), 3, "2x5");
  EXPECT_FALSE(read_by_mlir(program, type, "type").ok()) << type;
  std::string value = text;
  value.replace(value.find("(%0)"), 4, "(%7)");
  EXPECT_FALSE(read_by_mlir(program, value, "value").ok()) << value;
  EXPECT_FALSE(read_by_mlir(program, text.substr(0, text.rfind('}')), "end").ok());
}

class MlirOnFamily : public testing::TestWithParam<std::string> {};

TEST_P(MlirOnFamily, ReadsWholeModels) {
  const std::string program = mlir_opt();
  if (program.empty()) GTEST_SKIP() << "mlir-opt is absent: install Debian's mlir-19-tools";
  for (const std::string& model :
       {golden_folder(GetParam()), quantized_copy(GetParam(), DType::kQ4_1)}) {
    const auto session = engine::Session::open(model);
    ASSERT_TRUE(session.ok()) << session.error().text();
    const auto graph = (*session)->build_graph({5, 2, 4, 2});
    ASSERT_TRUE(graph.ok()) << graph.error().text();
    const auto after = engine::run_passes(*graph, {});
    ASSERT_TRUE(after.ok()) << after.error().text();
    for (const ir::Graph* one : {&*graph, &*after}) {
      const auto found = read_by_mlir(program, ir::print(*one), GetParam());
      ASSERT_TRUE(found.ok()) << found.error().text();
      for (const ir::Operation& operation : one->operations) {
        EXPECT_TRUE(found->contains(std::string(operation.op->name))) << operation.op->name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, MlirOnFamily,
                         testing::Values("llama", "llama-rope3", "gemma3", "gemma3-linear", "qwen2",
                                         "qwen3", "gpt2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace hone::testing_models
