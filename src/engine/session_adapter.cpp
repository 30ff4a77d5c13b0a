// A session's adapters: one for all sequences, one for each member of a population, a soft prompt.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/session.h"

namespace hone::engine {
namespace {

using Members = std::span<const formats::Adapter>;

const formats::AdapterWeight& weight_of(const formats::Adapter& adapter, const std::string& name) {
  return adapter.weights.find(name)->second;
}

bool are_of_one_form(Members members) {
  return !members.empty() && std::ranges::all_of(members, [&](const formats::Adapter& member) {
    const auto& first = members[0].weights;
    return member.kind == formats::AdapterKind::kLora && member.weights.size() == first.size() &&
           std::ranges::all_of(member.weights, [&](const auto& weight) {
             const auto other = first.find(weight.first);
             return other != first.end() && other->second.rank == weight.second.rank;
           });
  });
}

bool share_a(Members members) {
  return std::ranges::all_of(members, [&](const formats::Adapter& member) {
    return std::ranges::all_of(member.weights, [&](const auto& weight) {
      return weight.second.a == weight_of(members[0], weight.first).a;
    });
  });
}

// (M r, K)
std::vector<float> stacked_a(Members members, const std::string& name) {
  std::vector<float> a;
  for (const formats::Adapter& member : members) {
    const formats::AdapterWeight& own = weight_of(member, name);
    a.insert(a.end(), own.a.begin(), own.a.end());
  }
  return a;
}

// (R, M r), times each member's scale.
std::vector<float> stacked_b(Members members, const std::string& name) {
  const formats::AdapterWeight& first = weight_of(members[0], name);
  std::vector<float> b;
  b.reserve(first.b.size() * members.size());
  for (std::int64_t row = 0; row < first.outputs; ++row) {
    for (const formats::Adapter& member : members) {
      const double scale = member.scale(first.rank);
      const auto own = std::span(weight_of(member, name).b)
                           .subspan(static_cast<std::size_t>(row * first.rank),
                                    static_cast<std::size_t>(first.rank));
      for (const float value : own) b.push_back(static_cast<float>(value * scale));
    }
  }
  return b;
}

}  // namespace

Status Session::attach(const formats::Adapter& adapter, double strength) {
  HONE_RETURN_IF_ERROR(formats::check_adapter(adapter));
  HONE_RETURN_IF_ERROR(fits_model(adapter, source_));
  if (adapter.kind == formats::AdapterKind::kPrompt) return attach_prompt(adapter, strength);
  for (const auto& [name, weight] : adapter.weights) {
    const double scale = adapter.scale(weight.rank) * strength;
    std::vector<float> b(weight.b);
    for (float& value : b) value = static_cast<float>(value * scale);
    for (const bool is_a : {true, false}) {
      const auto added =
          weights_.add_owned(is_a ? passes::lora_a_name(name) : passes::lora_b_name(name),
                             ir::tensor_type(is_a ? ir::Shape{weight.rank, weight.inputs}
                                                  : ir::Shape{weight.outputs, weight.rank}),
                             std::as_bytes(std::span(is_a ? weight.a : b)));
      if (!added) return added.error();
    }
    if (adapter.kind != formats::AdapterKind::kDora) continue;
    const std::vector<float> gain = dora_gain(name, adapter, source_, strength);
    const auto added =
        weights_.add_owned(passes::lora_gain_name(name), ir::tensor_type({weight.outputs}),
                           std::as_bytes(std::span(gain)));
    if (!added) return added.error();
  }
  serve(lora_options(adapter), std::string(formats::adapter_kind_name(adapter.kind)));
  return {};
}

Status Session::attach_population(std::span<const formats::Adapter> members) {
  if (members.size() == 1) return attach(members[0]);
  for (const formats::Adapter& member : members) {
    HONE_RETURN_IF_ERROR(formats::check_adapter(member));
    HONE_RETURN_IF_ERROR(fits_model(member, source_));
  }
  if (!are_of_one_form(members)) {
    return Error{ErrorCode::kInvalidArgument,
                 "these adapters are no population",
                 "",
                 fmt::format("{} adapters", members.size()),
                 "at least one, all low-rank, of the same weights and ranks",
                 ""};
  }
  const bool shared = share_a(members);
  const auto add = [&](const std::string& name, ir::Shape shape, std::span<const float> values) {
    return weights_.add_owned(name, ir::tensor_type(std::move(shape)), std::as_bytes(values));
  };
  for (const auto& [name, weight] : members[0].weights) {
    const std::vector<float> a = stacked_a(members.first(shared ? 1 : members.size()), name);
    const auto wide = std::ssize(members) * weight.rank;
    const auto added_a =
        add(passes::population_a_name(name), {shared ? weight.rank : wide, weight.inputs}, a);
    if (!added_a) return added_a.error();
    const auto added_b =
        add(passes::population_b_name(name), {weight.outputs, wide}, stacked_b(members, name));
    if (!added_b) return added_b.error();
  }
  passes::LoraOptions options = lora_options(members[0]);
  options.members = std::ssize(members);
  options.shared_a = shared;
  serve(std::move(options), fmt::format("{} members{}", members.size(), shared ? " of one A" : ""));
  return {};
}

void Session::serve(passes::LoraOptions adapter, std::string form) {
  virtual_tokens_ = 0;
  adapter_ = std::move(adapter);
  adapter_form_ = std::move(form);
  for (const auto& [name, rank] : adapter_->ranks) {
    adapter_form_ += fmt::format(" {} {}", name, rank);
  }
  weights_changed();
}

Status Session::attach_prompt(const formats::Adapter& adapter, double strength) {
  if (strength == 0) {
    detach();
    return {};
  }
  if (strength != 1 || adapter.virtual_tokens >= options_.context) {
    return Error{ErrorCode::kInvalidArgument,
                 strength != 1 ? "a soft prompt is there as it was trained, or not at all"
                               : "the soft prompt leaves no room for text",
                 "",
                 strength != 1 ? fmt::format("a strength of {}", strength)
                               : fmt::format("{} virtual tokens in a context of {}",
                                             adapter.virtual_tokens, options_.context),
                 "",
                 strength != 1 ? "use 1 or 0" : "raise --context"};
  }
  const auto added = weights_.add_owned(std::string(passes::kSoftPromptName),
                                        ir::tensor_type({adapter.virtual_tokens, adapter.hidden}),
                                        std::as_bytes(std::span(adapter.prompt)));
  if (!added) return added.error();
  adapter_.reset();
  virtual_tokens_ = adapter.virtual_tokens;
  adapter_form_ = fmt::format("prompt {}", virtual_tokens_);
  weights_changed();
  return {};
}

void Session::detach() {
  virtual_tokens_ = 0;
  adapter_.reset();
  adapter_form_.clear();
  weights_changed();
}

}  // namespace hone::engine
