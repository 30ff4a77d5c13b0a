// Chat templates against jinja2 as transformers sets it up (tests/golden/chat_template/make.py).
// SPDX-License-Identifier: Apache-2.0
#include "formats/chat_template.h"

#include <array>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include "base/file.h"

namespace hone::formats {
namespace {

Result<std::string> render(std::string source, std::string_view variables = "{}") {
  auto compiled = ChatTemplate::compile(std::move(source));
  if (!compiled) return compiled.error();
  return compiled->render_json(variables);
}

TEST(ChatTemplate, RendersWhatJinjaDoes) {
  const auto text =
      read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/chat_template/golden.json");
  ASSERT_TRUE(text.ok()) << text.error().text();
  const auto golden = nlohmann::ordered_json::parse(*text);
  ASSERT_GE(golden["cases"].size(), 60u);
  for (const auto& expected : golden["cases"]) {
    const std::string name = expected["template"];
    const std::string conversation = expected["conversation"];
    auto variables = golden["conversations"][conversation];
    variables["bos_token"] = "<s>";
    variables["eos_token"] = "</s>";
    const auto rendered = render(golden["templates"][name], variables.dump());
    const std::string label = name + " with " + conversation;
    if (expected.contains("error")) {
      ASSERT_FALSE(rendered.ok()) << label << " gave: " << *rendered;
      continue;
    }
    ASSERT_TRUE(rendered.ok()) << label << ": " << rendered.error().text();
    EXPECT_EQ(*rendered, expected["text"].get<std::string>()) << label;
  }
}

TEST(ChatTemplate, TakesMessages) {
  const auto compiled = ChatTemplate::compile(
      "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}"
      "{% endfor %}{% if add_generation_prompt %}?{% endif %}");
  ASSERT_TRUE(compiled.ok()) << compiled.error().text();
  const std::array<Message, 2> messages = {Message{"user", "a\n\"b\" {{ c }}"},
                                           Message{"assistant", "\xFF"}};
  const auto rendered = compiled->render(messages, true, "<s>", "</s>");
  ASSERT_TRUE(rendered.ok()) << rendered.error().text();
  EXPECT_EQ(*rendered, "<s>user:a\n\"b\" {{ c }}</s>assistant:\uFFFD</s>?");
  EXPECT_EQ(*compiled->render(messages, false, "", ""), "user:a\n\"b\" {{ c }}assistant:\uFFFD");
}

TEST(ChatTemplate, ErrorsCarryTheLineAndTheTemplatesWords) {
  const auto broken = ChatTemplate::compile("one\ntwo {% if %}\n");
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(broken.error().where.find("line 2"), std::string::npos) << broken.error().text();

  const auto raised = render("a\nb\n{{ raise_exception('roles must alternate') }}");
  ASSERT_FALSE(raised.ok());
  EXPECT_EQ(raised.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(raised.error().found, "roles must alternate");
  EXPECT_NE(raised.error().where.find("line 3"), std::string::npos) << raised.error().text();

  EXPECT_FALSE(render("{{ x.y.z }}").ok());
  EXPECT_FALSE(render("{{ 1 }}", "{ not json").ok());
  EXPECT_FALSE(ChatTemplate::compile("\xFF").ok());
}

TEST(ChatTemplate, HostileTemplatesEnd) {
  const auto endless = render(
      "{% for a in range(9000) %}{% for b in range(9000) %}{% set c = b %}{% endfor %}"
      "{% endfor %}");
  ASSERT_FALSE(endless.ok());
  EXPECT_EQ(endless.error().code, ErrorCode::kOutOfRange) << endless.error().text();
  const auto recursive = render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  EXPECT_FALSE(recursive.ok());
  const auto doubling = render(
      "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}"
      "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}");
  ASSERT_FALSE(doubling.ok());
  EXPECT_FALSE(render("{{ 'x' * 99999999999 }}").ok());
  EXPECT_FALSE(render("{{ " + std::string(10'000, '(')).ok());
}

TEST(ChatTemplate, KnowsTheDate) {
  const auto rendered = render("{{ strftime_now('%d %b %Y') }}");
  ASSERT_TRUE(rendered.ok()) << rendered.error().text();
  EXPECT_EQ(rendered->size(), 11u) << *rendered;
}

}  // namespace
}  // namespace hone::formats
