// SPDX-License-Identifier: Apache-2.0
#include "cli/tune_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "base/human.h"
#include "base/progress.h"
#include "base/system.h"
#include "cli/program.h"
#include "cli/tune_report.h"
#include "engine/adapter.h"
#include "engine/limits.h"
#include "engine/packed_file.h"
#include "tune/checkpoint.h"
#include "tune/job.h"
#include "tune/plot.h"
#include "tune/run_store.h"
#include "tune/workers.h"

namespace hone::cli {
namespace {

struct Curve {
  std::vector<double> loss;
  std::vector<tune::StepReport> steps;
};

// The mean of the last tenth, at least 10 steps: one batch says little.
double recent(const std::vector<double>& losses) {
  const std::size_t count = std::min(losses.size(), std::max<std::size_t>(10, losses.size() / 10));
  double sum = 0;
  for (std::size_t i = losses.size() - count; i < losses.size(); ++i) sum += losses[i];
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

class TuneRun {
 public:
  TuneRun(TuneOptions options, Output& output) : options_(std::move(options)), output_(output) {}

  Status run() {
    HONE_RETURN_IF_ERROR(open());
    if (leads()) report_plan(*job_, output_);
    if (options_.dry) return finish_dry();
    if (leads()) HONE_RETURN_IF_ERROR(begin_records());
    const Status status = train();
    if (!leads()) return status;
    const std::string_view state = !status.ok()   ? tune::kFailed
                                   : interrupted_ ? tune::kInterrupted
                                                  : tune::kFinished;
    const Status closed =
        store_->finish(id_, state, status.ok() ? "" : std::string_view(status.error().what));
    if (!status.ok()) return status;
    return closed;
  }

 private:
  // Of many processes one speaks and writes.
  bool leads() const { return workers_->rank() == 0; }

  Status join() {
    tune::WorkersOptions how;
    how.stopped = [] { return interrupted(); };
    auto joined = tune::join_workers(how);
    if (!joined) return joined.error();
    workers_ = *std::move(joined);
    if (workers_->size() == 1 || options_.job.forward_only()) return {};
    return Error{ErrorCode::kUnsupported,
                 "many processes share forward passes alone",
                 "--method",
                 options_.job.method.method,
                 "--method zo",
                 "without mpirun, threads share the work (--threads)"};
  }

  Status open() {
    if (!options_.resume.empty()) HONE_RETURN_IF_ERROR(read_resume());
    if (options_.job.data.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   "there is nothing to learn from",
                   "",
                   "",
                   "--data FILE",
                   "hone tune " + options_.job.model + " --data examples.jsonl"};
    }
    options_.job.seed = static_cast<std::uint64_t>(options_.seed);
    // Records and checkpoints are read from other folders, too.
    for (std::string* path : {&options_.job.model, &options_.job.data, &options_.job.validation}) {
      std::error_code absent;
      if (!path->empty() && std::filesystem::exists(*path, absent)) {
        *path = std::filesystem::absolute(*path, absent).string();
      }
    }
    if (!options_.memory.empty()) {
      const auto bytes = options_.memory == "low" ? Result<std::int64_t>(tune::kLeastMemory)
                                                  : bytes_of_text(options_.memory);
      if (!bytes) return bytes.error().in("--memory");
      options_.job.memory = *bytes;
    }
    if (options_.output.empty()) options_.output = "adapter.gguf";
    if (options_.checkpoints.empty()) {
      options_.checkpoints =
          options_.resume.empty() ? options_.output + ".checkpoints" : options_.resume;
    }
    HONE_RETURN_IF_ERROR(join());
    // A file of optimizer state lies where checkpoints do.
    options_.job.scratch = options_.checkpoints;
    options_.job.packed_folder = engine::packed_folder();
    auto job = tune::Job::open(options_.job, workers_.get());
    if (!job) return job.error();
    job_ = *std::move(job);
    if (options_.memory == "low" && !resumed_) HONE_RETURN_IF_ERROR(choose_least());
    HONE_RETURN_IF_ERROR(job_->measure_step());
    if (resumed_) {
      HONE_RETURN_IF_ERROR(job_->trainer().restore(*resumed_));
      output_.note(fmt::format("going on after step {} of {}", resumed_->step(), job_->steps()));
    }
    return {};
  }

  // Who asks for low memory asks for no method: gradients where they take at most a quarter more
  // than forward passes alone.
  Status choose_least() {
    if (options_.job.method.method != "lora") return {};
    tune::JobOptions forward = options_.job;
    forward.method.method = "zo";
    const std::int64_t by_gradients = planned_bytes(*job_);
    auto other = tune::Job::open(forward, workers_.get());
    if (!other) return other.error();
    const std::int64_t by_forward = planned_bytes(**other);
    const bool stays = by_gradients <= by_forward + by_forward / 4;
    output_.note(fmt::format("gradients would take {}, forward passes alone {}: {}",
                             human_bytes(by_gradients), human_bytes(by_forward),
                             stays ? "gradients" : "forward passes"));
    if (stays) return {};
    other->reset();
    job_.reset();
    options_.job = forward;
    auto job = tune::Job::open(options_.job, workers_.get());
    if (!job) return job.error();
    job_ = *std::move(job);
    return {};
  }

  Status read_resume() {
    auto latest = tune::latest_checkpoint(options_.resume);
    if (!latest) return latest.error();
    for (const Error& skipped : latest->skipped) output_.note(skipped.text());
    if (!latest->checkpoint) {
      return Error{ErrorCode::kNotFound, "there is no whole checkpoint to go on from",
                   options_.resume,      "",
                   "checkpoint-N.hone",  "begin anew without --resume"};
    }
    resumed_.emplace(*std::move(latest->checkpoint));
    const auto metadata = nlohmann::json::parse(resumed_->metadata_json(), nullptr, false);
    if (!metadata.is_object() || !metadata.contains("options")) {
      return Error{ErrorCode::kCorrupt, "the checkpoint is not one of `hone tune`",
                   resumed_->path(),    "",
                   "its options",       ""};
    }
    auto job = tune::JobOptions::of_json(metadata["options"].dump());
    if (!job) return job.error().in(resumed_->path());
    job->model = options_.job.model;
    options_.job = *job;
    options_.seed = static_cast<std::int64_t>(job->seed);
    if (options_.output.empty()) options_.output = metadata.value("output", "adapter.gguf");
    id_ = metadata.value("run", "");
    return {};
  }

  Status finish_dry() {
    if (leads() && output_.json()) output_.document(plan_document(*job_));
    return {};
  }

  Status begin_records() {
    const std::string path = options_.runs.empty() ? tune::default_runs_path() : options_.runs;
    auto store = tune::RunStore::open(path);
    if (!store) return store.error();
    store_.emplace(*std::move(store));
    if (!id_.empty() && store_->find(id_).ok()) return store_->resume(id_);
    tune::RunInfo info;
    info.verb = options_.verb;
    info.model = options_.job.model;
    auto hash = store_->hash_of(job_->session().source().path());
    if (hash) info.model_hash = *hash;
    info.data = options_.job.data;
    info.data_hash = job_->data().report.sha256;
    info.method = options_.job.method.method;
    info.arguments_json = job_->options().json();
    info.seed = options_.job.seed;
    auto id = store_->begin(info);
    if (!id) return id.error();
    id_ = *id;
    HONE_RETURN_IF_ERROR(
        store_->attach(id_, "output", std::filesystem::absolute(options_.output).string()));
    return store_->attach(id_, "checkpoints",
                          std::filesystem::absolute(options_.checkpoints).string());
  }

  Status write_checkpoint(tune::CheckpointWriter& writer) {
    const std::string metadata = nlohmann::ordered_json{
        {"run", id_},
        {"output", options_.output},
        {"data_sha256", job_->data().report.sha256},
        {"options", nlohmann::ordered_json::parse(job_->options().json())},
        {"hash",
         job_->trainer().hash()}}.dump();
    auto path = writer.write(job_->trainer().steps_done(), metadata, job_->trainer().state());
    if (!path) return path.error();
    return {};
  }

  Status one_step(Progress& progress) {
    auto report = job_->trainer().step();
    if (!report) return report.error();
    if (report->skipped) {
      const char* told =
          options_.job.forward_only()
              ? "the losses are not finite; the step before is taken back, the rate halved"
              : "the loss or the gradient is not finite; nothing changed";
      if (leads()) output_.note(fmt::format("step {}: {}", report->step, told));
      if (++skipped_ > 20) {
        return Error{ErrorCode::kOutOfRange,
                     "the loss is not finite any more",
                     fmt::format("step {}", report->step),
                     fmt::format("{} steps skipped", skipped_),
                     "a finite loss",
                     "lower --learning-rate; the last checkpoint is good"};
      }
    } else if (options_.job.rank.empty()) {
      curve_.loss.push_back(judged() ? 0 - report->loss : report->loss);
    }
    curve_.steps.push_back(*report);
    const std::pair<std::string_view, double> metrics[] = {
        {"loss", report->loss},
        {"gradient_norm", report->gradient_norm},
        {"learning_rate", report->learning_rate},
        {"tokens_per_second", static_cast<double>(report->tokens) / report->seconds},
        {"step_seconds", report->seconds}};
    if (leads()) HONE_RETURN_IF_ERROR(store_->log(id_, report->step, metrics));
    if (!report->skipped) {
      progress.set_note(fmt::format("{} {:.4f}, {:.0f} tokens/s, {:.0f} % of the limit",
                                    judged() ? "reward" : "loss",
                                    judged() ? 0 - report->loss : report->loss,
                                    static_cast<double>(report->tokens) / report->seconds,
                                    100 * job_->limit_seconds(report->tokens) / report->seconds));
    }
    progress.update(report->step);
    return {};
  }

  // The first step must move the loss of what it has seen: a run that changes nothing is told at
  // once, not at its end.
  Status check_effect(double before) {
    const auto after = job_->trainer().evaluate(probe());
    if (!after) return after.error();
    if (*after == before) {
      return Error{
          ErrorCode::kInternal,
          "the first step changed nothing",
          "",
          fmt::format("the loss of the first examples is {:.6f} before and after it", before),
          "another loss",
          "raise --learning-rate, or choose other --modules"};
    }
    if (!leads()) return {};
    output_.note(
        fmt::format("after the first step the loss of the first examples is {:.6f}, {} by "
                    "{:.2g}",
                    *after, *after < before ? "lower" : "higher", std::abs(*after - before)));
    return {};
  }

  // By rewards or rankings: steps may change nothing, and what is shown is no loss.
  bool judged() const { return !options_.job.reward.empty() || !options_.job.rank.empty(); }

  // Whether somebody pressed Ctrl-C: all processes end at the same step.
  Result<bool> all_stop() {
    if (workers_->size() == 1) return interrupted();
    const double mine = interrupted() ? 1 : 0;
    const auto all = workers_->gather(std::span(&mine, 1));
    if (!all) return all.error();
    return std::ranges::any_of(*all, [](double each) { return each != 0; });
  }

  // Another process is gone, or a reward failed: what was reached is kept.
  Status keep_and_give_up(tune::CheckpointWriter& writer, const Status& why) {
    if (job_->trainer().steps_done() == 0) return why;
    if (write_checkpoint(writer).ok()) {
      output_.note(fmt::format("kept step {}; `hone tune {} --resume {}` goes on",
                               job_->trainer().steps_done(), options_.job.model,
                               options_.checkpoints));
    }
    return why;
  }

  Status check_same_end() {
    if (workers_->size() == 1) return {};
    const std::string hash = job_->trainer().hash();
    return tune::check_same(*workers_, "the tuned weights",
                            checksum64(std::as_bytes(std::span(hash))));
  }

  std::span<const tune::Example> probe() const {
    return std::span(job_->data().examples)
        .first(std::min<std::size_t>(2, job_->data().examples.size()));
  }

  Status train() {
    std::vector<Answered> answers;
    if (!options_.questions.empty()) {
      auto read = read_questions(options_.questions);
      if (!read) return read.error();
      answers = *std::move(read);
      if (!resumed_ && leads()) HONE_RETURN_IF_ERROR(answer_all(*job_, answers, false, output_));
    }
    job_->measure_resident();
    auto writer = tune::CheckpointWriter::open(options_.checkpoints);
    if (!writer) return writer.error();
    const auto held_out_before = job_->held_out_loss();
    if (!held_out_before) return held_out_before.error();
    const auto probe_before = job_->trainer().evaluate(probe());
    if (!probe_before) return probe_before.error();
    catch_interrupts();
    reset_peak_memory();
    const auto start = std::chrono::steady_clock::now();
    {
      Progress progress("tuning", job_->steps(), job_->trainer().steps_done(),
                        ProgressUnit::kCount);
      while (job_->trainer().steps_done() < job_->steps()) {
        const auto stops = all_stop();
        const Status status = stops ? (*stops ? Status() : one_step(progress)) : stops.error();
        if (!status.ok()) return keep_and_give_up(*writer, status);
        if (*stops) break;
        // A line search may choose not to move.
        const bool moved = !curve_.steps.empty() && curve_.steps.back().learning_rate > 0;
        if (curve_.steps.size() == 1 && moved && !resumed_ && !judged()) {
          HONE_RETURN_IF_ERROR(check_effect(*probe_before));
        }
        const std::int64_t done = job_->trainer().steps_done();
        if (leads() && done % options_.checkpoint_every == 0 && done < job_->steps()) {
          HONE_RETURN_IF_ERROR(write_checkpoint(*writer));
        }
      }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    HONE_RETURN_IF_ERROR(check_same_end());
    if (leads()) HONE_RETURN_IF_ERROR(write_checkpoint(*writer));
    interrupted_ = job_->trainer().steps_done() < job_->steps();
    if (interrupted_ && !leads()) return {};
    if (interrupted_) {
      output_.note(fmt::format("stopped after step {} of {}; `hone tune {} --resume {}` goes on",
                               job_->trainer().steps_done(), job_->steps(), options_.job.model,
                               options_.checkpoints));
      return {};
    }
    if (!leads()) return {};
    const auto held_out_after = job_->held_out_loss();
    if (!held_out_after) return held_out_after.error();
    // What saving and answering take does not come on top.
    job_->trainer().give_back_memory();
    HONE_RETURN_IF_ERROR(save_result(*job_, options_.output, output_));
    HONE_RETURN_IF_ERROR(store_->attach(id_, "hash", job_->trainer().hash()));
    if (!answers.empty()) HONE_RETURN_IF_ERROR(answer_all(*job_, answers, true, output_));
    report_end(took.count(), *held_out_before, *held_out_after, answers);
    return {};
  }

  void report_end(double seconds, double held_out_before, double held_out_after,
                  const std::vector<Answered>& answers) {
    std::int64_t tokens = 0;
    std::vector<double> step_seconds;
    for (const tune::StepReport& step : curve_.steps) {
      tokens += step.tokens;
      step_seconds.push_back(step.seconds);
    }
    const double rate = seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
    const std::int64_t peak = resident_memory().peak;
    if (output_.json()) {
      Json document = plan_document(*job_);
      document["run"] = id_;
      document["output"] = options_.output;
      document["steps"] = job_->trainer().steps_done();
      document[judged() ? "reward" : "loss"] = curve_.loss;
      document["seconds"] = seconds;
      document["tokens_per_second"] = rate;
      document["peak_bytes"] = peak;
      document["compiled_programs"] = job_->trainer().compiled_programs();
      document["hash"] = job_->trainer().hash();
      if (!job_->held_out().empty()) {
        document["validation_loss_before"] = held_out_before;
        document["validation_loss_after"] = held_out_after;
      }
      if (!answers.empty()) document["answers"] = answers_document(answers);
      output_.document(document);
      return;
    }
    if (curve_.loss.size() > 1) {
      tune::Series series;
      series.name = judged() ? "reward" : "loss";
      for (std::size_t i = 0; i < curve_.loss.size(); ++i) {
        series.x.push_back(static_cast<double>(i + 1));
        series.y.push_back(curve_.loss[i]);
      }
      output_.print(tune::terminal_chart(std::span(&series, 1), 76, 14, output_.color(),
                                         {"", "step", series.name}));
    }
    Table table({"", "", ""}, "lrr");
    table.row({"", "first", "last"});
    if (!curve_.loss.empty()) {
      table.row({judged() ? "reward of the answers" : "loss of the examples",
                 fmt::format("{:.4f}", curve_.loss.front()),
                 fmt::format("{:.4f}", recent(curve_.loss))});
    }
    if (!job_->held_out().empty()) {
      table.row({"loss of held-out examples", fmt::format("{:.4f}", held_out_before),
                 fmt::format("{:.4f}", held_out_after)});
    }
    output_.print(table.text());
    output_.print(fmt::format(
        "{} steps in {}, {:.0f} tokens/s; peak memory {} (planned {})\nrun {}; wrote {}\n",
        curve_.steps.size(), human_duration(seconds), rate, human_bytes(peak),
        human_bytes(planned_bytes(*job_)), id_, options_.output));
    if (!answers.empty()) print_answers(answers, output_);
  }

  TuneOptions options_;
  Output& output_;
  std::unique_ptr<tune::Workers> workers_;
  std::unique_ptr<tune::Job> job_;
  std::optional<tune::RunStore> store_;
  std::optional<tune::Checkpoint> resumed_;
  std::string id_;
  Curve curve_;
  bool interrupted_ = false;
  int skipped_ = 0;
};

}  // namespace

Status run_tuning(const TuneOptions& options, Output& output) {
  return TuneRun(options, output).run();
}

}  // namespace hone::cli
