// A borrowed callable: two words, no allocation, one indirect call. Valid while the callable lives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace hone {

template <typename Signature>
class FunctionRef;

template <typename R, typename... Arguments>
class FunctionRef<R(Arguments...)> {
  template <typename F>
  using OtherCallable =
      std::enable_if_t<!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> &&
                       std::is_object_v<std::remove_reference_t<F>> &&  // no bare function
                       std::is_invocable_r_v<R, F&, Arguments...>>;

 public:
  FunctionRef() = default;

  // Implicit, so that a lambda can be passed where a FunctionRef is asked for.
  template <typename F, typename = OtherCallable<F>>
  FunctionRef(F&& callable)  // NOLINT(google-explicit-constructor)
      : callable_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, Arguments... arguments) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(
              std::forward<Arguments>(arguments)...);
        }) {}

  R operator()(Arguments... arguments) const {
    return call_(callable_, std::forward<Arguments>(arguments)...);
  }

 private:
  void* callable_ = nullptr;
  R (*call_)(void*, Arguments...) = nullptr;
};

}  // namespace hone
