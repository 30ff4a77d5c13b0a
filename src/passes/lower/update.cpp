// Lowering of `update`: the step that training gave for the parameter, on its own memory.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {

Result<runtime::StepFunction> lower_update(Lowering& lowering, const ir::Operation& operation) {
  const runtime::Place parameter = lowering.place(operation.operands[0]);
  const runtime::Place gradient = lowering.place(operation.operands[1]);
  const std::string name(operation.attributes.text("name"));
  if (parameter.space != runtime::Space::kParameter || !lowering.options().update) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("there is no update rule for '{}'", name),
                 "lowering",
                 "",
                 "a parameter of the model, and a rule in the options",
                 ""};
  }
  const auto count = static_cast<std::size_t>(lowering.type(operation.operands[0]).elements());
  return runtime::StepFunction([=, step = lowering.options().update(name)](
                                   const runtime::Frame& frame, runtime::Worker worker) {
    const std::span<std::byte> bytes = frame.weights[parameter.at]->writable;
    if (bytes.size() < count * sizeof(float)) return;  // a weight that nobody may change
    step({reinterpret_cast<float*>(bytes.data()), count},
         frame.read_floats(gradient, worker.thread).first(count), worker);
  });
}

}  // namespace hone::passes
