// Records to tokens and masks.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/example.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "formats/conversation.h"

namespace hone::tune {
namespace {

using formats::ConversationEnd;
using formats::kNoToken;
using formats::Message;
using formats::TokenId;
using formats::Tokenizer;

// Tokens [begin, end) of an example: one answer with its stop token.
struct Span {
  std::size_t begin;
  std::size_t end;
};

Error unusable(std::string what, std::string found, std::string expected, std::string advice = "") {
  return {ErrorCode::kCorrupt, std::move(what),     "",
          std::move(found),    std::move(expected), std::move(advice)};
}

bool begins_with(const std::vector<TokenId>& tokens, const std::vector<TokenId>& prefix) {
  return prefix.size() <= tokens.size() && std::equal(prefix.begin(), prefix.end(), tokens.begin());
}

std::size_t common_prefix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  const std::size_t most = std::min(a.size(), b.size());
  const auto differ =
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin());
  return static_cast<std::size_t>(differ.first - a.begin());
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// A text whose beginnings of the given sizes in bytes are prompts: its tokens, and where in them
// each answer begins. The tokens before an answer are those of its prompt alone, as it is served.
struct Split {
  std::vector<TokenId> tokens;
  std::vector<std::size_t> begins;
  std::size_t spliced = 0;
};

template <typename Encode>
Split split_tokens(const Tokenizer& tokenizer, std::string_view text,
                   const std::vector<std::size_t>& prompts, Encode encode) {
  Split split;
  split.tokens = encode(text);
  bool whole = true;
  for (const std::size_t size : prompts) {
    const std::vector<TokenId> prompt = encode(text.substr(0, size));
    const bool fits = begins_with(split.tokens, prompt);
    whole = whole && fits;
    split.spliced += fits ? 0 : 1;
    split.begins.push_back(common_prefix(split.tokens, prompt));
  }
  if (whole) return split;
  // A token would reach over the border: cut the text there, as serving does.
  Split joined;
  joined.spliced = split.spliced;
  std::size_t at = 0;
  for (std::size_t i = 0; i <= prompts.size(); ++i) {
    const std::size_t end = i < prompts.size() ? prompts[i] : text.size();
    const std::string_view piece = text.substr(at, end - at);
    const auto more = i == 0 ? encode(piece) : formats::conversation_tokens(tokenizer, piece);
    joined.tokens.insert(joined.tokens.end(), more.begin(), more.end());
    if (i < prompts.size()) joined.begins.push_back(joined.tokens.size());
    at = end;
  }
  // Where a tokenizer puts a space before each text, the pieces spell another text: keep the whole.
  return tokenizer.decode(joined.tokens, true) == tokenizer.decode(split.tokens, true) ? joined
                                                                                       : split;
}

TokenId stop_token(const Tokenizer& tokenizer) {
  return tokenizer.eos() != kNoToken ? tokenizer.eos() : tokenizer.eot();
}

void append_stop(const Tokenizer& tokenizer, std::vector<TokenId>& tokens) {
  const TokenId stop = stop_token(tokenizer);
  const bool stopped = !tokens.empty() && tokenizer.is_end_of_generation(tokens.back());
  if (stop != kNoToken && !stopped) tokens.push_back(stop);
}

bool has_one_bos(const ExampleMaker& maker, const std::vector<TokenId>& tokens, bool must_have) {
  const TokenId bos = maker.tokenizer.bos();
  if (bos == kNoToken || tokens.empty()) return true;
  if (must_have && tokens[0] != bos) return false;
  // Where BOS opens every turn or also ends texts, two in a row are one too many; elsewhere any
  // second one is.
  const bool several =
      maker.conventions.bos_opens_turns || maker.tokenizer.is_end_of_generation(bos);
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    if (tokens[i] == bos && (!several || tokens[i - 1] == bos)) {
      return false;
    }
  }
  return true;
}

