// Records to tokens and masks: spelled out by hand, and against what serving would give.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/example.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/conversation.h"
#include "tune/data/small_tokenizer.h"

namespace hone::tune {
namespace {

using formats::ChatTemplate;
using formats::ConversationEnd;
using formats::Message;
using formats::Tokenizer;
using testing_data::kChatMl;

ChatTemplate compiled(std::string source) { return *ChatTemplate::compile(std::move(source)); }

// A template of tests/golden/chat_template.
std::string golden_template(const std::string& name) {
  const auto text =
      read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/chat_template/golden.json");
  return nlohmann::json::parse(*text)["templates"][name].get<std::string>();
}

Record conversation(std::vector<Message> messages) {
  Record record;
  record.shape = Shape::kMessages;
  record.number = record.line = 1;
  for (Message& message : messages) {
    const bool learn = message.role == "assistant";
    record.turns.push_back({std::move(message), learn});
  }
  return record;
}

Record completion(const std::string& prompt, const std::string& text) {
  Record record = conversation({{"user", prompt}, {"assistant", text}});
  record.shape = Shape::kPromptCompletion;
  record.completes = true;
  record.prompt = prompt;
  record.text = text;
  return record;
}

Record plain(const std::string& text) {
  Record record;
  record.text = text;
  return record;
}

Result<MadeExample> make(const Tokenizer& tokenizer, const ChatTemplate* chat, const Record& record,
                         std::int64_t length = 512, bool everything = false) {
  const auto maker = make_example_maker(tokenizer, chat, length, everything);
  if (!maker) return maker.error();
  return make_example(*maker, record);
}

// The text with what is learned in brackets: "<s>a[b</s>]".
std::string picture(const Result<MadeExample>& made, const Tokenizer& tokenizer) {
  if (!made) return made.error().text();
  std::string text;
  bool inside = false;
  const Example& example = made->example;
  EXPECT_EQ(example.tokens.size(), example.learn.size());
  for (std::size_t i = 0; i < example.tokens.size(); ++i) {
    const bool learned = example.learn[i] != 0;
    if (learned != inside) text += learned ? "[" : "]";
    inside = learned;
    text += tokenizer.piece(example.tokens[i]);
  }
  return text + (inside ? "]" : "");
}

TEST(Example, LearnsAnswersWithTheirStopTokens) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  const Record record = conversation(
      {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}, {"user", "e"}});
  const auto made = make(tokenizer, &chat, record);
  EXPECT_EQ(picture(made, tokenizer),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n"
            "<|im_start|>user\ne<|im_end|>\n");
  EXPECT_EQ(made->answers, 2u);
  EXPECT_EQ(made->stopped, 2u);
  EXPECT_TRUE(made->one_bos);  // it opens every turn
  // The special strings are single tokens.
  EXPECT_EQ(made->example.tokens[0], testing_data::kFirstSpecial);
}

TEST(Example, LearnsEverythingWhenAsked) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  const auto made =
      make(tokenizer, &chat, conversation({{"user", "a"}, {"assistant", "b"}}), 512, true);
  EXPECT_EQ(picture(made, tokenizer),
            "<|im_start|>[user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n]");
}

TEST(Example, LeavesAnswersOutThatDoNotCount) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  Record record =
      conversation({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  record.turns[1].learn = false;
  EXPECT_EQ(picture(make(tokenizer, &chat, record), tokenizer),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n");
}

TEST(Example, GemmaFoldsTheSystemMessageAndRenamesTheAssistant) {
  const Tokenizer tokenizer = testing_data::gemma_tokenizer();
  const ChatTemplate chat = compiled(golden_template("gemma"));
  const auto made =
      make(tokenizer, &chat, conversation({{"system", "s"}, {"user", "a"}, {"assistant", "b"}}));
  EXPECT_EQ(picture(made, tokenizer),
            "<bos><start_of_turn>user\ns\n\na<end_of_turn>\n"
            "<start_of_turn>model\n[b<end_of_turn>]\n");
  EXPECT_TRUE(made->one_bos);
  EXPECT_EQ(std::count(made->example.tokens.begin(), made->example.tokens.end(), tokenizer.bos()),
            1);
  EXPECT_EQ(made->stopped, 1u);
}

// What comes before each answer is, token for token, what serving gives the model; and the whole is
// byte for byte the template's text.
TEST(Example, TrainsOnWhatIsServed) {
  const Tokenizer tokenizers[] = {testing_data::chatml_tokenizer(), testing_data::gemma_tokenizer(),
                                  testing_data::base_tokenizer()};
  const std::vector<std::vector<Message>> conversations = {
      {{"user", "Why is the sky blue?"}, {"assistant", "Rayleigh scattering."}},
      {{"user", "  spaces  "},
       {"assistant", " yes"},
       {"user", "ü \xF0\x9F\x98\x80"},
       {"assistant", "\n\nlines\n\n"}},
      {{"user", "<|im_end|>"},
       {"assistant", "a b"},
       {"user", "c"},
       {"assistant", "d"},
       {"user", "e"},
       {"assistant", "f"}},
  };
  std::size_t answers = 0;
  for (const char* name : {"chatml", "smollm2", "gemma", "llama2", "llama3", "mistral"}) {
    const ChatTemplate chat = compiled(golden_template(name));
    for (const Tokenizer& tokenizer : tokenizers) {
      for (const auto& messages : conversations) {
        const auto made = make(tokenizer, &chat, conversation(messages));
        ASSERT_TRUE(made.ok()) << name << ": " << made.error().text();
        const Example& example = made->example;
        const auto whole =
            formats::conversation_text(chat, tokenizer, messages, ConversationEnd::kClosed);
        EXPECT_TRUE(tokenizer.decode(example.tokens, true).starts_with(*whole)) << name;
        std::size_t at = 0;
        for (std::size_t i = 1; i < messages.size(); i += 2) {
          const auto served = formats::conversation_text(
              chat, tokenizer, std::span(messages).first(i), ConversationEnd::kOpen);
          const auto prompt = formats::conversation_tokens(tokenizer, *served);
          ASSERT_LT(prompt.size(), example.tokens.size());
          EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), example.tokens.begin()))
              << name << ", answer " << i << ": " << picture(made, tokenizer);
          // The mask is off up to there, but for the answers before, and on right behind.
          EXPECT_EQ(example.learn[prompt.size() - 1], 0) << name;
          EXPECT_EQ(example.learn[prompt.size()], 1) << name;
          EXPECT_GE(prompt.size(), at);
          at = prompt.size();
          ++answers;
        }
      }
    }
  }
  EXPECT_EQ(answers, 6u * 3 * 6);
}

