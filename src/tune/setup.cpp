// SPDX-License-Identifier: Apache-2.0
#include "tune/setup.h"

#include "base/random.h"

namespace hone::tune {

Result<TrainingSetup> make_setup(const std::string& model, const engine::SessionOptions& how,
                                 const MethodOptions& method, TrainerOptions options,
                                 std::span<const Example> examples) {
  TrainingSetup out;
  auto session = engine::Session::open(model, how);
  if (!session) return session.error();
  out.session = *std::move(session);
  auto trained = prepare(*out.session, method);
  if (!trained) return trained.error();
  out.trained = std::make_unique<Trained>(*std::move(trained));
  options.compile = out.session->options().compile;
  auto trainer = Trainer::create(*out.session, *out.trained, examples, std::move(options));
  if (!trainer) return trainer.error();
  out.trainer = *std::move(trainer);
  return out;
}

std::vector<Example> random_examples(std::int64_t count, std::int64_t length,
                                     std::int64_t vocabulary, std::uint64_t seed) {
  Random random(seed);
  std::vector<Example> examples;
  for (std::int64_t i = 0; i < count; ++i) {
    Example example;
    for (std::int64_t j = 0; j < length; ++j) {
      example.tokens.push_back(
          static_cast<formats::TokenId>(random.below(static_cast<std::uint32_t>(vocabulary))));
      example.learn.push_back(j > 0 ? 1 : 0);
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

TrainerOptions plain_options(std::string_view rule, double learning_rate, std::int64_t batch) {
  TrainerOptions options;
  options.rule = optim::find_rule(rule);
  if (options.rule != nullptr) options.settings = optim::Settings(options.rule->defaults);
  options.schedule.learning_rate = learning_rate;
  options.batch = batch;
  return options;
}

}  // namespace hone::tune
