// Evaluation: tokens of all examples first, then choices in groups, then answers side by side.
// SPDX-License-Identifier: Apache-2.0
#include "tune/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/sampler.h"
#include "formats/chat_template.h"

namespace hone::tune {
namespace {

using engine::Request;
using engine::SequenceId;
using engine::Session;
using engine::Wanted;
using formats::TokenId;
using formats::Tokenizer;

// Sequences that step together: more read the weights less often, but fill the caches.
constexpr std::size_t kMostTogether = 16;
// Logits of one step, in bytes: rows are as wide as the vocabulary.
constexpr std::int64_t kMostLogits = 64 << 20;

std::int64_t size_of(const std::vector<TokenId>& tokens) {
  return static_cast<std::int64_t>(tokens.size());
}

std::int64_t pages_of(std::int64_t tokens) {
  return (tokens + kernels::kPageTokens - 1) / kernels::kPageTokens;
}

// An example in tokens. Multiple choice: `prompt` is what all choices begin with, `tails` are what
// is left of each.
struct Prepared {
  std::size_t example = 0;
  std::int64_t member = 0;
  std::vector<TokenId> prompt;
  std::vector<std::vector<TokenId>> tails;

  std::int64_t longest() const {
    std::int64_t tail = 0;
    for (const auto& tokens : tails) tail = std::max(tail, size_of(tokens));
    return size_of(prompt) + tail;
  }
};

std::string joined(const EvalExample& example, const std::string& prompt, const std::string& choice,
                   const EvalOptions& options) {
  if (options.delimiter) return prompt + *options.delimiter + choice;
  constexpr std::string_view kSpace = " \t\r\n";
  const auto is_space = [&](char byte) { return kSpace.find(byte) != std::string_view::npos; };
  if (options.raw) {
    const bool bare =
        !example.prompt.empty() && !is_space(example.prompt.back()) && !is_space(choice.front());
    return prompt + (bare ? " " : "") + choice;
  }
  const std::size_t begin = choice.find_first_not_of(kSpace);
  return prompt + (begin == std::string::npos ? choice : choice.substr(begin));
}

class Preparation {
 public:
  static Result<Preparation> create(const Tokenizer& tokenizer, const EvalOptions& options) {
    Preparation out(tokenizer, options);
    if (options.raw) return out;
    const std::string& source = tokenizer.vocabulary().chat_template;
    if (source.empty()) {
      return Error{ErrorCode::kNotFound,
                   "the model has no chat template",
                   "",
                   "",
                   "",
                   "give the prompts as they are: --raw"};
    }
    auto chat = formats::ChatTemplate::compile(source);
    if (!chat) return chat.error();
    out.chat_ = *std::move(chat);
    return out;
  }

  Result<Prepared> prepare(const EvalExample& example, std::size_t index) const {
    const auto text = prompt_text(example);
    if (!text) return text.error();
    Prepared out;
    out.example = index;
    out.prompt = encode(*text);
    if (example.choices.empty()) {
      if (out.prompt.empty()) return nothing("the prompt has no tokens");
      return out;
    }
    std::vector<std::vector<TokenId>> whole;
    std::size_t shared = out.prompt.size();
    for (const std::string& choice : example.choices) {
      whole.push_back(encode(joined(example, *text, choice, options_)));
      const auto [mine, theirs] = std::ranges::mismatch(out.prompt, whole.back());
      shared = std::min(shared, static_cast<std::size_t>(mine - out.prompt.begin()));
    }
    out.prompt.resize(shared);
    for (const auto& tokens : whole) {
      if (tokens.size() <= shared) return nothing("a choice has no tokens of its own");
      out.tails.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(shared), tokens.end());
    }
    // The first token needs something before it.
    if (shared == 0 && tokenizer_.bos() == formats::kNoToken) {
      return nothing("nothing comes before the choices");
    }
    if (shared == 0) out.prompt.push_back(tokenizer_.bos());
    return out;
  }

 private:
  Preparation(const Tokenizer& tokenizer, const EvalOptions& options)
      : tokenizer_(tokenizer), options_(options) {}