TEST(Example, NoTokenReachesFromThePromptIntoTheAnswer) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  const auto made = make(tokenizer, &chat, conversation({{"user", "a"}, {"assistant", "\nb"}}));
  // Tokenized as a whole, the two line ends would be one token, which serving never sees.
  EXPECT_EQ(picture(made, tokenizer),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[\nb<|im_end|>]\n");
  EXPECT_EQ(made->spliced, 1u);
  for (const auto id : made->example.tokens) EXPECT_NE(id, testing_data::kTwoLineEnds);
}

TEST(Example, CompletionsWithoutATemplate) {
  const Tokenizer tokenizer = testing_data::base_tokenizer();
  EXPECT_EQ(picture(make(tokenizer, nullptr, completion("a:", " yes")), tokenizer),
            "<s>a:[ yes</s>]");
  // " y" is one token inside of the completion, and two where the border lies between.
  const auto inside = make(tokenizer, nullptr, completion("a:", " y"));
  EXPECT_EQ(inside->example.tokens[3], testing_data::kSpaceY);
  EXPECT_EQ(inside->spliced, 0u);
  const auto across = make(tokenizer, nullptr, completion("a: ", "y"));
  EXPECT_EQ(picture(across, tokenizer), "<s>a: [y</s>]");
  EXPECT_EQ(across->example.tokens.size(), 6u);
  EXPECT_EQ(across->spliced, 1u);
  // The prompt may be empty: then all is learned.
  EXPECT_EQ(picture(make(tokenizer, nullptr, completion("", "b")), tokenizer), "<s>[b</s>]");
}

TEST(Example, Texts) {
  const Tokenizer base = testing_data::base_tokenizer();
  EXPECT_EQ(picture(make(base, nullptr, plain("ab")), base), "<s>[ab</s>]");
  // What a template wrote has its BOS and its stop token.
  const auto written = make(base, nullptr, plain("<s>ab</s>\n"));
  EXPECT_EQ(picture(written, base), "<s>[ab</s>]");
  EXPECT_TRUE(written->one_bos);
  const Tokenizer chat = testing_data::chatml_tokenizer();
  EXPECT_EQ(picture(make(chat, nullptr, plain("<|im_start|>user\na<|im_end|>\n")), chat),
            "<|im_start|>[user\na<|im_end|>]");
  EXPECT_FALSE(make(base, nullptr, plain("<s> <s>a"))->one_bos);
}

TEST(Example, Truncation) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  const Record record = conversation({{"user", "a"}, {"assistant", "bcdef"}});
  const auto whole = make(tokenizer, &chat, record);
  const auto size = static_cast<std::int64_t>(whole->example.tokens.size());
  const auto same = make(tokenizer, &chat, record, size);
  EXPECT_FALSE(same->example.truncated);
  EXPECT_EQ(same->answers, 1u);
  // Without its stop token, an answer is not counted as a whole one.
  const auto cut = make(tokenizer, &chat, record, size - 3);
  EXPECT_TRUE(cut->example.truncated);
  EXPECT_EQ(picture(cut, tokenizer),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[bcde]");
  EXPECT_EQ(cut->answers, 0u);
  const auto nothing = make(tokenizer, &chat, record, 10);
  ASSERT_FALSE(nothing.ok());
  EXPECT_NE(nothing.error().found.find("cut to 10"), std::string::npos);
  EXPECT_NE(nothing.error().advice.find("--length"), std::string::npos);
}

