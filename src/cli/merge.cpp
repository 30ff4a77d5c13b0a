// hone merge: an adapter folded into its model, measured before the file is kept.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/progress.h"
#include "cli/merge_loss.h"
#include "cli/model_options.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "engine/merge.h"
#include "quant/codec.h"

namespace hone::cli {
namespace {

namespace fs = std::filesystem;
using engine::MergedTensor;

struct Options {
  ModelOptions model;
  std::string output;
  std::string type = "keep";
  std::string text;
  std::string data;
  double limit = 0.02;
};

std::vector<std::string_view> type_names() {
  std::vector<std::string_view> names = {"keep"};
  for (const quant::Codec& codec : quant::codecs()) names.push_back(dtype_name(codec.dtype));
  return names;
}

void declare(Options& options, Arguments& arguments) {
  options.model.context = 256;
  // What is measured is the weights, without the roundings of int8 activations.
  options.model.arithmetic = "float";
  declare_model(options.model, arguments);
  arguments.option("-o,--output", options.output, "the GGUF file to write", "FILE");
  arguments.choice("--type", options.type, type_names(),
                   "of the weights that the adapter changes; keep: as each is");
  arguments.option("--text", options.text,
                   "what the loss is measured on; else a short text of the program's own", "FILE");
  arguments.option("--data", options.data,
                   "the same: answers of training data, in any form that `hone data` reads",
                   "FILE");
  arguments.option("--limit-loss", options.limit,
                   "most nats a token that merging may cost beside the adapter; more: no file",
                   Numbers{0, 1e9});
}

// Nats a token.
struct Losses {
  double base = 0;
  double adapter = 0;
  double merged = 0;
  std::int64_t tokens = 0;
  double cost() const { return merged - adapter; }
};

Error missing(const char* option, const char* what) {
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is missing", option),
               "the command line",
               "",
               what,
               "hone merge model.gguf --adapter lora.gguf -o new.gguf"};
}

Status check(const Options& options) {
  if (options.model.adapter.empty()) return missing("--adapter", "an adapter's file or folder");
  if (options.output.empty()) return missing("--output", "the file to write");
  if (!options.output.ends_with(".gguf")) {
    return Error{ErrorCode::kInvalidArgument, "merged models are GGUF files", "--output",
                 visible(options.output),     "a name that ends in .gguf",    ""};
  }
  return {};
}

// The file until it is known to be good; gone if nobody keeps it.
class Candidate {
 public:
  explicit Candidate(const std::string& output)
      : path_(output.substr(0, output.size() - std::string_view(".gguf").size()) +
              ".unchecked.gguf"),
        output_(output) {}
  ~Candidate() {
    std::error_code ignored;
    if (!kept_) fs::remove(path_, ignored);
  }
  Candidate(const Candidate&) = delete;
  Candidate& operator=(const Candidate&) = delete;

  const std::string& path() const { return path_; }
  Status keep() {
    std::error_code code;
    fs::rename(path_, output_, code);
    if (code) return Error{ErrorCode::kIo, "cannot name the file", output_, code.message(), "", ""};
    kept_ = true;
    return {};
  }

