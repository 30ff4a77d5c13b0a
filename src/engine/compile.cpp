// SPDX-License-Identifier: Apache-2.0
#include "engine/compile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "passes/pass.h"

namespace hone::engine {
namespace {

// Fusions read the form that cse leaves; layout comes when every reader of a weight is known.
constexpr const char* kDefaultOrder[] = {"fold",       "integer",   "cse",           "dce",
                                         "fuse_signs", "fuse_norm", "fuse_residual", "fuse_gate",
                                         "fuse_group", "fuse_rope", "layout",        "dce"};

Error unknown_pass(const std::string& name) {
  std::string known;
  for (const passes::Pass* pass : passes::all_passes()) {
    known += (known.empty() ? "" : ", ") + std::string(pass->name);
  }
  return Error{
      ErrorCode::kNotFound, fmt::format("there is no pass called '{}'", name), "", "", known, ""};
}

}  // namespace

Result<std::vector<std::string>> pipeline(const CompileOptions& options) {
  std::vector<std::string> names = options.order;
  if (names.empty()) {
    for (const char* name : kDefaultOrder) {
      const bool skipped =
          options.arithmetic == Arithmetic::kFloat && std::string(name) == "integer";
      if (!skipped) names.emplace_back(name);
    }
  }
  for (const std::string& name : options.disabled) {
    if (passes::find_pass(name) == nullptr) return unknown_pass(name);
    std::erase(names, name);
  }
  for (const std::string& name : names) {
    if (passes::find_pass(name) == nullptr) return unknown_pass(name);
  }
  return names;
}

Result<ir::Graph> run_passes(ir::Graph graph, const CompileOptions& options,
                             std::vector<PassReport>* report, const Observe& observe,
                             const cost::Machine& machine) {
  auto names = pipeline(options);
  if (!names) return names.error();
  if (observe) observe("", graph);
  for (const std::string& name : *names) {
    const auto start = std::chrono::steady_clock::now();
    auto after = passes::find_pass(name)->run(graph);
    const auto end = std::chrono::steady_clock::now();
    if (!after) return after.error().in(fmt::format("pass '{}'", name));
    if (options.verify) {
      const Status status = ir::verify(*after);
      if (!status.ok()) return status.error().in(fmt::format("after pass '{}'", name));
    }
    if (report != nullptr) {
      report->push_back(
          {name, graph.operations.size(), after->operations.size(), cost::estimate(graph, machine),
           cost::estimate(*after, machine),
           std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count()});
    }
    graph = *std::move(after);
    if (observe) observe(name, graph);
  }
  return graph;
}

Result<runtime::Program> compile(ir::Graph graph, const CompileOptions& options,
                                 std::vector<PassReport>* report) {
  auto rewritten = run_passes(std::move(graph), options, report);
  if (!rewritten) return rewritten.error();
  return passes::lower(*rewritten, options.lower);
}

}  // namespace hone::engine
