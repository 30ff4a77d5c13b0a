// SPDX-License-Identifier: Apache-2.0
#include "tune/small_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/file.h"
#include "base/random.h"
#include "models/decoder.h"
#include "passes/pass.h"
#include "passes/transform/loss.h"
#include "tune/data/record_file.h"

namespace hone::tune {
namespace {

constexpr std::int64_t kHeadSize = 32;
constexpr std::int64_t kBytes = 256;  // V

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::map<std::string, ir::Type, std::less<>> weights_of(const SmallModelOptions& options) {
  std::map<std::string, ir::Type, std::less<>> weights;
  const std::int64_t c = options.hidden;
  const auto add = [&](const std::string& name, ir::Shape shape) {
    weights[name] = ir::tensor_type(std::move(shape));
  };
  add("token_embd.weight", {kBytes, c});
  add("output_norm.weight", {c});
  for (std::int64_t layer = 0; layer < options.layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      add(prefix + name + ".weight", {c, c});
    }
    add(prefix + "ffn_gate.weight", {options.feed_forward, c});
    add(prefix + "ffn_up.weight", {options.feed_forward, c});
    add(prefix + "ffn_down.weight", {c, options.feed_forward});
    add(prefix + "attn_norm.weight", {c});
    add(prefix + "ffn_norm.weight", {c});
    if (options.head_norms) {
      add(prefix + "attn_q_norm.weight", {kHeadSize});
      add(prefix + "attn_k_norm.weight", {kHeadSize});
    }
  }
  return weights;
}

}  // namespace

Result<ByteText> read_byte_text(const std::string& path) {
  auto text = read_file(path);
  if (!text) return text.error();
  auto file = read_records(*text, path);
  if (!file) return file.error();
  ByteText out;
  for (const Record& record : file->records) {
    for (const Turn& turn : record.turns) out.bytes += turn.message.content + "\n";
    out.bytes += record.text + "\n";
  }
  return out;
}

ByteText grammar_text(std::uint64_t seed, std::size_t bytes) {
  constexpr std::array kNouns = {"cat",  "dog",    "bird",   "child",
                                 "king", "miller", "sailor", "horse"};
  constexpr std::array kVerbs = {"see", "like", "follow", "hear", "know", "call", "find", "help"};
  constexpr std::array kAdjectives = {"old", "small", "red", "quiet", "young", "brave"};
  Random random(seed);
  const auto pick = [&](const auto& words) -> std::string {
    return words[random.below(static_cast<std::uint32_t>(words.size()))];
  };
  const auto noun = [&](bool many) {
    const std::string word = pick(kNouns);
    return !many ? word : word == "child" ? "children" : word + "s";
  };
  const auto phrase = [&](bool many) {
    const std::string adjective = random.below(2) == 0 ? pick(kAdjectives) + " " : "";
    return "the " + adjective + noun(many);
  };
  const auto verb = [&](bool many) { return pick(kVerbs) + (many ? "" : "s"); };
  ByteText out;
  while (out.bytes.size() < bytes) {
    if (random.below(4) == 0) {
      const std::uint32_t a = random.below(50), b = random.below(50);
      out.bytes += fmt::format("{} and {} are {}.\n", a, b, a + b);
      continue;
    }
    const bool many = random.below(2) == 0;
    std::string sentence = phrase(many);
    // The verb agrees with the first noun, whatever stands between them.
    if (random.below(2) == 0) {
      const bool inner = random.below(2) == 0;
      sentence += " that " + phrase(inner) + " " + verb(inner);
    }
    out.bytes += sentence + " " + verb(many) + " " + phrase(random.below(2) == 0) + ".\n";
  }
  return out;
}

Result<SmallModel> SmallModel::make(ThreadPool& pool, const SmallModelOptions& options,
                                    std::uint64_t seed) {
  SmallModel model(pool, options, seed);
  const auto graph = model.graph(true);
  if (!graph) return graph.error();
  HONE_RETURN_IF_ERROR(model.network_->add_all(*graph, seed));
  model.trained_.assign(model.network_->names().begin(), model.network_->names().end());
  return model;
}