 private:
  std::string path_;
  std::string output_;
  bool kept_ = false;
};

struct Sum {
  std::int64_t tensors = 0;
  std::int64_t by_minimums = 0;
  std::int64_t before = 0;
  std::int64_t after = 0;
  double error = 0;
  double weights = 0;
};

Sum sum_of(const std::vector<MergedTensor>& tensors) {
  Sum sum;
  for (const MergedTensor& merged : tensors) {
    if (!merged.tensor.edited) continue;
    ++sum.tensors;
    sum.by_minimums += merged.by_minimums ? 1 : 0;
    sum.before += merged.tensor.bytes_before;
    sum.after += merged.tensor.bytes_after;
    sum.error += merged.tensor.squared_error;
    sum.weights += merged.tensor.squared_weights;
  }
  return sum;
}

double relative_error(const Sum& sum) {
  return sum.weights > 0 ? std::sqrt(sum.error / sum.weights) : 0;
}

void print(const MergeSample& sample, const Sum& sum, const Losses& losses, Output& output) {
  Table table({"", "loss", "against the adapter"}, "lrr");
  const auto row = [&](const char* what, double loss) {
    table.row({what, fmt::format("{:.4f}", loss), fmt::format("{:+.4f}", loss - losses.adapter)});
  };
  row("model", losses.base);
  row("model with adapter", losses.adapter);
  row("merged", losses.merged);
  output.print(table.text());
  output.print(fmt::format(
      "nats a token, over {} tokens of {}\n{} tensors changed, {} of them in their minima alone; "
      "{} became {}; error {:.3f} %\n",
      losses.tokens, visible(sample.name), sum.tensors, sum.by_minimums, human_bytes(sum.before),
      human_bytes(sum.after), 100 * relative_error(sum)));
}

Json document(const Options& options, const MergeSample& sample, const Sum& sum,
              const Losses& losses) {
  return Json{{"path", options.output},
              {"loss_base", losses.base},
              {"loss_adapter", losses.adapter},
              {"loss_merged", losses.merged},
              {"cost", losses.cost()},
              {"limit", options.limit},
              {"measured_on", sample.name},
              {"scored_tokens", losses.tokens},
              {"tensors_changed", sum.tensors},
              {"tensors_changed_in_minima_alone", sum.by_minimums},
              {"bytes_before", sum.before},
              {"bytes_after", sum.after},
              {"relative_error", relative_error(sum)}};
}

Result<std::vector<MergedTensor>> write(const Options& options, const engine::Session& session,
                                        const formats::Adapter& adapter, const std::string& path,
                                        Output& output) {
  engine::MergeOptions how;
  how.strength = options.model.adapter_scale;
  if (options.type != "keep") how.type = dtype_from_name(options.type);
  std::int64_t total = 0;
  for (const auto& tensor : session.source().tensors()) {
    total += static_cast<std::int64_t>(tensor.data.size());
  }
  std::unique_ptr<Progress> progress;
  if (output.shows_progress()) progress = std::make_unique<Progress>("merging", total);
  how.watch = [&progress](std::int64_t done) {
    if (progress) progress->update(done);
    return !interrupted();
  };
  ThreadPool pool(session.threads());
  return engine::merge_adapter(session.source(), adapter, path, how, pool);
}

Status run(const Options& options, Output& output) {
  HONE_RETURN_IF_ERROR(check(options));
  catch_interrupts();
  ModelOptions plain = options.model;
  plain.adapter.clear();
  auto model = load(plain);
  if (!model) return model.error();
  const auto adapter = engine::read_adapter(options.model.adapter, model->session->source());
  if (!adapter) return adapter.error();
  std::error_code code;
  if (fs::equivalent(model->session->source().path(), options.output, code)) {
    return Error{
        ErrorCode::kInvalidArgument, "input and output are the same file", options.output, "", "",
        "give --output another name"};
  }
  const auto sample = merge_sample(*model, options.text, options.data);
  if (!sample) return sample.error();
  const auto base = mean_loss(*model, *sample);
  if (!base) return base.error();
  HONE_RETURN_IF_ERROR(model->session->attach(*adapter, options.model.adapter_scale));
  const auto adapted = mean_loss(*model, *sample);
  if (!adapted) return adapted.error();
  Candidate candidate(options.output);
  const auto tensors = write(options, *model->session, *adapter, candidate.path(), output);
  if (!tensors) return tensors.error();
  plain.model = candidate.path();
  model->session.reset();  // one model in memory
  auto merged_model = load(plain);
  if (!merged_model) return merged_model.error();
  const auto merged = mean_loss(*merged_model, *sample);
  if (!merged) return merged.error();
  const Losses losses{base->nats, adapted->nats, merged->nats, base->tokens};
  const Sum sum = sum_of(*tensors);
  // Not `>`: a loss that is no number is refused too.
  if (!(losses.cost() <= options.limit)) {
    return Error{ErrorCode::kOutOfRange,
                 "merging costs more than the limit; no file was written",
                 "",
                 fmt::format("loss {:.4f} merged, {:.4f} with the adapter beside the model, "
                             "{:.4f} without it: {:+.4f} nats a token",
                             losses.merged, losses.adapter, losses.base, losses.cost()),
                 fmt::format("at most {:+.4f} (--limit-loss)", options.limit),
                 "give a richer --type (q8_0), run with --adapter instead, or raise the limit"};
  }
  HONE_RETURN_IF_ERROR(candidate.keep());
  if (output.json()) {
    output.document(document(options, *sample, sum, losses));
  } else {
    print(*sample, sum, losses, output);
  }
  return {};
}

}  // namespace

const Verb& merge_verb() {
  static const Verb kVerb = make_verb(
      "merge", "an adapter folded into its model, with the loss measured before and after",
      "hone merge smollm2 --adapter lora.gguf -o merged.gguf\n"
      "hone merge smollm2 --adapter lora.gguf -o merged.gguf --type q8_0 --data examples.jsonl",
      declare, run);
  return kVerb;
}

}  // namespace hone::cli