  static Error nothing(const char* what) {
    return Error{ErrorCode::kInvalidArgument, what, "", "", "some text", ""};
  }

  Result<std::string> prompt_text(const EvalExample& example) const {
    if (!chat_) return example.prompt;
    std::vector<formats::Message> messages;
    if (!options_.system.empty()) messages.push_back({"system", options_.system});
    messages.push_back({"user", example.prompt});
    return chat_->render(messages, true, tokenizer_.piece(tokenizer_.bos()),
                         tokenizer_.piece(tokenizer_.eos()));
  }

  // A template writes the beginning-of-sequence token itself where it wants one. Nothing of this
  // is complete, so that no end token belongs behind it.
  std::vector<TokenId> encode(const std::string& text) const {
    auto tokens = tokenizer_.encode(text, {.add_special = !chat_, .parse_special = true});
    const bool ended = !chat_ && tokenizer_.vocabulary().add_eos && !tokens.empty() &&
                       tokens.back() == tokenizer_.eos();
    if (ended) tokens.pop_back();
    return tokens;
  }

  const Tokenizer& tokenizer_;
  const EvalOptions& options_;
  std::optional<formats::ChatTemplate> chat_;
};

Error at_line(const Error& error, const EvalExample& example) {
  return error.in(fmt::format("line {}", example.line));
}

// Sequences that end whatever happens.
class Sequences {
 public:
  explicit Sequences(Session& session) : session_(session) {}
  ~Sequences() {
    for (const SequenceId id : ids_) session_.end(id);
  }
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;
  SequenceId begin(std::int64_t member) {
    ids_.push_back(session_.begin(member));
    return ids_.back();
  }
  void end(SequenceId id) {
    session_.end(id);
    std::erase(ids_, id);
  }

 private:
  Session& session_;
  std::vector<SequenceId> ids_;
};

// Multiple choice for some examples at once: their prompts in one step, then the first choices of
// all in one step, the second ones, …
class ChoiceGroup {
 public:
  ChoiceGroup(Session& session, std::span<const Prepared> examples)
      : session_(session),
        sequences_(session),
        examples_(examples),
        vocabulary_(static_cast<std::size_t>(session.config().vocabulary)) {}

  // scores[example][choice]
  Result<std::vector<std::vector<ChoiceScore>>> score() {
    std::size_t choices = 0;
    for (const Prepared& one : examples_) {
      ids_.push_back(sequences_.begin(one.member));
      scores_.emplace_back(one.tails.size());
      choices = std::max(choices, one.tails.size());
    }
    HONE_RETURN_IF_ERROR(run_prompts());
    for (std::size_t choice = 0; choice < choices; ++choice) {
      HONE_RETURN_IF_ERROR(run_choice(choice));
    }
    return std::move(scores_);
  }

 private:
  void take(std::span<const float> logits, std::size_t example, std::size_t choice, TokenId token) {
    ChoiceScore& score = scores_[example][choice];
    score.log_probability += engine::log_probability(logits, token);
    ++score.tokens;
  }

  Status run_prompts() {
    std::vector<Request> requests;
    for (std::size_t i = 0; i < examples_.size(); ++i) {
      const std::span<const TokenId> prompt(examples_[i].prompt);
      const auto reused = static_cast<std::size_t>(session_.reuse(ids_[i], prompt));
      requests.push_back({ids_[i], prompt.subspan(reused), Wanted::kLast});
    }
    // A prompt of more than one step comes alone.
    auto logits = requests.size() == 1 ? session_.prefill(ids_[0], requests[0].tokens)
                                       : session_.step(requests);
    if (!logits) return logits.error();
    for (std::size_t i = 0; i < examples_.size(); ++i) {
      for (std::size_t choice = 0; choice < examples_[i].tails.size(); ++choice) {
        take(logits->subspan(i * vocabulary_, vocabulary_), i, choice,
             examples_[i].tails[choice][0]);
      }
    }
    return {};
  }

