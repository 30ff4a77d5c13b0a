// SPDX-License-Identifier: Apache-2.0
#include "tune/stories.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "base/random.h"

namespace hone::tune {
namespace {

struct Person {
  std::string_view name, she, her, kind;
};

constexpr std::array kPeople = {
    Person{"Mia", "she", "her", "girl"},     Person{"Tom", "he", "his", "boy"},
    Person{"Lily", "she", "her", "girl"},    Person{"Ben", "he", "his", "boy"},
    Person{"Anna", "she", "her", "girl"},    Person{"Max", "he", "his", "boy"},
    Person{"Sue", "she", "her", "girl"},     Person{"Jack", "he", "his", "boy"},
    Person{"Rosie", "she", "her", "rabbit"}, Person{"Bruno", "he", "his", "bear"},
    Person{"Pip", "he", "his", "mouse"},     Person{"Tilly", "she", "her", "duck"},
};
constexpr std::array<std::string_view, 10> kPlaces = {
    "in the garden", "at the park",      "by the river",      "in the kitchen", "near the big tree",
    "on the hill",   "in the old house", "behind the school", "at the beach",   "in the forest"};
constexpr std::array<std::string_view, 12> kThings = {"ball",  "kite", "book",  "cake",
                                                      "hat",   "drum", "boat",  "flower",
                                                      "stone", "box",  "apple", "lamp"};
constexpr std::array<std::string_view, 8> kColors = {"red",   "blue",  "green", "yellow",
                                                     "shiny", "small", "big",   "old"};
constexpr std::array<std::string_view, 8> kFeelings = {"happy", "sad",  "tired",   "proud",
                                                       "brave", "cold", "curious", "hungry"};
constexpr std::array<std::string_view, 6> kWeather = {
    "The sun was warm.",       "It was raining a little.", "The wind was strong.",
    "Snow lay on the ground.", "The sky was blue.",        "It was almost night."};
constexpr std::array<std::string_view, 6> kLessons = {
    "it is good to share", "friends help each other",       "you must never give up",
    "it is good to ask",   "small things can be wonderful", "telling the truth is best"};

template <typename List>
const auto& pick(const List& list, Random& random) {
  return list[random.below(static_cast<std::uint32_t>(list.size()))];
}

std::string upper(std::string_view word) {
  std::string out(word);
  out[0] = static_cast<char>(out[0] - 'a' + 'A');
  return out;
}

std::string story(Random& random) {
  const Person& hero = pick(kPeople, random);
  const Person* friend_of = &pick(kPeople, random);
  while (friend_of->name == hero.name) friend_of = &pick(kPeople, random);
  const auto thing = pick(kThings, random);
  const auto color = pick(kColors, random);
  const auto place = pick(kPlaces, random);
  const std::string she = upper(hero.she);
  std::string out = fmt::format("Once there was a little {} named {}. ", hero.kind, hero.name);
  switch (random.below(3)) {
    case 0:
      out += fmt::format("{} had a {} {} and loved it very much. One day {} played {}. {} ", she,
                         color, thing, hero.she, place, pick(kWeather, random));
      out +=
          fmt::format("Then the {} was gone! {} was sad and looked everywhere. ", thing, hero.name);
      out += fmt::format("{} saw {} and came to help. \"Is this your {} {}?\" said {}. ",
                         friend_of->name, hero.name, color, thing, friend_of->name);
      out += fmt::format("\"Yes, thank you!\" said {}. ", hero.name);
      break;
    case 1:
      out += fmt::format("{} wanted a {} {}. {} {} went to look for one {}. ", she, color, thing,
                         pick(kWeather, random), hero.name, place);
      out += fmt::format("There {} met {}. \"I have a {} {},\" said {}. \"We can share it.\" ",
                         hero.she, friend_of->name, color, thing, friend_of->name);
      out += fmt::format("So they played with the {} all day. ", thing);
      break;
    default:
      out +=
          fmt::format("{} found a {} {} {}. {} ", she, color, thing, place, pick(kWeather, random));
      out += fmt::format("\"Whose {} is this?\" asked {}. \"It is mine,\" said {} the {}. ", thing,
                         hero.name, friend_of->name, friend_of->kind);
      out += fmt::format("{} gave the {} back at once. {} smiled. ", hero.name, thing,
                         friend_of->name);
  }
  out += fmt::format("{} was {} and went home. {} and {} learned that {}.", hero.name,
                     pick(kFeelings, random), hero.name, friend_of->name, pick(kLessons, random));
  return out;
}

}  // namespace

std::string stories(std::int64_t count, std::uint64_t seed) {
  std::string out;
  for (std::int64_t i = 0; i < count; ++i) {
    Random random(seed, static_cast<std::uint64_t>(i));
    out += (i > 0 ? "\n\n" : "") + story(random);
  }
  return out + "\n";
}

}  // namespace hone::tune