Result<ir::Graph> SmallModel::graph(bool weight_gradient) const {
  const auto weights = weights_of(options_);
  models::Config config;
  config.architecture = "small";
  config.vocabulary = kBytes;
  config.hidden = options_.hidden;
  config.layers = options_.layers;
  config.heads = config.kv_heads = options_.hidden / kHeadSize;
  config.head_size = config.rope_dims = kHeadSize;
  config.feed_forward = options_.feed_forward;
  config.context = options_.length;
  const models::Batch batch{tokens(), options_.sequences, 1, tokens()};
  const auto find = [&](std::string_view name) -> const ir::Type* {
    const auto found = weights.find(name);
    return found == weights.end() ? nullptr : &found->second;
  };
  auto graph = models::build_decoder(config, batch, find, false);
  if (graph) graph = passes::find_pass("sequences")->run(*graph);
  if (graph)
    graph = passes::add_loss(
        *graph, weight_gradient ? passes::LossForm::kWeightGradient : passes::LossForm::kGradient);
  return graph;
}

void SmallModel::copy_weights(SmallModel& from) {
  for (const std::string& name : trained_) {
    std::ranges::copy(from.network_->values(name), network_->values(name).begin());
  }
}

std::vector<Network::Input> SmallModel::Batch::inputs() const {
  return {{"tokens", bytes_of(tokens)},
          {"positions", bytes_of(positions)},
          {"slots", bytes_of(zeros)},
          {"offsets", bytes_of(offsets)},
          {"pages", std::as_bytes(std::span(zeros).first(offsets.size() - 1))},
          {"rows", bytes_of(rows)},
          {"targets", bytes_of(targets)},
          {"weights", bytes_of(weights)}};
}

SmallModel::Batch SmallModel::batch_at(const ByteText& text,
                                       const std::vector<std::size_t>& starts) const {
  Batch batch;
  const auto length = static_cast<std::size_t>(options_.length);
  batch.offsets.push_back(0);
  for (const std::size_t start : starts) {
    for (std::size_t i = 0; i < length; ++i) {
      batch.rows.push_back(static_cast<std::int32_t>(batch.tokens.size()));
      batch.tokens.push_back(static_cast<unsigned char>(text.bytes[start + i]));
      batch.targets.push_back(static_cast<unsigned char>(text.bytes[start + i + 1]));
      batch.positions.push_back(static_cast<std::int32_t>(i));
    }
    batch.offsets.push_back(static_cast<std::int32_t>(batch.tokens.size()));
  }
  batch.weights.assign(batch.tokens.size(), 1.0F / static_cast<float>(batch.tokens.size()));
  batch.zeros.assign(batch.tokens.size(), 0);
  return batch;
}

SmallModel::Batch SmallModel::training_batch(const ByteText& text, std::int64_t step) const {
  Random random(seed_, static_cast<std::uint64_t>(step) + 1);
  const std::size_t last = text.train_bytes() - static_cast<std::size_t>(options_.length) - 1;
  std::vector<std::size_t> starts(static_cast<std::size_t>(options_.sequences));
  for (std::size_t& start : starts) start = random.below(static_cast<std::uint32_t>(last));
  return batch_at(text, starts);
}

SmallModel::Batch SmallModel::held_out_batch(const ByteText& text, std::int64_t index) const {
  const std::size_t begin = text.train_bytes();
  const std::size_t room =
      text.bytes.size() - begin - static_cast<std::size_t>(options_.length) - 1;
  std::vector<std::size_t> starts(static_cast<std::size_t>(options_.sequences));
  Random random(0x5eed, static_cast<std::uint64_t>(index));
  for (std::size_t& start : starts) {
    start = begin + random.below(static_cast<std::uint32_t>(room));
  }
  return batch_at(text, starts);
}

Result<SmallModel::Outcome> SmallModel::gradients(const ByteText& text, std::int64_t step,
                                                  const Arithmetic& arithmetic) {
  const Batch batch = training_batch(text, step);
  const Network::Program program{[&] { return graph(true); }, arithmetic.before, arithmetic.after,
                                 trained_, false};
  const auto outcome = network_->run("train " + arithmetic.name, program, batch.inputs());
  if (!outcome) return outcome.error();
  Outcome out;
  for (const float loss : outcome->outputs[0]) out.loss += double{loss};
  out.gradients = outcome->gradients;
  return out;
}

Result<double> SmallModel::held_out_loss(const ByteText& text, std::int64_t batches,
                                         const Arithmetic& arithmetic) {
  const Network::Program program{
      [&] { return graph(false); }, arithmetic.before, arithmetic.after, {}, false};
  double sum = 0;
  for (std::int64_t i = 0; i < batches; ++i) {
    const Batch batch = held_out_batch(text, i);
    const auto outcome = network_->run("loss " + arithmetic.name, program, batch.inputs());
    if (!outcome) return outcome.error();
    for (const float loss : outcome->outputs[0]) sum += double{loss};
  }
  return sum / static_cast<double>(batches);
}

}  // namespace hone::tune
