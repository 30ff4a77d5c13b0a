// hone compile: shows what the compiler makes of a model.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/human.h"
#include "cli/model_options.h"
#include "cli/plan_picture.h"
#include "cli/registry.h"
#include "engine/limits.h"
#include "ir/text.h"
#include "passes/pass.h"

namespace hone::cli {
namespace {

struct Options {
  ModelOptions model;
  std::int64_t tokens = 1;
  std::int64_t sequences = 1;
  std::int64_t rows = 0;
  std::string emit = "table";
  std::vector<std::string> before, after, disabled;
  std::string svg;
  bool list = false;
};

void declare(Options& options, Arguments& arguments) {
  declare_model(options.model, arguments);
  arguments.option("--tokens", options.tokens, "tokens of the batch", Integers{1, 8192});
  arguments.option("--sequences", options.sequences, "sequences of the batch", Integers{1, 1024});
  arguments.option("--rows", options.rows, "tokens whose logits are wanted; 0: one a sequence",
                   Integers{0, 8192});
  arguments.choice("--emit", options.emit, {"table", "ir", "plan"},
                   "what each pass changed, the graph after all passes, or the memory plan");
  arguments.option("--print-before", options.before, "print the graph before this pass, or all",
                   "PASS");
  arguments.option("--print-after", options.after, "print the graph after this pass, or all",
                   "PASS");
  arguments.option("--disable-pass", options.disabled, "leave this pass out", "PASS");
  arguments.option("--svg", options.svg, "write the memory plan as a picture", "FILE");
  arguments.flag("--list-passes", options.list, "say what passes there are");
}

bool names(const std::vector<std::string>& list, const std::string& pass) {
  return std::ranges::find(list, pass) != list.end() ||
         std::ranges::find(list, "all") != list.end();
}

Status check_names(const std::vector<std::string>& list) {
  for (const std::string& name : list) {
    if (name == "all" || passes::find_pass(name) != nullptr) continue;
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no pass called '{}'", name),
                 "",
                 "",
                 "",
                 "hone compile MODEL --list-passes"};
  }
  return {};
}

void list_passes(Output& output) {
  Table table({"pass", "kind", "what it does"});
  for (const passes::Pass* pass : passes::all_passes()) {
    table.row({std::string(pass->name),
               pass->kind == passes::PassKind::kRewrite ? "rewrite" : "transform",
               std::string(pass->summary)});
  }
  output.print(table.text());
}

struct Compiled {
  std::vector<engine::PassReport> report;
  ir::Graph graph;
  runtime::Program program;
  double build_seconds = 0, passes_seconds = 0, lower_seconds = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Result<Compiled> compile(const Options& options, engine::Session& session,
                         const cost::Machine& machine, Output& output) {
  Compiled compiled;
  const std::int64_t pages = (session.context() + kernels::kPageTokens - 1) / kernels::kPageTokens;
  const models::Batch batch{std::max(options.tokens, options.sequences), options.sequences, pages,
                            options.rows > 0 ? options.rows : options.sequences};
  auto start = std::chrono::steady_clock::now();
  auto graph = session.build_graph(batch);
  if (!graph) return graph.error();
  compiled.build_seconds = seconds_since(start);
  engine::CompileOptions how = session.options().compile;
  how.disabled = options.disabled;
  const auto order = engine::pipeline(how);
  if (!order) return order.error();
  std::size_t next = 0;
  const bool observes = !options.before.empty() || !options.after.empty();
  const engine::Observe observe = [&](const std::string& pass, const ir::Graph& at) {
    if (!pass.empty() && names(options.after, pass)) {
      output.print(fmt::format("// after {}\n{}", pass, ir::print(at)));
    }
    if (next < order->size() && names(options.before, (*order)[next])) {
      output.print(fmt::format("// before {}\n{}", (*order)[next], ir::print(at)));
    }
    ++next;
  };
  start = std::chrono::steady_clock::now();
  auto rewritten = engine::run_passes(*std::move(graph), how, &compiled.report,
                                      observes ? observe : engine::Observe(), machine);
  if (!rewritten) return rewritten.error();
  compiled.passes_seconds = seconds_since(start);
  compiled.graph = *std::move(rewritten);
  start = std::chrono::steady_clock::now();
  auto program = passes::lower(compiled.graph, how.lower);
  if (!program) return program.error();
  compiled.lower_seconds = seconds_since(start);
  compiled.program = *std::move(program);
  return compiled;
}

Json pass_json(const engine::PassReport& pass) {
  return Json{{"pass", pass.name},
              {"operations_before", pass.operations_before},
              {"operations_after", pass.operations_after},
              {"bytes_before", pass.before.bytes},
              {"bytes_after", pass.after.bytes},
              {"estimated_seconds_before", pass.before.seconds},
              {"estimated_seconds_after", pass.after.seconds},
              {"milliseconds", static_cast<double>(pass.nanoseconds) * 1e-6}};
}

void print_table(const Compiled& compiled, Output& output) {
  Table table({"pass", "operations", "", "bytes", "", "estimated time", "", "took"}, "lrrrrrrr");
  const auto bytes = [](double value) { return human_bytes(static_cast<std::int64_t>(value)); };
  for (const engine::PassReport& pass : compiled.report) {
    table.row({pass.name, fmt::format("{}", pass.operations_before),
               fmt::format("-> {}", pass.operations_after), bytes(pass.before.bytes),
               "-> " + bytes(pass.after.bytes), human_duration(pass.before.seconds),
               "-> " + human_duration(pass.after.seconds),
               human_duration(static_cast<double>(pass.nanoseconds) * 1e-9)});
  }
  const runtime::Program& program = compiled.program;
  std::size_t barriers = 0;
  for (const runtime::Step& step : program.steps) barriers += step.barrier ? 1 : 0;
  output.print(table.text());
  output.print(fmt::format(
      "{} steps, {} barriers; arena {}, private {} a thread, scratch {} a thread\n"
      "compiled in {}: graph {}, passes {} (with the table's estimates), lowering {}\n",
      program.steps.size(), barriers, bytes(static_cast<double>(program.arena_bytes)),
      bytes(static_cast<double>(program.private_bytes)),
      bytes(static_cast<double>(program.scratch_bytes)),
      human_duration(compiled.build_seconds + compiled.passes_seconds + compiled.lower_seconds),
      human_duration(compiled.build_seconds), human_duration(compiled.passes_seconds),
      human_duration(compiled.lower_seconds)));
}

Status run(const Options& options, Output& output) {
  if (options.list) {
    list_passes(output);
    return {};
  }
  HONE_RETURN_IF_ERROR(check_names(options.before));
  HONE_RETURN_IF_ERROR(check_names(options.after));
  HONE_RETURN_IF_ERROR(check_names(options.disabled));
  auto session = open_session(options.model, session_options(options.model));
  if (!session) return session.error();
  ThreadPool pool((*session)->threads());
  const engine::MachineLimits limits = engine::measure_limits(pool, 0.05);
  cost::Machine machine;
  if (limits.read_bytes > 0) machine.bytes = limits.read_bytes;
  if (limits.f32_operations > 0) machine.f32_operations = limits.f32_operations;
  machine.int8_operations = std::max(limits.int8_operations, machine.f32_operations);
  const auto compiled = compile(options, **session, machine, output);
  if (!compiled) return compiled.error();
  if (!options.svg.empty()) {
    HONE_RETURN_IF_ERROR(write_file_atomically(options.svg, plan_svg(compiled->program)));
  }
  if (output.json()) {
    Json value{{"passes", Json::array()},
               {"steps", compiled->program.steps.size()},
               {"arena_bytes", compiled->program.arena_bytes},
               {"private_bytes", compiled->program.private_bytes},
               {"build_seconds", compiled->build_seconds},
               {"passes_seconds", compiled->passes_seconds},
               {"lower_seconds", compiled->lower_seconds}};
    for (const auto& pass : compiled->report) value["passes"].push_back(pass_json(pass));
    output.document(value);
  } else if (options.emit == "ir") {
    output.print(ir::print(compiled->graph));
  } else if (options.emit == "plan") {
    output.print(plan_text(compiled->program));
  } else {
    print_table(*compiled, output);
  }
  return {};
}

}  // namespace

const Verb& compile_verb() {
  static const Verb kVerb =
      make_verb("compile", "show what the compiler makes of a model",
                "hone compile smollm2 --tokens 256\nhone compile smollm2 --emit ir\n"
                "hone compile smollm2 --print-after fuse_gate --svg plan.svg",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
