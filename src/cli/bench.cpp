// hone bench: tokens a second, and the share of what the machine could do, measured in one run.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/system.h"
#include "base/timing.h"
#include "cli/bench_kernels.h"
#include "cli/bench_stream.h"
#include "cli/bench_tune.h"
#include "cli/model_options.h"
#include "cli/registry.h"
#include "engine/limits.h"
#include "tune/job.h"

namespace hone::cli {
namespace {

struct Options {
  std::string what;
  ModelOptions model;
  std::int64_t prompt = 256;
  std::int64_t generate = 64;
  std::int64_t sequences = 1;
  std::int64_t member_rank = 0;
  std::int64_t repeat = 5;
  bool profile = false;
  TuneBench tune;
};

void declare(Options& options, Arguments& arguments) {
  arguments.positional(
      "WHAT", options.what,
      "run (a model), tune (a model), stream (weights of a model), patch (weights of "
      "a model), kernels");
  arguments.optional_positional("MODEL", options.model.model, "a model, for run and patch");
  arguments.option("-j,--threads", options.model.threads, "threads; 0: all cores",
                   Integers{0, 1024});
  arguments.option("--prompt", options.prompt, "tokens to prefill", Integers{1, 8192});
  arguments.option("--generate", options.generate, "tokens to decode", Integers{1, 8192});
  arguments.option("--sequences", options.sequences, "sequences that decode at once",
                   Integers{1, 256});
  arguments.option("--member-rank", options.member_rank,
                   "also with an adapter of this rank for each sequence, on linear layers (of "
                   "--layers)",
                   Integers{0, 1024});
  arguments.option("--repeat", options.repeat, "runs; medians are reported", Integers{1, 1000});
  arguments.choice("--arithmetic", options.model.arithmetic, {"int8", "float"},
                   "of products with quantized weights");
  arguments.choice("--cache", options.model.cache, {"f16", "int8", "f32"},
                   "form of keys and values");
  declare_adapter(options.model, arguments);
  declare_stream(options.model, arguments);
  declare_tune_bench(options.tune, arguments);
  arguments.flag("--profile", options.profile, "show the time of each kind of step");
}

struct Measured {
  std::vector<double> prefill, decode;  // tokens a second, all sequences together
  std::vector<double> members;          // decode with an adapter for each sequence, to without
  double decode_bytes = 0;              // that a decode step reads: weights, keys, values
  double prefill_operations = 0;        // of one prompt
  engine::MachineLimits limits;
  double limits_bytes = 0;
  double first_token_seconds = 0;  // from opening the file
  std::int64_t peak_bytes = 0;
  std::int64_t file_bytes = 0;
  std::int64_t cache_bytes = 0;
};

std::vector<engine::TokenId> some_tokens(std::int64_t count, std::int64_t vocabulary,
                                         std::int64_t seed) {
  Random random(static_cast<std::uint64_t>(seed));
  std::vector<engine::TokenId> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<engine::TokenId>(random.below(static_cast<std::uint32_t>(vocabulary))));
  }
  return tokens;
}

// One round: a prompt for each sequence, then steps of all sequences together.
Status round(engine::Session& session, const Options& options, std::int64_t seed,
             Measured& measured) {
  const std::int64_t vocabulary = session.config().vocabulary;
  std::vector<engine::SequenceId> sequences;
  double start = seconds_now();
  for (std::int64_t s = 0; s < options.sequences; ++s) {
    sequences.push_back(session.begin(session.members() > 1 ? s : 0));
    const auto prompt = some_tokens(options.prompt, vocabulary, seed * 1000 + s);
    auto logits = session.prefill(sequences.back(), prompt);
    if (!logits) return logits.error();
  }
  const auto total = static_cast<double>(options.prompt * options.sequences);
  measured.prefill.push_back(total / (seconds_now() - start));
  start = seconds_now();
  for (std::int64_t i = 0; i < options.generate; ++i) {
    const auto tokens = some_tokens(options.sequences, vocabulary, seed * 7919 + i);
    std::vector<engine::Request> requests;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      requests.push_back({sequences[s], std::span(tokens).subspan(s, 1), engine::Wanted::kLast});
    }
    auto logits = session.step(requests);
    if (!logits) return logits.error();
  }
  const auto decoded = static_cast<double>(options.generate * options.sequences);
  measured.decode.push_back(decoded / (seconds_now() - start));
  for (const engine::SequenceId id : sequences) session.end(id);
  return {};
}

