// hone tune: improves a model with examples, and leaves an adapter.
// SPDX-License-Identifier: Apache-2.0
#include "cli/registry.h"
#include "cli/tune_run.h"

namespace hone::cli {
namespace {

// Of the method zo.
void declare_forward(tune::JobOptions& job, Arguments& arguments) {
  arguments.choice("--perturb", job.perturb, tune::kPerturbed,
                   "of zo: what moves; low-rank is an adapter whose A stays");
  arguments.choice("--probe", job.probe, tune::kProbes,
                   "of zo: the exact derivative along a direction, or differences of losses");
  arguments.option("--directions", job.directions, "of zo, tried in a step", Integers{1, 4096});
  arguments.option("--epsilon", job.epsilon, "of zo: how far pairs and one-sided probes go",
                   Numbers{0});
  arguments.option("--epsilon-target", job.epsilon_target,
                   "of zo: probes go as far as makes losses differ by this part; 0: --epsilon",
                   Numbers{0, 1});
  arguments.choice("--noise", job.noise, {"rademacher", "gaussian"}, "of zo: of the directions");
  arguments.choice("--shaping", job.shaping, {"mean", "spread", "rank"},
                   "of zo: derivatives as they are, over their spread, or their ranks alone");
  arguments.option("--derivative-clip", job.derivative_clip,
                   "of zo: largest derivative along a direction; 0: none", Numbers{0});
  arguments.option("--trajectory", job.trajectory,
                   "of zo: every so many steps, directions along which rows hardly moved are left "
                   "out from then on; 0: never (for soft prompts)",
                   Integers{0, 4096});
  arguments.option("--backward-layers", job.backward_layers,
                   "of zo: the last so many learn by a backward pass that goes no deeper",
                   Integers{0, 1 << 16});
  arguments.option(
      "--backward-rate", job.backward_rate,
      "of zo: their learning rate; 0: ten times the other, with rules like adamw the same",
      Numbers{0});
  arguments.option("--seed-momentum", job.seed_momentum,
                   "of zo: earlier estimates count on by this factor, drawn anew from their seeds",
                   Numbers{0, 0.99});
  arguments.option("--line-search", job.line_search,
                   "of zo: lengths at which a step is tried, 4, 2, 1, 1/2, ... times the rate; the "
                   "best is taken, or none",
                   Integers{0, 32});
  arguments.option(
      "--layers", job.layers,
      "of zo, that move: auto, all, random (others each step), or how many of the last", "WHICH");
  arguments.size("--keep-layers", job.kept_layers,
                 "of zo: most of what layers that do not move gave, kept for examples that come "
                 "again; --memory low keeps none");
  arguments.choice("--factor", job.factor, {"inputs", "random"},
                   "of zo: A of low-rank, of the layers' own inputs or random");
  arguments.option("--reward", job.reward,
                   "of zo: accuracy, f1, or a program that gets answers as JSON lines and prints "
                   "numbers",
                   "PROGRAM");
  arguments.option("--rank-by", job.rank,
                   "of zo: a program that gets candidates as JSON lines and prints their order",
                   "PROGRAM");
  arguments.option("--answer-tokens", job.answer_tokens, "most of an answer that is judged",
                   Integers{1, 1 << 20});
  arguments.option("--program-seconds", job.program_seconds, "that a program may take", Numbers{0});
}

void declare(TuneOptions& options, Arguments& arguments) {
  tune::JobOptions& job = options.job;
  arguments.model(job.model);
  arguments.option("-d,--data", job.data, "examples to learn from (see `hone data`)", "FILE");
  arguments.option("--validation", job.validation, "held-out examples, scored before and after",
                   "FILE");
  arguments.option("-o,--output", options.output,
                   "the adapter: a name ending in .gguf, or a PEFT folder", "PATH");
  arguments.choice(
      "--method", job.method.method,
      {"lora", "pooled", "dora", "full", "head", "prompt", "scale", "zo"},
      "what is trained: low-rank matrices beside the weights, the same on sums of blocks (merges "
      "exactly), with magnitudes apart, all weights, the output matrix, virtual tokens in front of "
      "the text, the quantization scales (a model of the same size comes out); zo: by forward "
      "passes alone, in the memory of inference");
  arguments.option("--modules", job.method.modules,
                   "weights that get adapters: q,k,v,o,gate,up,down, attn, mlp, all, or an "
                   "expression",
                   "WORDS");
  arguments.choice("--view", job.method.view, {"tied", "scale", "minimum"},
                   "of scale: what a factor is of");
  arguments.option("--rank", job.method.rank, "of the low-rank matrices", Integers{1, 1024});
  arguments.option("--alpha", job.method.alpha, "the adapter counts alpha / rank", Numbers{0});
  arguments.option("--dropout", job.method.dropout, "chance of dropping an adapter's input",
                   Numbers{0, 1});
  arguments.option("--virtual-tokens", job.method.virtual_tokens, "of a soft prompt",
                   Integers{1, formats::kMostVirtualTokens});
  arguments.option("--prompt-text", job.method.prompt_text,
                   "what a soft prompt begins as; default: tokens drawn by the seed", "TEXT");
  arguments.option("--optimizer", job.optimizer,
                   "the update rule (docs/optimizers.md); default adamw, of zo sgd", "NAME");
  arguments.option("--set", job.settings, "of the update rule: beta1=0.9,beta2=0.99", "SETTINGS");
  arguments.option("--learning-rate", job.learning_rate, "the peak; 0: by method and rule",
                   Numbers{0});
  arguments.option("--schedule", job.schedule, "of the rate: constant, linear, cosine, wsd",
                   "NAME");
  arguments.option("--warmup", job.warmup, "part of the run in which the rate rises",
                   Numbers{0, 1});
  arguments.option("--weight-decay", job.weight_decay, "of matrices, decoupled", Numbers{0});
  arguments.option("--clip", job.clip,
                   "largest norm of the gradient; 0: none; default 1, of zo none", Numbers{0});
  arguments.option("--batch", job.batch, "examples a step", Integers{1, 1 << 20});
  arguments.option("--epochs", job.epochs, "times through the examples", Numbers{0});
  arguments.option("--steps", job.steps, "steps, instead of epochs", Integers{0});
  arguments.option("-l,--length", job.length, "most tokens of an example", Integers{2, 1 << 20});
  arguments.flag("--everything", job.everything, "loss on all tokens, not on answers only");
  arguments.option("-s,--seed", options.seed, "same seed, same bits", Integers{0});
  arguments.size(
      "--stream", job.stream,
      "read the matrices from the file at every step, through a window of so many bytes");
  arguments.option(
      "--memory", options.memory,
      "most memory of the process, as 2GB, or low; activations are made again, batches split "
      "and the optimizer's state put into a file until it fits",
      "SIZE");
  arguments.choice("--arithmetic", job.arithmetic, {"int8", "float"},
                   "of forward products with quantized weights");
  arguments.choice("--rounding", job.rounding, {"none", "bf16", "int8"},
                   "of products in f32, forward and backward; int8 also backward through quantized "
                   "weights");
  arguments.flag("--update-inside", job.update_inside,
                 "each parameter steps right after its gradient: least memory, no clipping");
  declare_forward(job, arguments);
  arguments.flag("--offload", job.offload,
                 "the optimizer's state lies in a file beside the checkpoints: the same bits");
  arguments.option("-j,--threads", job.threads, "threads; 0: all cores", Integers{0, 1024});
  arguments.option("--questions", options.questions,
                   "prompts answered before and after, to see the difference", "FILE");
  arguments.option("--checkpoints", options.checkpoints,
                   "folder of checkpoints; default: beside the output", "FOLDER");
  arguments.option("--checkpoint-every", options.checkpoint_every, "steps", Integers{1});
  arguments.option("--resume", options.resume,
                   "go on from this folder of checkpoints, with the options it was begun with",
                   "FOLDER");
  arguments.option("--runs", options.runs, "file of run records", "FILE");
  arguments.flag("--dry-run", options.dry,
                 "say what would be trained and what it takes, then stop");
}

Status run(const TuneOptions& options, Output& output) { return run_tuning(options, output); }

}  // namespace

const Verb& tune_verb() {
  static const Verb kVerb =
      make_verb("tune", "improve a model with examples",
                "hone tune smollm2 --data examples.jsonl -o mine.gguf\n"
                "hone tune smollm2 --data examples.jsonl --method pooled --rank 8 --memory 600MB",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