// Special tokens that a text of the data spells out, as "<|im_end|>" in an answer would.
std::size_t special_tokens_in(const Tokenizer& tokenizer, std::string_view text) {
  if (text.find_first_of("<[") == text.npos) return 0;
  const auto tokens = formats::conversation_tokens(tokenizer, text);
  return static_cast<std::size_t>(std::count_if(tokens.begin(), tokens.end(), [&](TokenId id) {
    return tokenizer.is_special(id) && id != tokenizer.vocabulary().unknown;
  }));
}

// Cuts to the length, fills the mask, counts; the end of every record's way.
Result<MadeExample> finish(const ExampleMaker& maker, const Record& record, MadeExample made,
                           const std::vector<Span>& answers) {
  Example& example = made.example;
  const std::size_t whole = example.tokens.size();
  const auto most = static_cast<std::size_t>(maker.length);
  example.truncated = whole > most;
  if (example.truncated) example.tokens.resize(most);
  example.learn.assign(example.tokens.size(), maker.everything ? 1 : 0);
  for (const Span& answer : answers) {
    for (std::size_t i = answer.begin; i < std::min(answer.end, most); ++i) example.learn[i] = 1;
    if (answer.end > most) continue;
    ++made.answers;
    const TokenId last = example.tokens[answer.end - 1];
    made.stopped += maker.tokenizer.is_end_of_generation(last) ? 1 : 0;
  }
  if (!example.learn.empty()) example.learn[0] = 0;  // nothing comes before it
  if (std::find(example.learn.begin(), example.learn.end(), 1) == example.learn.end()) {
    if (!example.truncated) {
      return unusable("nothing is left to learn", fmt::format("{} tokens, none with loss", whole),
                      "at least one token to predict");
    }
    return unusable("nothing is left to learn after truncation",
                    fmt::format("{} tokens, cut to {}, the answer lies behind", whole, most),
                    fmt::format("an answer that begins before token {}", most),
                    "raise --length, or shorten the prompt");
  }
  example.record = record.line != 0 ? record.line : record.number;
  return made;
}

// "user", "assistant" and "system" are every template's; others only where it spells them.
bool knows_role(const formats::ChatTemplate& chat, const std::string& role) {
  if (role == "user" || role == "assistant" || role == "system") return true;
  return chat.source().find("'" + role + "'") != std::string::npos ||
         chat.source().find("\"" + role + "\"") != std::string::npos;
}

Status check_roles(const ExampleMaker& maker, const Record& record) {
  for (const Turn& turn : record.turns) {
    if (knows_role(*maker.chat, turn.message.role)) continue;
    std::string known = "system, user, assistant";
    for (const char* role : {"tool", "developer"}) {
      if (knows_role(*maker.chat, role)) known += fmt::format(", {}", role);
    }
    return unusable("the chat template does not know a role",
                    fmt::format("\"{}\"", excerpt(turn.message.role)), known,
                    turn.message.role == "human" || turn.message.role == "gpt"
                        ? "call the roles user and assistant"
                        : "rename the role, or take the message out");
  }
  return {};
}

Status check_answers(const Record& record) {
  bool learns = false;
  for (std::size_t i = 0; i < record.turns.size(); ++i) {
    const Turn& turn = record.turns[i];
    if (!turn.learn) continue;
    learns = true;
    if (trimmed(turn.message.content).empty()) {
      return unusable("an answer is empty",
                      fmt::format("message {} of {}", i + 1, record.turns.size()),
                      "what the model shall say",
                      "take the record out: it would teach the model to say nothing");
    }
  }
  if (learns) return {};
  return unusable("there is no answer to learn from",
                  fmt::format("{} messages, none of an assistant that counts", record.turns.size()),
                  "a message of role assistant");
}

// Messages of others must be in the text; templates that know no system message leave it out.
Status check_nothing_lost(const Record& record, const std::string& text) {
  for (const Turn& turn : record.turns) {
    const std::string_view content = trimmed(turn.message.content);
    if (turn.message.role == "assistant" || text.find(content) != text.npos) continue;
    return unusable("the chat template leaves a message out",
                    fmt::format("role {}: \"{}\"", turn.message.role, excerpt(content)),
                    "every message in the text that the model sees",
                    "move it into the first user message");
  }
  return {};
}