// Adapters as forward passes try them: one A, a B for each member.
Result<std::vector<formats::Adapter>> some_adapters(const engine::Session& session,
                                                    std::int64_t count, std::int64_t rank,
                                                    const std::string& layers) {
  const auto names = engine::select_modules(session.source(), "all");
  if (!names) return names.error();
  std::vector<formats::Adapter> members(static_cast<std::size_t>(count));
  Random random(1);
  const auto fill = [&](std::vector<float>& values, std::int64_t size, float by) {
    values.resize(static_cast<std::size_t>(size));
    for (float& value : values) value = by * random.normal();
  };
  tune::JobOptions job;
  job.method.method = "zo";
  job.layers = layers;
  const std::int64_t all = session.config().layers;
  const std::int64_t last = job.trained_method(all).layers;  // 0: all
  for (const std::string& name : *names) {
    if (last > 0 && engine::layer_of(name) < all - last) continue;
    const ir::Shape& shape = session.source().find(name)->shape;
    formats::AdapterWeight weight;
    weight.rank = rank;
    weight.inputs = shape[1];
    weight.outputs = shape[0];
    fill(weight.a, rank * shape[1], 0.01F);
    for (formats::Adapter& member : members) {
      fill(weight.b, shape[0] * rank, 0.01F);
      member.weights.emplace(name, weight);
    }
  }
  return members;
}

// Decoding in turn with an adapter for each sequence and with none.
Status compare_members(engine::Session& session, const Options& options, Measured& measured) {
  const auto members =
      some_adapters(session, options.sequences, options.member_rank, options.tune.layers);
  if (!members) return members.error();
  for (std::int64_t i = 0; i <= options.repeat; ++i) {
    Measured plain, adapted;
    session.detach();
    HONE_RETURN_IF_ERROR(round(session, options, i, plain));
    HONE_RETURN_IF_ERROR(session.attach_population(*members));
    HONE_RETURN_IF_ERROR(round(session, options, i, adapted));
    if (i > 0) measured.members.push_back(adapted.decode[0] / plain.decode[0]);
  }
  session.detach();
  return {};
}

// What one decode step must read, and what a prompt must compute, by the ops' own costs.
Status count_work(engine::Session& session, const Options& options, Measured& measured) {
  const std::int64_t pages = (session.context() + kernels::kPageTokens - 1) / kernels::kPageTokens;
  auto decode =
      session.build_graph({options.sequences, options.sequences, pages, options.sequences});
  auto prefill = session.build_graph({options.prompt, 1, pages, 1});
  if (!decode) return decode.error();
  if (!prefill) return prefill.error();
  // Of keys and values what a step half way through the answer sees.
  const std::int64_t seen = options.prompt + options.generate / 2;
  const double token_bytes = static_cast<double>(session.cache().bytes_per_token()) /
                             static_cast<double>(session.config().layers);
  for (const ir::Operation& operation : decode->operations) {
    if (operation.is("attention")) {
      const std::int64_t window = operation.attributes.integer("window", seen);
      measured.decode_bytes +=
          token_bytes * static_cast<double>(std::min(seen, window) * options.sequences);
    }
    if (!operation.is("matmul")) continue;
    measured.decode_bytes += static_cast<double>(decode->type(operation.operands[1]).bytes());
  }
  for (const ir::Operation& operation : prefill->operations) {
    if (!operation.is("matmul")) continue;
    measured.prefill_operations +=
        operation.op
            ->cost(prefill->types(operation.operands), prefill->types(operation.results),
                   operation.attributes)
            .operations;
  }
  return {};
}

void print_profile(const std::vector<std::pair<std::string, double>>& rows, Output& output) {
  double total = 0;
  for (const auto& [name, seconds] : rows) total += seconds;
  Table table({"step", "time", "share"}, "lrr");
  for (const auto& [name, seconds] : rows) {
    table.row({name, human_duration(seconds), fmt::format("{:.1f} %", 100 * seconds / total)});
  }
  output.print(table.text());
}

