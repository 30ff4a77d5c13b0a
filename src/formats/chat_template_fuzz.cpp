// Fuzzes compiling and rendering chat templates: the bytes up to the first zero are the template,
// what follows is the content of a message.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "formats/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using hone::formats::Message;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string content(input.substr(std::min(end + 1, input.size())));
  const auto compiled = hone::formats::ChatTemplate::compile(std::string(input.substr(0, end)));
  if (!compiled) return 0;
  const std::array<Message, 3> messages = {Message{"system", "Be brief."}, Message{"user", content},
                                           Message{"assistant", "Yes."}};
  (void)compiled->render(messages, true, "<s>", "</s>").ok();
  return 0;
}