// The end of the answer that begins at token `begin`: behind its first stop token. Templates
// without one are asked for the text up to this message.
Result<std::size_t> answer_end(const ExampleMaker& maker, const std::vector<Message>& messages,
                               std::size_t message, const Split& split, std::size_t begin,
                               std::size_t limit) {
  const Tokenizer& tokenizer = maker.tokenizer;
  for (std::size_t i = begin; i < limit && maker.conventions.closes_answers; ++i) {
    if (tokenizer.is_end_of_generation(split.tokens[i])) return i + 1;
  }
  if (message + 1 == messages.size()) return split.tokens.size();
  auto text = formats::conversation_text(
      *maker.chat, tokenizer, std::span(messages).first(message + 1), ConversationEnd::kClosed);
  if (!text) return text.error();
  const auto tokens = formats::conversation_tokens(tokenizer, *text);
  return std::clamp(common_prefix(split.tokens, tokens), begin, limit);
}

// Whether the answer reads in the whole text as it does while it is the last one: some templates
// leave the reasoning of earlier answers out, and a model that is to reason must not learn those.
// `begin` is where the answer begins, in bytes.
Result<bool> shows_alike(const ExampleMaker& maker, const std::vector<Message>& messages,
                         std::size_t answer, const std::string& text, std::size_t begin) {
  if (answer + 1 == messages.size()) return true;
  const auto last =
      formats::conversation_text(*maker.chat, maker.tokenizer,
                                 std::span(messages).first(answer + 1), ConversationEnd::kClosed);
  if (!last) return last.error();
  const std::string_view content = trimmed(messages[answer].content);
  const std::size_t found = last->find(content, std::min(begin, last->size()));
  const std::size_t end = found == std::string::npos ? last->size() : found + content.size();
  return text.compare(0, end, *last, 0, end) == 0;
}

Result<MadeExample> make_conversation(const ExampleMaker& maker, const Record& record) {
  HONE_RETURN_IF_ERROR(check_roles(maker, record));
  HONE_RETURN_IF_ERROR(check_answers(record));
  const Tokenizer& tokenizer = maker.tokenizer;
  std::vector<Message> messages;
  MadeExample made;
  for (const Turn& turn : record.turns) {
    messages.push_back(turn.message);
    made.foreign += special_tokens_in(tokenizer, turn.message.content);
  }
  const auto text =
      formats::conversation_text(*maker.chat, tokenizer, messages, ConversationEnd::kClosed);
  if (!text) return text.error();
  HONE_RETURN_IF_ERROR(check_nothing_lost(record, *text));

  std::vector<std::size_t> prompts;  // bytes
  std::vector<std::size_t> answers;  // messages
  for (std::size_t i = 0; i < record.turns.size(); ++i) {
    if (!record.turns[i].learn) continue;
    const auto served = formats::conversation_text(
        *maker.chat, tokenizer, std::span(messages).first(i), ConversationEnd::kOpen);
    if (!served) return served.error().in(fmt::format("before message {}", i + 1));
    const auto same = shows_alike(maker, messages, i, *text, served->size());
    if (!same) return same.error().in(fmt::format("at message {}", i + 1));
    if (text->starts_with(*served) && *same) {
      prompts.push_back(served->size());
      answers.push_back(i);
    } else {
      ++made.unserved;
    }
  }
  if (answers.empty()) {
    return unusable(
        "the template writes another prompt for serving than for training",
        fmt::format("{} answers, none behind the prompt that serving makes", made.unserved),
        "the served prompt at the beginning of the whole conversation",
        "use {\"text\"} records in the form that you will ask in");
  }
  Split split = split_tokens(tokenizer, *text, prompts, [&](std::string_view part) {
    return formats::conversation_tokens(tokenizer, part);
  });
  std::vector<Span> spans;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const std::size_t limit = i + 1 < answers.size() ? split.begins[i + 1] : split.tokens.size();
    const auto end = answer_end(maker, messages, answers[i], split, split.begins[i], limit);
    if (!end) return end.error();
    if (*end > split.begins[i]) spans.push_back({split.begins[i], *end});
  }
  if (!maker.conventions.closes_answers && answers.back() + 1 == messages.size()) {
    append_stop(tokenizer, split.tokens);
    if (!spans.empty()) spans.back().end = split.tokens.size();
  }
  made.spliced = split.spliced;
  made.example.tokens = std::move(split.tokens);
  made.one_bos = has_one_bos(maker, made.example.tokens, tokenizer.vocabulary().add_bos);
  return finish(maker, record, std::move(made), spans);
}