Result<Measured> measure(const Options& options, Output& output) {
  engine::SessionOptions how = session_options(options.model);
  how.reuse_prefixes = false;
  how.packed_folder.clear();  // what a machine keeps makes no difference
  how.context = 0;
  how.batch = std::max<std::int64_t>(options.prompt, 1);
  const std::int64_t each = options.prompt + options.generate + kernels::kPageTokens;
  how.budget = each * options.sequences;
  Measured measured;
  const double start = seconds_now();
  auto session = open_session(options.model, how);
  if (!session) return session.error();
  if (each > (*session)->context()) {
    return Error{ErrorCode::kOutOfRange,
                 "prompt and answer are longer than the context",
                 "",
                 fmt::format("{} tokens", each),
                 fmt::format("at most {}", (*session)->context()),
                 "lower --prompt or --generate"};
  }
  const engine::SequenceId first = (*session)->begin();
  auto logits = (*session)->prefill(first, some_tokens(16, (*session)->config().vocabulary, 1));
  if (!logits) return logits.error();
  measured.first_token_seconds = seconds_now() - start;
  (*session)->end(first);
  HONE_RETURN_IF_ERROR(count_work(**session, options, measured));
  Measured warm_up;
  HONE_RETURN_IF_ERROR(round(**session, options, 0, warm_up));
  for (std::int64_t i = 0; i < options.repeat; ++i) {
    HONE_RETURN_IF_ERROR(round(**session, options, i + 1, measured));
  }
  if (options.member_rank > 0) HONE_RETURN_IF_ERROR(compare_members(**session, options, measured));
  measured.peak_bytes = resident_memory().peak;
  measured.file_bytes = (*session)->source().file_bytes();
  measured.cache_bytes = (*session)->cache().bytes_per_token() * each * options.sequences;
  if (options.profile && !output.json()) {
    for (const std::int64_t tokens : {std::int64_t{1}, options.prompt}) {
      const std::int64_t sequences = tokens == 1 ? options.sequences : 1;
      const auto rows = (*session)->profile(tokens, sequences, 20);
      if (!rows) return rows.error();
      output.print(fmt::format("steps of {} tokens of {} sequences:\n", tokens, sequences));
      print_profile(*rows, output);
    }
  }
  // The limits after the model: their buffers must not count into its peak.
  ThreadPool pool((*session)->threads());
  measured.limits = engine::measure_limits(pool, 0.2);
  return measured;
}

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

Status run_model(const Options& options, Output& output) {
  if (options.model.model.empty()) {
    return Error{ErrorCode::kInvalidArgument, "there is no model to run", "", "", "",
                 "hone bench run smollm2"};
  }
  const auto measured = measure(options, output);
  if (!measured) return measured.error();
  const double prefill = median(measured->prefill);
  const double decode = median(measured->decode);
  const double decode_bytes =
      decode / static_cast<double>(options.sequences) * measured->decode_bytes;
  const double prefill_operations =
      prefill / static_cast<double>(options.prompt) * measured->prefill_operations;
  const double bandwidth_share = share(decode_bytes, measured->limits.read_bytes);
  const double int8_share = share(prefill_operations, measured->limits.int8_operations);
  if (output.json()) {
    Json document{{"prefill_tokens_per_second", prefill},
                  {"decode_tokens_per_second", decode},
                  {"peak_bytes", measured->peak_bytes},
                  {"file_bytes", measured->file_bytes},
                  {"cache_bytes", measured->cache_bytes},
                  {"sequences", options.sequences},
                  {"first_token_seconds", measured->first_token_seconds},
                  {"decode_bytes_per_second", decode_bytes},
                  {"decode_share_of_bandwidth", bandwidth_share},
                  {"prefill_operations_per_second", prefill_operations},
                  {"prefill_share_of_int8_peak", int8_share},
                  {"read_bytes_per_second", measured->limits.read_bytes},
                  {"int8_operations_per_second", measured->limits.int8_operations},
                  {"prefill_runs", measured->prefill},
                  {"decode_runs", measured->decode}};
    if (!measured->members.empty()) document["members_share"] = median(measured->members);
    output.document(document);
    return {};
  }
  output.print(fmt::format(
      "prefill  {:8.0f} tokens/s   {:6.0f} GOPS, {:.0f} % of the int8 peak ({:.0f} GOPS)\n"
      "decode   {:8.0f} tokens/s   {:6.1f} GB/s, {:.0f} % of the bandwidth ({:.1f} GB/s)\n"
      "memory   {} at most, {} of it the file's size\n"
      "start    {} to the first logits\n",
      prefill, prefill_operations * 1e-9, 100 * int8_share, measured->limits.int8_operations * 1e-9,
      decode, decode_bytes * 1e-9, 100 * bandwidth_share, measured->limits.read_bytes * 1e-9,
      human_bytes(measured->peak_bytes), human_bytes(measured->file_bytes),
      human_duration(measured->first_token_seconds)));
  if (!measured->members.empty()) {
    output.print(fmt::format("members  {:8.0f} % of the decode rate with an adapter each\n",
                             100 * median(measured->members)));
  }
  return {};
}