  // What follows the first token of one choice of each example; then the sequences are as before.
  Status run_choice(std::size_t choice) {
    std::vector<std::size_t> done(examples_.size(), 0);
    const std::int64_t most_rows = std::clamp<std::int64_t>(
        kMostLogits / (session_.config().vocabulary * 4), 1, session_.options().batch);
    while (true) {
      std::vector<Request> requests;
      std::vector<std::size_t> owners;
      std::size_t room = static_cast<std::size_t>(most_rows);
      for (std::size_t i = 0; i < examples_.size() && room > 0; ++i) {
        if (choice >= examples_[i].tails.size()) continue;
        const std::span<const TokenId> tail(examples_[i].tails[choice]);
        const std::size_t count = std::min(room, tail.size() - 1 - done[i]);
        if (count == 0) continue;
        requests.push_back({ids_[i], tail.subspan(done[i], count), Wanted::kAll});
        owners.push_back(i);
        room -= count;
      }
      if (requests.empty()) break;
      auto logits = session_.step(requests);
      if (!logits) return logits.error();
      std::size_t row = 0;
      for (std::size_t r = 0; r < requests.size(); ++r) {
        const std::size_t i = owners[r];
        for (std::size_t k = 0; k < requests[r].tokens.size(); ++k, ++row) {
          take(logits->subspan(row * vocabulary_, vocabulary_), i, choice,
               examples_[i].tails[choice][done[i] + k + 1]);
        }
        done[i] += requests[r].tokens.size();
      }
    }
    for (std::size_t i = 0; i < examples_.size(); ++i) {
      if (done[i] == 0) continue;
      HONE_RETURN_IF_ERROR(session_.truncate(ids_[i], size_of(examples_[i].prompt)));
    }
    return {};
  }

  Session& session_;
  Sequences sequences_;
  std::span<const Prepared> examples_;
  std::size_t vocabulary_;
  std::vector<SequenceId> ids_;
  std::vector<std::vector<ChoiceScore>> scores_;
};

// How many of the examples, sorted by length, go into one step and into the cache.
std::size_t group_size(const Session& session, std::int64_t pages,
                       std::span<const Prepared> examples) {
  std::size_t size = 0;
  std::int64_t tokens = 0;
  std::int64_t held = 0;
  for (; size < examples.size() && size < kMostTogether; ++size) {
    tokens += size_of(examples[size].prompt);
    held += pages_of(session.virtual_tokens() + examples[size].longest());
    if (size > 0 && (tokens > session.options().batch || held > pages)) break;
  }
  return size;
}

template <typename Of>
std::size_t best_by(const std::vector<ChoiceScore>& scores, Of of) {
  std::size_t best = 0;  // the first of equal ones
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (of(scores[i]) > of(scores[best])) best = i;
  }
  return best;
}

