// Which weights the words of --modules address.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/adapter.h"
#include "formats/tokenizer_regex.h"

namespace hone::engine {
namespace {

struct Word {
  std::string_view word;
  std::array<std::string_view, 8> parts;  // of GGUF's names; "" ends the list
};
constexpr std::array kWords = {
    Word{"q", {"attn_q"}},
    Word{"k", {"attn_k"}},
    Word{"v", {"attn_v"}},
    Word{"qkv", {"attn_qkv", "attn_q", "attn_k", "attn_v"}},
    Word{"o", {"attn_output"}},
    Word{"gate", {"ffn_gate"}},
    Word{"up", {"ffn_up"}},
    Word{"down", {"ffn_down"}},
    Word{"attn", {"attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output"}},
    Word{"mlp", {"ffn_gate", "ffn_up", "ffn_down"}},
    Word{"all",
         {"attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
          "ffn_down"}},
};

// A weight that can be addressed.
struct Candidate {
  std::string gguf;          // "blk.0.attn_q.weight"
  std::string part;          // "attn_q"; empty outside of the layers
  std::string hugging_face;  // "model.layers.0.self_attn.q_proj.weight"; may be empty
};

std::string without_weight(std::string_view name) {
  constexpr std::string_view kEnd = ".weight";
  return std::string(name.ends_with(kEnd) ? name.substr(0, name.size() - kEnd.size()) : name);
}

std::string last_part(std::string_view name) {
  const std::string module = without_weight(name);
  return module.substr(module.rfind('.') + 1);
}

std::vector<Candidate> candidates_of(const ModelSource& model) {
  std::vector<Candidate> out;
  for (const formats::TensorRecord& tensor : model.tensors()) {
    const bool output = tensor.name == "output.weight";
    if (tensor.shape.size() != 2 || !tensor.name.ends_with(".weight")) continue;
    if (!output && !tensor.name.starts_with("blk.")) continue;
    out.push_back({tensor.name, output ? "" : last_part(tensor.name),
                   hugging_face_weight(model, tensor.name)});
  }
  return out;
}

// Commas inside of an expression's brackets belong to it.
std::vector<std::string> split(std::string_view words) {
  std::vector<std::string> items(1);
  int depth = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const char letter = words[i];
    if (letter == '\\' && i + 1 < words.size()) {
      items.back() += letter;
      items.back() += words[++i];
      continue;
    }
    if (letter == '(' || letter == '[' || letter == '{') ++depth;
    if (letter == ')' || letter == ']' || letter == '}') --depth;
    if (letter == ',' && depth <= 0) {
      items.emplace_back();
    } else if (letter != ' ' || depth > 0) {
      items.back() += letter;
    }
  }
  std::erase(items, "");
  return items;
}

bool is_expression(std::string_view item) {
  return item.find_first_of("^$*+?()[]{}|\\") != item.npos;
}

bool is_named(const Candidate& candidate, const std::string& item) {
  const std::string name = without_weight(item);
  if (name.empty()) return false;
  const auto ends = [&name](std::string_view whole) {
    const std::string module = without_weight(whole);
    return module == name || module.ends_with("." + name);
  };
  return ends(candidate.gguf) || ends(candidate.hugging_face);
}

class Selection {
 public:
  explicit Selection(const ModelSource& model)
      : model_(model), candidates_(candidates_of(model)), chosen_(candidates_.size(), false) {}

  Status add(const std::string& item) {
    if (item == "head" || item == "lm_head" || item == "output") return add_head();
    const auto word = std::ranges::find(kWords, item, &Word::word);
    if (word != kWords.end()) {
      return choose(item, [&](const Candidate& candidate) {
        return !candidate.part.empty() &&
               std::ranges::find(word->parts, candidate.part) != word->parts.end();
      });
    }
    if (!is_expression(item)) {
      return choose(item, [&](const Candidate& candidate) { return is_named(candidate, item); });
    }
    const auto regex = formats::Regex::compile(item, formats::UnicodeEdition{});
    if (!regex) return regex.error().in("--modules");
    formats::Regex::Scratch scratch;
    return choose(item, [&](const Candidate& candidate) {
      formats::RegexMatch match;
      return regex->find(candidate.gguf, 0, scratch, match) ||
             regex->find(candidate.hugging_face, 0, scratch, match);
    });
  }

  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (chosen_[i]) out.push_back(candidates_[i].gguf);
    }
    return out;
  }

 private:
  Status add_head() {
    if (model_.find("output.weight") == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   "the model's output is its embedding, which has no adapter",
                   model_.path(),
                   "head",
                   "a model with an output matrix of its own",
                   "leave 'head' out of --modules"};
    }
    return choose("head",
                  [](const Candidate& candidate) { return candidate.gguf == "output.weight"; });
  }

  template <typename Matches>
  Status choose(const std::string& item, const Matches& matches) {
    bool any = false;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (!matches(candidates_[i])) continue;
      chosen_[i] = true;
      any = true;
    }
    if (any) return {};
    std::vector<std::string> parts;
    for (const Candidate& candidate : candidates_) {
      for (const std::string& part : {candidate.part, last_part(candidate.hugging_face)}) {
        if (!part.empty() && std::ranges::find(parts, part) == parts.end()) parts.push_back(part);
      }
    }
    return Error{ErrorCode::kNotFound,
                 fmt::format("no weight of the model is called '{}'", formats::printable(item)),
                 "--modules",
                 "",
                 fmt::format("all, attn, mlp, q, k, v, o, gate, up, down, head, a regular "
                             "expression, or a name: {}",
                             fmt::join(parts, ", ")),
                 "see the names with `hone inspect --tensors`"};
  }

  const ModelSource& model_;
  std::vector<Candidate> candidates_;
  std::vector<bool> chosen_;
};

}  // namespace

Result<std::vector<std::string>> select_modules(const ModelSource& model, std::string_view words) {
  Selection selection(model);
  const std::vector<std::string> items = split(words);
  if (items.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "no modules are named",
                 "--modules",
                 "",
                 "all, attn, mlp, q,k,v,o, gate,up,down, head, names or regular expressions",
                 ""};
  }
  for (const std::string& item : items) HONE_RETURN_IF_ERROR(selection.add(item));
  return selection.names();
}

std::int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  std::int64_t layer = -1;
  if (!name.starts_with(kPrefix)) return layer;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

}  // namespace hone::engine