// Patching against compiling: what a changed weight costs. Orion (arXiv 2603.06728) reports 8.5x.
Status patch_model(const Options& options, Output& output) {
  engine::SessionOptions how = session_options(options.model);
  how.packed_folder.clear();  // a full compile packs
  std::vector<double> full, graph_only, all, one;
  for (std::int64_t i = 0; i < options.repeat; ++i) {
    double start = seconds_now();
    auto session = open_session(options.model, how);
    if (!session) return session.error();
    HONE_RETURN_IF_ERROR((*session)->prepare(1, 1, 1));
    full.push_back(seconds_now() - start);
    const std::int64_t compiled = (*session)->compiled_programs();
    start = seconds_now();
    for (const formats::TensorRecord& tensor : (*session)->source().tensors()) {
      HONE_RETURN_IF_ERROR((*session)->weights().patch(tensor.name, tensor.data));
    }
    all.push_back(seconds_now() - start);
    const formats::TensorRecord* down = (*session)->source().find("blk.0.ffn_down.weight");
    if (down != nullptr) {
      start = seconds_now();
      HONE_RETURN_IF_ERROR((*session)->weights().patch(down->name, down->data));
      one.push_back(seconds_now() - start);
    }
    start = seconds_now();
    auto graph = (*session)->build_graph({2, 1, 8, 1});
    if (!graph) return graph.error();
    auto program = engine::compile(*std::move(graph), (*session)->options().compile);
    if (!program) return program.error();
    graph_only.push_back(seconds_now() - start);
    HONE_RETURN_IF_ERROR((*session)->prepare(1, 1, 1));
    if ((*session)->compiled_programs() != compiled) {
      return Error{ErrorCode::kInternal, "patching weights compiled a program", "", "", "", ""};
    }
  }
  const double one_seconds = one.empty() ? 0 : median(one);
  if (output.json()) {
    output.document(Json{{"open_compile_pack_seconds", median(full)},
                         {"compile_seconds", median(graph_only)},
                         {"patch_all_seconds", median(all)},
                         {"patch_one_matrix_seconds", one_seconds},
                         {"patch_one_speedup", share(median(full), one_seconds)}});
    return {};
  }
  output.print(fmt::format(
      "open, compile, pack   {}\ncompile alone         {}\npatch every tensor    {}\n"
      "patch one matrix      {}, {:.0f} times cheaper than a full compile\n",
      human_duration(median(full)), human_duration(median(graph_only)), human_duration(median(all)),
      human_duration(one_seconds), share(median(full), one_seconds)));
  return {};
}

Status run(const Options& options, Output& output) {
  if (options.what == "run") return run_model(options, output);
  if (options.what == "tune")
    return bench_tune(options.tune, options.model, options.profile, output);
  if (options.what == "stream") {
    return bench_stream(options.model, options.tune.batch, options.tune.length, options.tune.steps,
                        output);
  }
  if (options.what == "patch") return patch_model(options, output);
  if (options.what == "kernels") return bench_kernels(options.model.threads, output);
  return Error{
      ErrorCode::kInvalidArgument,           "there is no such benchmark", "", options.what,
      "run, tune, stream, patch or kernels", "hone bench run smollm2"};
}

}  // namespace

const Verb& bench_verb() {
  static const Verb kVerb =
      make_verb("bench", "measure prefill, decode, kernels, and their share of the machine's limit",
                "hone bench run smollm2 --prompt 256 --generate 64 --json\nhone bench run smollm2 "
                "--sequences 8 --prompt 32\nhone bench tune smollm2 --method lora --batch 4 "
                "--length 256 --steps 4\nhone bench stream smollm2 --stream 40MB --batch 1 "
                "--length 64\nhone bench patch smollm2\nhone bench kernels",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