Result<MadeExample> make_completion(const ExampleMaker& maker, const Record& record) {
  if (!record.completes) {
    return Error{ErrorCode::kUnsupported,
                 "the model has no chat template, and the record is a conversation",
                 "",
                 fmt::format("shape \"{}\"", shape_name(record.shape)),
                 "prompt and completion, or text",
                 "tune an instruction model, or write the records as prompt and completion"};
  }
  if (trimmed(record.text).empty()) {
    return unusable("the completion is empty", "no text", "what the model shall write");
  }
  const Tokenizer& tokenizer = maker.tokenizer;
  MadeExample made;
  made.foreign =
      special_tokens_in(tokenizer, record.prompt) + special_tokens_in(tokenizer, record.text);
  Split split =
      split_tokens(tokenizer, record.prompt + record.text, {record.prompt.size()},
                   [&](std::string_view part) { return formats::prompt_tokens(tokenizer, part); });
  append_stop(tokenizer, split.tokens);
  made.spliced = split.spliced;
  made.example.tokens = std::move(split.tokens);
  made.one_bos = has_one_bos(maker, made.example.tokens, tokenizer.vocabulary().add_bos);
  const std::size_t end = made.example.tokens.size();
  return finish(maker, record, std::move(made), {{split.begins[0], end}});
}

Result<MadeExample> make_text(const ExampleMaker& maker, const Record& record) {
  if (trimmed(record.text).empty()) {
    return unusable("the text is empty", "no text", "what the model shall learn to write");
  }
  const Tokenizer& tokenizer = maker.tokenizer;
  // A text that was written by a template brings its BOS along.
  const bool has_bos =
      tokenizer.bos() != kNoToken && record.text.starts_with(tokenizer.piece(tokenizer.bos()));
  MadeExample made;
  made.example.tokens = has_bos ? formats::conversation_tokens(tokenizer, record.text)
                                : formats::prompt_tokens(tokenizer, record.text);
  // It also may bring its stop token, perhaps with a line end behind.
  const auto& tokens = made.example.tokens;
  const auto last = std::find_if(tokens.rbegin(), tokens.rend(),
                                 [&](TokenId id) { return !trimmed(tokenizer.piece(id)).empty(); });
  if (last == tokens.rend() || !tokenizer.is_end_of_generation(*last)) {
    append_stop(tokenizer, made.example.tokens);
  } else {
    made.example.tokens.resize(static_cast<std::size_t>(tokens.rend() - last));
  }
  made.one_bos = has_one_bos(maker, made.example.tokens, tokenizer.vocabulary().add_bos);
  const std::size_t end = made.example.tokens.size();
  return finish(maker, record, std::move(made), {{0, end}});
}

// "<|im_start|>" and their like in the text of a template.
void find_markers(std::string_view text, std::vector<std::string>& markers) {
  const auto add = [&markers](std::string_view marker) {
    if (std::find(markers.begin(), markers.end(), marker) == markers.end()) {
      markers.emplace_back(marker);
    }
  };
  constexpr std::size_t kLongest = 40;
  for (std::size_t at = text.find("<|"); at != text.npos; at = text.find("<|", at + 2)) {
    const std::size_t end = text.find("|>", at + 2);
    if (end == text.npos || end + 2 - at > kLongest) continue;
    const std::string_view marker = text.substr(at, end + 2 - at);
    if (marker.find_first_of(" \n") == marker.npos) add(marker);
  }
  for (const std::string_view marker : {"<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"}) {
    if (text.find(marker) != text.npos) add(marker);
  }
}

}  // namespace

