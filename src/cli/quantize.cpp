// hone quantize: a model's weights in another type, streamed from file to file.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/progress.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "engine/rewrite.h"
#include "quant/codec.h"

namespace hone::cli {
namespace {

using engine::RewrittenTensor;

struct Options {
  std::string input;
  std::string output;
  std::string type;
  std::string embedding_type;
  bool keep = false;
  std::int64_t threads = 0;
};

std::vector<std::string_view> type_names() {
  std::vector<std::string_view> names;
  for (const quant::Codec& codec : quant::codecs()) names.push_back(dtype_name(codec.dtype));
  return names;
}

void declare(Options& options, Arguments& arguments) {
  arguments.positional("IN", options.input, "the model, any that hone reads");
  arguments.positional("OUT", options.output, "the GGUF file to write");
  arguments.choice("--type", options.type, type_names(), "of the matrices");
  arguments.choice("--embedding-type", options.embedding_type, type_names(),
                   "of embedding and output; else q8_0, or the plain type that --type is");
  arguments.flag("--keep", options.keep,
                 "embedding and output stay as they are where they are quantized already");
  arguments.option("-j,--threads", options.threads, "threads; 0: all cores that may be used",
                   Integers{0, 1024});
}

struct Sum {
  std::int64_t tensors = 0;
  std::int64_t before = 0;
  std::int64_t after = 0;
  double error = 0;
  double weights = 0;
  void add(const RewrittenTensor& tensor) {
    ++tensors;
    before += tensor.bytes_before;
    after += tensor.bytes_after;
    error += tensor.squared_error;
    weights += tensor.squared_weights;
  }
  double relative_error() const { return weights > 0 ? std::sqrt(error / weights) : 0; }
};

using Change = std::pair<DType, DType>;

std::map<Change, Sum> sums_of(const std::vector<RewrittenTensor>& tensors) {
  std::map<Change, Sum> sums;
  for (const RewrittenTensor& tensor : tensors) sums[{tensor.before, tensor.after}].add(tensor);
  return sums;
}

void print(const std::vector<RewrittenTensor>& tensors, Output& output) {
  Table table({"from", "to", "tensors", "before", "after", "error"}, "llrrrr");
  Sum all;
  const auto row = [&table](std::string from, std::string to, const Sum& sum) {
    table.row({std::move(from), std::move(to), human_count(sum.tensors), human_bytes(sum.before),
               human_bytes(sum.after),
               sum.weights > 0 ? fmt::format("{:.3f} %", 100 * sum.relative_error()) : "none"});
  };
  for (const auto& [change, sum] : sums_of(tensors)) {
    row(std::string(dtype_name(change.first)), std::string(dtype_name(change.second)), sum);
  }
  for (const RewrittenTensor& tensor : tensors) all.add(tensor);
  row("all", "", all);
  output.print(table.text());
  output.print("error: root mean square, relative to the weights that were changed\n");
}

Json document(const std::vector<RewrittenTensor>& tensors, const std::string& path) {
  Json list = Json::array();
  Sum all;
  for (const RewrittenTensor& tensor : tensors) {
    all.add(tensor);
    list.push_back({{"name", tensor.name},
                    {"from", dtype_name(tensor.before)},
                    {"to", dtype_name(tensor.after)},
                    {"bytes_before", tensor.bytes_before},
                    {"bytes_after", tensor.bytes_after},
                    {"relative_error", tensor.relative_error()},
                    {"fell_back", tensor.fell_back}});
  }
  return Json{{"path", path},
              {"bytes_before", all.before},
              {"bytes_after", all.after},
              {"relative_error", all.relative_error()},
              {"tensors", list}};
}

void note_losses(const std::vector<RewrittenTensor>& tensors, Output& output) {
  std::int64_t again = 0;
  std::int64_t fell_back = 0;
  std::string types;
  for (const RewrittenTensor& tensor : tensors) {
    if (is_block_quantized(tensor.before) && tensor.before != tensor.after) ++again;
    if (!tensor.fell_back) continue;
    ++fell_back;
    const std::string name(dtype_name(tensor.after));
    if (types.find(name) == types.npos) types += (types.empty() ? "" : ", ") + name;
  }
  if (again > 0) {
    output.note(
        fmt::format("{} tensors were quantized already: quantizing again loses quality; "
                    "start from f16 or bf16 where you can",
                    again));
  }
  if (fell_back > 0) {
    output.note(
        fmt::format("{} tensors have rows that are no multiple of the type's block: they "
                    "became {}",
                    fell_back, types));
  }
}

Status check_paths(const Options& options, const std::string& source) {
  std::error_code code;
  if (std::filesystem::equivalent(source, options.output, code)) {
    return Error{
        ErrorCode::kInvalidArgument, "input and output are the same file", options.output, "", "",
        "give OUT another name"};
  }
  return {};
}

Status run(const Options& options, Output& output) {
  if (options.type.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "--type is missing",
                 "the command line",
                 "",
                 fmt::format("one of {}", fmt::join(type_names(), ", ")),
                 "q4_0 is the usual choice"};
  }
  const auto source = engine::ModelSource::open(options.input);
  if (!source) return source.error();
  HONE_RETURN_IF_ERROR(check_paths(options, source->path()));
  engine::RewriteOptions how;
  how.type = dtype_from_name(options.type);
  how.keep_embedding = options.keep;
  how.embedding_type = options.embedding_type.empty()
                           ? (is_block_quantized(*how.type) ? DType::kQ8_0 : *how.type)
                           : dtype_from_name(options.embedding_type);
  catch_interrupts();
  std::int64_t total = 0;
  for (const auto& tensor : source->tensors()) {
    total += static_cast<std::int64_t>(tensor.data.size());
  }
  std::unique_ptr<Progress> progress;
  if (output.shows_progress()) progress = std::make_unique<Progress>("quantizing", total);
  how.watch = [&progress](std::int64_t done) {
    if (progress) progress->update(done);
    return !interrupted();
  };
  ThreadPool pool(static_cast<int>(options.threads));
  const auto tensors = engine::rewrite_gguf(*source, options.output, how, pool);
  progress.reset();
  if (!tensors) return tensors.error();
  if (output.json()) {
    output.document(document(*tensors, options.output));
  } else {
    print(*tensors, output);
  }
  note_losses(*tensors, output);
  return {};
}

}  // namespace

const Verb& quantize_verb() {
  static const Verb kVerb =
      make_verb("quantize", "a model's weights in another type",
                "hone quantize folder model-q4_0.gguf --type q4_0\n"
                "hone quantize model.gguf small.gguf --type q4_k --embedding-type q6_k",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
