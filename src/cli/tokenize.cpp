// hone tokenize: text to pieces and ids, and ids back to text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "cli/model_options.h"
#include "cli/registry.h"

namespace hone::cli {
namespace {

using formats::TokenId;
using formats::Tokenizer;

struct Options {
  std::string model;
  std::optional<std::string> text;
  std::string positional;
  std::optional<std::string> file;
  std::optional<std::string> decode;
  bool ids = false;
  bool no_special = false;
  bool no_parse = false;
};

void declare(Options& options, Arguments& arguments) {
  arguments.model(options.model);
  arguments.optional_positional("TEXT", options.positional,
                                "what to cut up; standard input without it and --file");
  arguments.option("--text", options.text, "the same as TEXT, for texts that begin with a dash");
  arguments.option("-f,--file", options.file, "read the text from a file", "FILE");
  arguments.flag("--ids", options.ids, "print the ids alone, on one line");
  arguments.flag("--no-special", options.no_special,
                 "add no beginning-of-sequence and end-of-sequence tokens");
  arguments.flag("--no-parse-special", options.no_parse,
                 "take texts like <|im_end|> as plain text");
  arguments.option("--decode", options.decode, "turn these ids into text instead", "IDS");
}

Result<std::vector<TokenId>> ids_of(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    if (*at == ' ' || *at == ',' || *at == '\n' || *at == '[' || *at == ']' || *at == '\t') {
      ++at;
      continue;
    }
    TokenId id = 0;
    const auto [next, code] = std::from_chars(at, end, id);
    const auto size = static_cast<TokenId>(tokenizer.vocabulary_size());
    if (code != std::errc() || id < 0 || id >= size) {
      return Error{code == std::errc() ? ErrorCode::kOutOfRange : ErrorCode::kInvalidArgument,
                   "this is no token id",
                   "--decode",
                   fmt::format("'{}'", std::string(at, end).substr(0, 20)),
                   fmt::format("numbers from 0 to {}, with spaces or commas between", size - 1),
                   ""};
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

Status decode(const Options& options, const Tokenizer& tokenizer, Output& output) {
  std::string text = *options.decode;
  if (text == "-") {
    auto read = read_text("-");
    if (!read) return read.error();
    text = *std::move(read);
  }
  const auto ids = ids_of(text, tokenizer);
  if (!ids) return ids.error();
  const std::string decoded = tokenizer.decode(*ids, !options.no_special);
  if (output.json()) {
    output.document(Json{{"ids", *ids}, {"text", decoded}});
  } else {
    output.print(decoded);  // exactly the bytes: no line end of our own
  }
  return {};
}

Result<std::string> text_of(const Options& options) {
  const int given =
      (options.text ? 1 : 0) + (options.positional.empty() ? 0 : 1) + (options.file ? 1 : 0);
  if (given > 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "the text is given twice",
                 "the command line",
                 "",
                 "one of TEXT, --text and --file",
                 ""};
  }
  if (options.text) return *options.text;
  if (!options.positional.empty()) return options.positional;
  return read_text(options.file.value_or("-"));
}

Status run(const Options& options, Output& output) {
  const auto source = engine::ModelSource::open(options.model);
  if (!source) return source.error();
  auto vocabulary = source->vocabulary();
  if (!vocabulary) return vocabulary.error();
  const auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return tokenizer.error();
  if (options.decode) return decode(options, *tokenizer, output);
  const auto text = text_of(options);
  if (!text) return text.error();
  const std::vector<TokenId> ids = tokenizer->encode(
      *text, {.add_special = !options.no_special, .parse_special = !options.no_parse});
  if (output.json()) {
    Json pieces = Json::array();
    for (const TokenId id : ids) pieces.push_back(tokenizer->piece(id));
    output.document(Json{{"count", ids.size()}, {"ids", ids}, {"pieces", pieces}});
    return {};
  }
  if (options.ids) {
    output.print(fmt::format("{}\n", fmt::join(ids, " ")));
    return {};
  }
  std::string lines;
  for (const TokenId id : ids) {
    // Line ends and tabs as escapes, so that a token is a line.
    std::string piece;
    for (const char letter : visible(tokenizer->piece(id))) {
      piece += letter == '\n' ? "\\n" : letter == '\t' ? "\\t" : std::string(1, letter);
    }
    lines += fmt::format("{:>8}  '{}'\n", id, piece);
  }
  output.print(lines);
  output.note(fmt::format("{} tokens, {} bytes", human_count(static_cast<std::int64_t>(ids.size())),
                          human_count(static_cast<std::int64_t>(text->size()))));
  return {};
}

}  // namespace

const Verb& tokenize_verb() {
  static const Verb kVerb =
      make_verb("tokenize", "text to tokens, and tokens back to text",
                "hone tokenize smollm2 \"Hello, world\"\nhone tokenize smollm2 --ids --file a.txt\n"
                "hone tokenize smollm2 --decode \"19556 28 905\"",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
