// Messages and prompts to tokens: the one way that answering and training share, so that a model
// is tuned on exactly what it will be asked with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/chat_template.h"
#include "formats/tokenizer.h"

namespace hone::formats {

// What a conversation ends with.
enum class ConversationEnd : std::uint8_t {
  kClosed,  // its last message
  kOpen,    // the beginning of the assistant's next answer
};

// The messages as the text that the model was trained on.
Result<std::string> conversation_text(const ChatTemplate& chat, const Tokenizer& tokenizer,
                                      std::span<const Message> messages, ConversationEnd end);

// Tokens of such a text. The template writes the beginning-of-sequence token itself where it wants
// one, so none is added.
std::vector<TokenId> conversation_tokens(const Tokenizer& tokenizer, std::string_view text);

// Tokens of a text that a model is to go on with as it is, without a template.
std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, std::string_view text);

}  // namespace hone::formats
