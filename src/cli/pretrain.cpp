// hone pretrain: a small model from nothing, on text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/human.h"
#include "cli/registry.h"
#include "cli/tune_run.h"
#include "tune/new_model.h"
#include "tune/stories.h"

namespace hone::cli {
namespace {

struct Options {
  TuneOptions tune;
  std::string output;
  std::string size = "tiny";
  std::string vocabulary = "bytes";
  std::string text;
  std::int64_t stories = 2000;
};

void declare(Options& options, Arguments& arguments) {
  tune::JobOptions& job = options.tune.job;
  job.method.method = "full";
  job.batch = 16;
  job.length = 128;
  job.schedule = "cosine";
  job.epochs = 1;
  job.learning_rate = 2e-3;
  job.weight_decay = 0.1;
  arguments.positional("OUTPUT", options.output, "the GGUF file that is made");
  arguments.choice("--size", options.size, {"tiny", "small", "110m"},
                   "1 million numbers, 5 million, or a TinyStories model of 110 million");
  arguments.option("--vocabulary", options.vocabulary,
                   "bytes, or a model whose tokenizer is taken over", "MODEL");
  arguments.option("--text", options.text, "text to learn from; without it stories by a grammar",
                   "FILE");
  arguments.option("--stories", options.stories, "stories by the grammar", Integers{1, 10'000'000});
  arguments.option("--optimizer", job.optimizer, "the update rule", "NAME");
  arguments.option("--set", job.settings, "of the update rule", "SETTINGS");
  arguments.option("--learning-rate", job.learning_rate, "the peak", Numbers{0});
  arguments.option("--schedule", job.schedule, "of the rate: constant, linear, cosine, wsd",
                   "NAME");
  arguments.option("--batch", job.batch, "sequences a step", Integers{1, 1 << 20});
  arguments.option("-l,--length", job.length, "tokens of a sequence", Integers{2, 1 << 20});
  arguments.option("--steps", job.steps, "steps, instead of one time through the text",
                   Integers{0});
  arguments.option("-s,--seed", options.tune.seed, "same seed, same bits", Integers{0});
  arguments.option("--memory", options.tune.memory, "most memory of the process", "SIZE");
  arguments.option("-j,--threads", job.threads, "threads; 0: all cores", Integers{0, 1024});
  arguments.option("--checkpoint-every", options.tune.checkpoint_every, "steps", Integers{1});
  arguments.option("--runs", options.tune.runs, "file of run records", "FILE");
}

Status run(const Options& options, Output& output) {
  auto model = tune::new_model_of_size(options.size);
  if (!model) return model.error();
  model->vocabulary = options.vocabulary;
  model->seed = static_cast<std::uint64_t>(options.tune.seed);
  TuneOptions tuning = options.tune;
  tuning.verb = "pretrain";
  tuning.output = options.output;
  const std::string start = options.output + ".start.gguf";
  HONE_RETURN_IF_ERROR(tune::write_new_model(start, *model));
  tuning.job.model = start;
  tuning.job.data = options.text;
  if (options.text.empty()) {
    tuning.job.data = options.output + ".stories.txt";
    std::ofstream file(tuning.job.data);
    file << tune::stories(options.stories, model->seed);
    file.close();
    if (!file) {
      return Error{ErrorCode::kIo, "the stories cannot be written", tuning.job.data, "", "", ""};
    }
    output.note(fmt::format("{} stories by the grammar: {}", human_count(options.stories),
                            tuning.job.data));
  }
  return run_tuning(tuning, output);
}

}  // namespace

const Verb& pretrain_verb() {
  static const Verb kVerb = make_verb(
      "pretrain", "make a small model from nothing",
      "hone pretrain story.gguf --size tiny\nhone pretrain mine.gguf --size small --text book.txt",
      declare, run);
  return kVerb;
}

}  // namespace hone::cli