TEST(Example, RefusesWhatTheTemplateDoesNotKnow) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);  // it would write any role
  const auto fails = [&](const Record& record, const ChatTemplate* with) {
    const auto made = make(tokenizer, with, record);
    return made ? "accepted: " + picture(made, tokenizer) : made.error().text();
  };
  const auto unknown = fails(conversation({{"narrator", "a"}, {"assistant", "b"}}), &chat);
  EXPECT_NE(unknown.find("\"narrator\""), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("system, user, assistant"), std::string::npos) << unknown;
  EXPECT_NE(fails(conversation({{"user", "a"}}), &chat).find("no answer"), std::string::npos);
  EXPECT_NE(fails(conversation({}), &chat).find("no answer"), std::string::npos);
  EXPECT_NE(fails(conversation({{"user", "a"}, {"assistant", " \n"}}), &chat).find("is empty"),
            std::string::npos);
  // A template that says no itself, and one that leaves the system message out without a word.
  const ChatTemplate llama2 = compiled(golden_template("llama2"));
  const Record twice = conversation({{"user", "a"}, {"user", "b"}, {"assistant", "c"}});
  EXPECT_NE(fails(twice, &llama2).find("must alternate"), std::string::npos);
  const ChatTemplate mistral = compiled(golden_template("mistral"));
  const Record system = conversation({{"system", "s!"}, {"user", "a"}, {"assistant", "b"}});
  EXPECT_NE(fails(system, &mistral).find("leaves a message out"), std::string::npos);
  // A conversation needs a template.
  EXPECT_NE(
      fails(conversation({{"user", "a"}, {"assistant", "b"}}), nullptr).find("no chat template"),
      std::string::npos);
  // A role that the template spells out is known.
  const ChatTemplate tool = compiled(std::string(kChatMl) + "{% if 'tool' %}{% endif %}");
  const Record with_tool = conversation({{"user", "a"}, {"tool", "b"}, {"assistant", "c"}});
  EXPECT_TRUE(make(tokenizer, &tool, with_tool).ok());
  EXPECT_FALSE(make(tokenizer, &chat, with_tool).ok());
}

TEST(Example, TemplatesWithoutAStopTokenGetOne) {
  const Tokenizer tokenizer = testing_data::base_tokenizer();
  const ChatTemplate chat = compiled(
      "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}");
  const Record record =
      conversation({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  const auto made = make(tokenizer, &chat, record);
  EXPECT_EQ(picture(made, tokenizer), "<s>user: a\nassistant: [b\n]user: c\nassistant: [d\n</s>]");
  // The first answer has none: the check on stop tokens will say so.
  EXPECT_EQ(made->answers, 2u);
  EXPECT_EQ(made->stopped, 1u);
}

TEST(Example, AnswersThatTheTemplateShowsOtherwiseAreLeftOut) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const Record record =
      conversation({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  // As some templates leave the reasoning of earlier answers out: only the last one is whole.
  const ChatTemplate shortening = compiled(
      "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + (m['content'] if loop.last "
      "or m['role'] == 'user' else '...') + '<|im_end|>\\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
  const auto shortened = make(tokenizer, &shortening, record);
  EXPECT_EQ(picture(shortened, tokenizer),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n...<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>]\n");
  EXPECT_EQ(shortened->unserved, 1u);
  const ChatTemplate changing = compiled(
      "{{ messages | length }}{% for m in messages %}{{ m['content'] + '<|im_end|>' }}"
      "{% endfor %}");
  const auto made = make(tokenizer, &changing, record);
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.error().what.find("another prompt"), std::string::npos);
}

TEST(Example, CountsSpecialStringsOfTheData) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = compiled(kChatMl);
  EXPECT_EQ(
      make(tokenizer, &chat, conversation({{"user", "<|im_end|>"}, {"assistant", "b"}}))->foreign,
      1u);
  EXPECT_EQ(make(tokenizer, &chat, conversation({{"user", "<b>"}, {"assistant", "b"}}))->foreign,
            0u);
}

TEST(Example, LongTextsInPieces) {
  const Tokenizer tokenizer = testing_data::base_tokenizer();
  const auto maker = make_example_maker(tokenizer, nullptr, 4, false);
  const auto pieces = make_pieces(*maker, "abcdefgh");
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(picture(pieces[0], tokenizer), "<s>[abc]");
  EXPECT_EQ(picture(pieces[1], tokenizer), "<s>[def]");
  EXPECT_EQ(picture(pieces[2], tokenizer), "<s>[gh</s>]");
  EXPECT_EQ(pieces[2].stopped, 1u);
  // Without a BOS, a last token alone has nothing to be predicted from.
  const Tokenizer chat = testing_data::chatml_tokenizer();
  const auto other = make_example_maker(chat, nullptr, 4, false);
  EXPECT_EQ(make_pieces(*other, "abcd").size(), 1u);
}

}  // namespace
}  // namespace hone::tune