Result<ExampleMaker> make_example_maker(const Tokenizer& tokenizer,
                                        const formats::ChatTemplate* chat, std::int64_t length,
                                        bool everything) {
  ExampleMaker maker{tokenizer, chat, length, everything, {}};
  Conventions& conventions = maker.conventions;
  for (const TokenId id : {tokenizer.bos(), stop_token(tokenizer)}) {
    if (id == kNoToken) continue;
    const std::string piece(tokenizer.piece(id));
    if (conventions.markers.empty() || conventions.markers[0] != piece) {
      conventions.markers.push_back(piece);
    }
  }
  if (chat == nullptr) return maker;
  const std::array<Message, 3> messages = {Message{"user", "one"}, Message{"assistant", "two"},
                                           Message{"user", "three"}};
  const auto tokens_of = [&](std::size_t count) -> Result<std::vector<TokenId>> {
    auto text = formats::conversation_text(*chat, tokenizer, std::span(messages).first(count),
                                           ConversationEnd::kClosed);
    if (!text) return text.error();
    if (count == messages.size()) conventions.probe = *text;
    return formats::conversation_tokens(tokenizer, *text);
  };
  const auto one = tokens_of(1);
  const auto two = tokens_of(2);
  const auto three = tokens_of(3);
  for (const auto* tokens : {&one, &two, &three}) {
    if (!*tokens) return tokens->error();
  }
  find_markers(conventions.probe, conventions.markers);
  const auto count = [](const std::vector<TokenId>& tokens, TokenId id) {
    return std::count(tokens.begin(), tokens.end(), id);
  };
  conventions.bos_opens_turns =
      tokenizer.bos() != kNoToken && count(*three, tokenizer.bos()) > count(*one, tokenizer.bos());
  const std::size_t begin = common_prefix(*one, *two);
  conventions.closes_answers =
      std::any_of(two->begin() + static_cast<std::ptrdiff_t>(begin), two->end(),
                  [&](TokenId id) { return tokenizer.is_end_of_generation(id); });
  return maker;
}

Result<MadeExample> make_example(const ExampleMaker& maker, const Record& record) {
  if (record.shape == Shape::kText) return make_text(maker, record);
  if (maker.chat == nullptr) return make_completion(maker, record);
  return make_conversation(maker, record);
}

std::vector<MadeExample> make_pieces(const ExampleMaker& maker, const std::string& text) {
  const Tokenizer& tokenizer = maker.tokenizer;
  std::vector<TokenId> tokens = formats::conversation_tokens(tokenizer, text);
  append_stop(tokenizer, tokens);
  const bool bos = tokenizer.vocabulary().add_bos && tokenizer.bos() != kNoToken;
  const std::size_t step = static_cast<std::size_t>(maker.length) - (bos ? 1 : 0);
  std::vector<MadeExample> pieces;
  for (std::size_t at = 0; at < tokens.size(); at += step) {
    MadeExample made;
    std::vector<TokenId>& piece = made.example.tokens;
    if (bos) piece.push_back(tokenizer.bos());
    const std::size_t end = std::min(at + step, tokens.size());
    piece.insert(piece.end(), tokens.begin() + static_cast<std::ptrdiff_t>(at),
                 tokens.begin() + static_cast<std::ptrdiff_t>(end));
    if (piece.size() < 2) break;  // one token alone predicts nothing
    made.example.learn.assign(piece.size(), 1);
    made.example.learn[0] = 0;
    made.example.record = pieces.size() + 1;
    made.one_bos = has_one_bos(maker, piece, bos);
    if (end == tokens.size()) {
      made.answers = 1;
      made.stopped = tokenizer.is_end_of_generation(piece.back()) ? 1 : 0;
    }
    pieces.push_back(std::move(made));
  }
  return pieces;
}

}  // namespace hone::tune