std::int64_t characters_of(const std::string& text) {
  return std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

void judge(EvalOutcome& outcome, const EvalExample& example) {
  for (std::size_t i = 0; i < outcome.scores.size(); ++i) {
    outcome.scores[i].characters = characters_of(example.choices[i]);
  }
  const auto& scores = outcome.scores;
  outcome.best = best_by(scores, [](const ChoiceScore& s) { return s.log_probability; });
  outcome.best_per_token = best_by(scores, [](const ChoiceScore& s) {
    return s.log_probability / static_cast<double>(s.tokens);
  });
  outcome.best_per_character = best_by(scores, [](const ChoiceScore& s) {
    return s.log_probability / static_cast<double>(s.characters);
  });
  outcome.right = outcome.best == example.answer;
}

// Answers in the model's own words, always the most likely token; some sequences side by side, the
// next prompt as soon as one is done.
class Answering {
 public:
  Answering(Session& session, const Tokenizer& tokenizer, const EvalOptions& options)
      : session_(session), sequences_(session), tokenizer_(tokenizer), options_(options) {}

  // Calls `done` with the outcome of each. False when interrupted.
  template <typename Done>
  Result<bool> run(std::span<const Prepared> examples, Done done) {
    std::size_t next = 0;
    while (next < examples.size() || !active_.empty()) {
      if (options_.interrupted && options_.interrupted()) return false;
      if (next < examples.size() && fits(examples[next])) {
        auto status = start(examples[next]);
        if (!status.ok()) return status.error();
        ++next;
      } else {
        HONE_RETURN_IF_ERROR(step());
      }
      for (std::size_t i = active_.size(); i-- > 0;) {
        if (!active_[i].ended) continue;
        sequences_.end(active_[i].id);
        done(*active_[i].asked, std::move(active_[i].text), active_[i].count);
        active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    return true;
  }

 private:
  struct Active {
    SequenceId id = 0;
    const Prepared* asked = nullptr;
    TokenId last = 0;
    std::string text;
    std::int64_t count = 0;
    std::int64_t pages = 0;  // at its longest
    bool ended = false;
  };

  bool fits(const Prepared& example) {
    if (active_.empty()) return true;
    std::int64_t pages = pages_needed(example);
    for (const Active& one : active_) pages += one.pages;
    return active_.size() < kMostTogether && pages <= session_.cache().page_count();
  }
  std::int64_t pages_needed(const Prepared& example) const {
    return pages_of(session_.virtual_tokens() +
                    std::min(size_of(example.prompt) + options_.most_tokens, session_.context()));
  }

  Status start(const Prepared& example) {
    Active one;
    one.id = sequences_.begin(example.member);
    one.asked = &example;
    one.pages = pages_needed(example);
    const std::span<const TokenId> prompt(example.prompt);
    const auto reused = static_cast<std::size_t>(session_.reuse(one.id, prompt));
    const auto logits = session_.prefill(one.id, prompt.subspan(reused));
    if (!logits) return logits.error();
    take(one, *logits);
    active_.push_back(std::move(one));
    return {};
  }

  Status step() {
    std::vector<Request> requests;
    for (const Active& one : active_) {
      requests.push_back({one.id, std::span(&one.last, 1), Wanted::kLast});
    }
    const auto logits = session_.step(requests);
    if (!logits) return logits.error();
    const auto width = static_cast<std::size_t>(session_.config().vocabulary);
    for (std::size_t i = 0; i < active_.size(); ++i) {
      take(active_[i], logits->subspan(i * width, width));
    }
    return {};
  }

  void take(Active& one, std::span<const float> logits) {
    one.last = static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
    if (tokenizer_.is_end_of_generation(one.last)) {
      one.ended = true;
      return;
    }
    ++one.count;
    if (!tokenizer_.is_special(one.last)) one.text += tokenizer_.piece(one.last);
    std::size_t stop = std::string::npos;
    for (const std::string& text : options_.stops) {
      if (!text.empty()) stop = std::min(stop, one.text.find(text));
    }
    if (stop != std::string::npos) one.text.resize(stop);
    one.ended = stop != std::string::npos || one.count >= options_.most_tokens ||
                session_.length(one.id) >= session_.context();
  }

  Session& session_;
  Sequences sequences_;
  const Tokenizer& tokenizer_;
  const EvalOptions& options_;
  std::vector<Active> active_;
};

void summarize(EvalReport& report, std::span<const EvalExample> examples) {
  std::int64_t choices = 0, sum = 0, per_token = 0, per_character = 0, exact = 0, right = 0;
  for (const EvalOutcome& outcome : report.outcomes) {
    const EvalExample& example = examples[outcome.example];
    if (example.choices.empty()) {
      ++exact;
      right += outcome.right ? 1 : 0;
      report.generated_tokens += outcome.tokens;
      continue;
    }
    ++choices;
    sum += outcome.right ? 1 : 0;
    per_token += outcome.best_per_token == example.answer ? 1 : 0;
    per_character += outcome.best_per_character == example.answer ? 1 : 0;
    report.chance += 1.0 / static_cast<double>(example.choices.size());
    if (report.predicted.size() < example.choices.size()) {
      report.predicted.resize(example.choices.size());
    }
    ++report.predicted[outcome.best];
    const double most = outcome.scores[outcome.best].log_probability;
    double total = 0;
    for (const ChoiceScore& score : outcome.scores) total += std::exp(score.log_probability - most);
    report.choice_loss += most + std::log(total) - outcome.scores[example.answer].log_probability;
  }
  report.by_sum = proportion(sum, choices);
  report.per_token = proportion(per_token, choices);
  report.per_character = proportion(per_character, choices);
  report.exact = proportion(right, exact);
  if (choices == 0) return;
  report.chance /= static_cast<double>(choices);
  report.choice_loss /= static_cast<double>(choices);
}

}  // namespace

Proportion proportion(std::int64_t count, std::int64_t total) {
  Proportion out{count, total, 0, 0, 1};
  if (total <= 0) return out;
  constexpr double kZ = 1.959963984540054;  // of the normal distribution, 97.5 %
  const auto n = static_cast<double>(total);
  const double p = static_cast<double>(count) / n;
  const double center = p + kZ * kZ / (2 * n);
  const double half = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  out.share = p;
  out.low = std::max(0.0, (center - half) / scale);
  out.high = std::min(1.0, (center + half) / scale);
  return out;
}

Result<EvalReport> evaluate(Session& session, const Tokenizer& tokenizer,
                            std::span<const EvalExample> examples, const EvalOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto preparation = Preparation::create(tokenizer, options);
  if (!preparation) return preparation.error();
  const auto matcher = AnswerMatcher::create(options.match);
  if (!matcher) return matcher.error();
  EvalReport report;
  std::vector<Prepared> choices, questions;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    auto prepared = preparation->prepare(examples[i], i);
    if (!prepared) return at_line(prepared.error(), examples[i]);
    // The last token of a choice is never fed; an answer needs room for a token.
    const std::int64_t needed = prepared->longest() - (prepared->tails.empty() ? 0 : 1);
    if (needed > session.context()) {
      return at_line(
          Error{ErrorCode::kOutOfRange, "the example is longer than the context", "",
                fmt::format("{} tokens", needed), fmt::format("at most {}", session.context()),
                "raise --context, or leave the example out"},
          examples[i]);
    }
    report.prompt_tokens += size_of(prepared->prompt);
    for (std::int64_t member = 0; member < options.members; ++member) {
      prepared->member = member;
      (prepared->tails.empty() ? questions : choices).push_back(*prepared);
    }
  }
  // By length: steps of the same shape share their program.
  std::ranges::stable_sort(choices, {}, [](const Prepared& one) { return one.prompt.size(); });

  std::int64_t done = 0;
  const auto advance = [&](std::size_t count) {
    done += static_cast<std::int64_t>(count);
    if (options.progress) options.progress(done, std::ssize(examples) * options.members);
  };
  std::span<const Prepared> left(choices);
  while (!left.empty() && report.complete) {
    if (options.interrupted && options.interrupted()) {
      report.complete = false;
      break;
    }
    const std::size_t size = group_size(session, session.cache().page_count(), left);
    auto scores = ChoiceGroup(session, left.first(size)).score();
    if (!scores) return at_line(scores.error(), examples[left[0].example]);
    for (std::size_t i = 0; i < size; ++i) {
      EvalOutcome outcome;
      outcome.example = left[i].example;
      outcome.member = left[i].member;
      outcome.scores = std::move((*scores)[i]);
      judge(outcome, examples[outcome.example]);
      report.outcomes.push_back(std::move(outcome));
    }
    left = left.subspan(size);
    advance(size);
  }
  if (report.complete && !questions.empty()) {
    const auto complete =
        Answering(session, tokenizer, options)
            .run(questions, [&](const Prepared& asked, std::string said, std::int64_t tokens) {
              EvalOutcome outcome;
              outcome.example = asked.example;
              outcome.member = asked.member;
              outcome.said = std::move(said);
              outcome.tokens = tokens;
              outcome.extracted = matcher->extract(outcome.said);
              outcome.right = outcome.extracted &&
                              matcher->matches(*outcome.extracted, examples[asked.example].answers);
              report.outcomes.push_back(std::move(outcome));
              advance(1);
            });
    if (!complete) return complete.error();
    report.complete = *complete;
  }
  std::ranges::sort(report.outcomes, {}, [](const EvalOutcome& outcome) {
    return std::pair(outcome.member, outcome.example);
  });
  summarize(report, examples);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace hone::tune
