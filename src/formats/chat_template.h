// A model's own chat template (Jinja): messages to the one text that the model was trained on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hone::formats {

struct Message {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // UTF-8
};

// Immutable after compilation; render may be called from many threads at once. Rendering is bounded
// in steps, depth and length of the text, so that a hostile template ends with an error.
class ChatTemplate {
 public:
  // kCorrupt, with the line, for text that does not parse.
  static Result<ChatTemplate> compile(std::string source);

  // kInvalidArgument with the template's own words when it raises an exception ("Conversation roles
  // must alternate ..."), kCorrupt with the line when it fails otherwise.
  Result<std::string> render(std::span<const Message> messages, bool add_generation_prompt,
                             std::string_view bos, std::string_view eos) const;

  // `variables` is a JSON object: "messages", and whatever else the template reads ("tools",
  // "add_generation_prompt", "bos_token", "eos_token", "date_string").
  Result<std::string> render_json(std::string_view variables) const;

  const std::string& source() const { return source_; }

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct State;
  ChatTemplate(std::string source, std::unique_ptr<const State> state);
  std::string source_;
  std::unique_ptr<const State> state_;
};

}  // namespace hone::formats
