// Messages and prompts to tokens.
// SPDX-License-Identifier: Apache-2.0
#include "formats/conversation.h"

namespace hone::formats {

Result<std::string> conversation_text(const ChatTemplate& chat, const Tokenizer& tokenizer,
                                      std::span<const Message> messages, ConversationEnd end) {
  return chat.render(messages, end == ConversationEnd::kOpen, tokenizer.piece(tokenizer.bos()),
                     tokenizer.piece(tokenizer.eos()));
}

std::vector<TokenId> conversation_tokens(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, {.add_special = false, .parse_special = true});
}

std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, {.add_special = true, .parse_special = true});
}

}  // namespace hone::formats
