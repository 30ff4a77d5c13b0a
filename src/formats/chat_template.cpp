// Chat templates through third_party/chat_template, whose C interface is declared here.
// SPDX-License-Identifier: Apache-2.0
#include "formats/chat_template.h"

#include <cstdint>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

extern "C" {
struct HoneTemplate;
struct HoneAnswer {
  std::int32_t status;  // kOk and so on, below
  std::uint32_t line;   // of the template, from 1; 0 if unknown
  std::uint8_t* text;
  std::size_t size;
};
struct HoneLimits {
  std::uint64_t steps;
  std::uint64_t milliseconds;
  std::size_t bytes;  // of memory
  std::size_t text;   // bytes of the rendering
};
HoneAnswer hone_chat_template_compile(const std::uint8_t* source, std::size_t size,
                                      HoneLimits limits, HoneTemplate** handle);
HoneAnswer hone_chat_template_render(const HoneTemplate* handle, const std::uint8_t* variables,
                                     std::size_t size, HoneLimits limits);
void hone_chat_template_free(HoneTemplate* handle);
void hone_chat_text_free(std::uint8_t* text, std::size_t size);
}

namespace hone::formats {
namespace {

constexpr std::int32_t kOk = 0;
constexpr std::int32_t kRaised = 2;
constexpr std::int32_t kLimit = 3;
// A real template takes some tens of steps a message.
constexpr HoneLimits kLimits = {.steps = 5'000'000,
                                .milliseconds = 10'000,
                                .bytes = std::size_t{256} << 20,
                                .text = std::size_t{64} << 20};

const std::uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

// Takes the answer's text over.
Result<std::string> text_of(const HoneAnswer& answer) {
  std::string text(reinterpret_cast<const char*>(answer.text), answer.size);
  hone_chat_text_free(answer.text, answer.size);
  if (answer.status == kOk) return text;
  const std::string where =
      answer.line > 0 ? fmt::format("chat template, line {}", answer.line) : "chat template";
  if (answer.status == kRaised) {
    return Error{ErrorCode::kInvalidArgument,
                 "the chat template does not take this conversation",
                 where,
                 text,
                 "",
                 ""};
  }
  if (answer.status == kLimit) {
    return Error{
        ErrorCode::kOutOfRange,
        "the chat template takes too long or writes too much",
        where,
        text,
        fmt::format("at most {} steps, {} ms, {} MiB of memory, {} MiB of text", kLimits.steps,
                    kLimits.milliseconds, kLimits.bytes >> 20, kLimits.text >> 20),
        "give it a shorter conversation, or run without the template"};
  }
  return Error{ErrorCode::kCorrupt,
               "the chat template fails",
               where,
               text,
               "",
               "run without the template, or give another one"};
}

nlohmann::json json_text(std::string_view text) { return std::string(text); }

}  // namespace

struct ChatTemplate::State {
  HoneTemplate* handle = nullptr;  // the library's; freed here and nowhere else
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { hone_chat_template_free(handle); }
};

Result<ChatTemplate> ChatTemplate::compile(std::string source) {
  auto state = std::make_unique<State>();
  const HoneAnswer answer =
      hone_chat_template_compile(bytes_of(source), source.size(), kLimits, &state->handle);
  Result<std::string> text = text_of(answer);
  if (!text) return text.error();
  return ChatTemplate(std::move(source), std::move(state));
}

Result<std::string> ChatTemplate::render(std::span<const Message> messages,
                                         bool add_generation_prompt, std::string_view bos,
                                         std::string_view eos) const {
  nlohmann::json variables = nlohmann::json::object();
  nlohmann::json& list = variables["messages"] = nlohmann::json::array();
  for (const Message& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  variables["add_generation_prompt"] = add_generation_prompt;
  variables["bos_token"] = json_text(bos);
  variables["eos_token"] = json_text(eos);
  // Bytes that are not UTF-8 become U+FFFD: a template works on characters.
  return render_json(variables.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

Result<std::string> ChatTemplate::render_json(std::string_view variables) const {
  return text_of(
      hone_chat_template_render(state_->handle, bytes_of(variables), variables.size(), kLimits));
}

ChatTemplate::ChatTemplate(std::string source, std::unique_ptr<const State> state)
    : source_(std::move(source)), state_(std::move(state)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

}  // namespace hone::formats
