// Adapters of a population side by side: each sequence gets, bit for bit, what its member's adapter
// gives alone.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "support.h"

namespace hone::testing_adapters {
namespace {

using engine::Request;
using engine::Session;
using engine::Wanted;
using testing_models::golden_folder;
using testing_models::golden_tokens;
using testing_models::quantized_copy;

constexpr std::size_t kMembers = 5;

std::unique_ptr<Session> open(const std::string& model) {
  engine::SessionOptions options;
  options.threads = 2;
  options.budget = 1024;
  auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << session.error().text();
  return session ? *std::move(session) : nullptr;
}

std::vector<Adapter> population(const Session& session, bool shared_a) {
  std::vector<Adapter> members;
  for (std::size_t m = 0; m < kMembers; ++m) {
    members.push_back(random_adapter(session.source(), "all", 2, 10 + m));
    members.back().alpha = 1 + static_cast<double>(m);
    if (!shared_a) continue;
    for (auto& [name, weight] : members[m].weights) weight.a = members[0].weights.at(name).a;
  }
  return members;
}

// The last logits of a prompt, then of two more tokens, one at a time.
using Steps = std::vector<std::vector<float>>;

void run(Session& session, std::span<const std::int64_t> of_members, std::vector<Steps>& out) {
  const auto tokens = golden_tokens("llama");
  const auto width = static_cast<std::size_t>(session.config().vocabulary);
  std::vector<engine::SequenceId> ids;
  for (const std::int64_t member : of_members) ids.push_back(session.begin(member));
  const std::size_t prompt = tokens.size() - 2;
  for (std::size_t begin = 0, count = prompt; begin < tokens.size(); begin += count, count = 1) {
    count = begin == 0 ? prompt : 1;
    std::vector<Request> requests;
    for (const engine::SequenceId id : ids) {
      requests.push_back({id, std::span(tokens).subspan(begin, count), Wanted::kLast});
    }
    const auto logits = session.step(requests);
    ASSERT_TRUE(logits.ok()) << logits.error().text();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto row = logits->subspan(i * width, width);
      out[i].emplace_back(row.begin(), row.end());
    }
  }
  for (const engine::SequenceId id : ids) session.end(id);
}

TEST(Population, EachMemberGetsWhatItGetsAlone) {
  for (const char* family : {"llama", "gemma3"}) {
    for (const bool shared_a : {true, false}) {
      const auto session = open(quantized_copy(family, DType::kQ4_1));
      const std::vector<Adapter> members = population(*session, shared_a);
      std::vector<Steps> alone(kMembers);
      for (std::size_t m = 0; m < kMembers; ++m) {
        ASSERT_TRUE(session->attach(members[m]).ok());
        std::vector<Steps> one(1);
        run(*session, std::vector<std::int64_t>{0}, one);
        alone[m] = one[0];
        if (m > 0) {
          EXPECT_NE(alone[m], alone[0]);
        }
      }
      ASSERT_TRUE(session->attach_population(members).ok());
      EXPECT_EQ(session->members(), std::int64_t{kMembers});
      const std::vector<std::int64_t> order{3, 0, 4, 1, 2, 3};
      std::vector<Steps> together(order.size());
      run(*session, order, together);
      for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(together[i], alone[static_cast<std::size_t>(order[i])])
            << family << (shared_a ? ", one A" : "") << ", member " << order[i];
      }
      // A second population of the same form compiles nothing.
      const std::int64_t compiled = session->compiled_programs();
      ASSERT_TRUE(session->attach_population(population(*session, shared_a)).ok());
      std::vector<Steps> again(order.size());
      run(*session, order, again);
      EXPECT_EQ(again, together);
      EXPECT_EQ(session->compiled_programs(), compiled);
    }
  }
}

TEST(Population, RefusesWhatIsNone) {
  const auto session = open(golden_folder("llama"));
  EXPECT_FALSE(session->attach_population({}).ok());
  std::vector<Adapter> mixed{random_adapter(session->source(), "all", 2, 1),
                             random_adapter(session->source(), "all", 3, 2)};
  EXPECT_FALSE(session->attach_population(mixed).ok());
  mixed[1] = random_adapter(session->source(), "q", 2, 2);
  EXPECT_FALSE(session->attach_population(mixed).ok());
  mixed[1] = random_adapter(session->source(), "all", 2, 2, AdapterKind::kDora);
  EXPECT_FALSE(session->attach_population(mixed).ok());
  const std::vector<engine::TokenId> tokens{1};
  const Request stranger{session->begin(1), tokens, Wanted::kLast};
  const auto step = session->step(std::span(&stranger, 1));
  ASSERT_FALSE(step.ok());
  EXPECT_EQ(step.error().code, ErrorCode::kOutOfRange);
}

}  // namespace
}  // namespace hone::testing_adapters
