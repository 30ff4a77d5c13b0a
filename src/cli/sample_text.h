// A text to measure a model with where the user gives none: plain prose on several subjects.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace hone::cli {

inline constexpr std::string_view kSampleText =
    "A bridge carries its own weight first and everything else after that. The engineer who "
    "plans one begins with the ground: how deep the rock lies, how the river moves in spring,"
    " and how much the banks have shifted since anybody measured them. Only then does the "
    "shape of the span matter. An arch pushes outward against its feet, so it wants firm rock"
    " on both sides. A beam only presses down, but it sags in the middle, and the longer it "
    "is the more of its strength goes into holding itself up. A cable pulls, and steel is "
    "better at being pulled than at being pushed, which is why the longest bridges hang.\n"
    "\n"
    "Bread is made of flour, water, salt and time. When flour meets water, two of its "
    "proteins join into long threads, and kneading lays the threads side by side until the "
    "dough can be stretched thin without tearing. Yeast eats the sugar that is freed from the"
    " starch and gives back gas, which the threads hold in small bubbles. A slow rise in a "
    "cool room tastes better than a quick one near the stove, because bacteria have time to "
    "make acids along the way. In the oven the bubbles grow once more, the crust sets, and "
    "the sugars on the surface turn brown.\n"
    "\n"
    "The moon goes around the earth in a little more than twenty-seven days and always shows "
    "it the same face. This is not an accident. Long ago the moon turned faster, but the "
    "earth's pull raised tides in its rock, and the friction slowed it down until one turn "
    "took exactly as long as one orbit. The moon does the same to the earth: each century the"
    " day grows longer by about two thousandths of a second, and the moon moves away by "
    "nearly four metres.\n"
    "\n"
    "To sort a list of numbers, a computer can split it in half, sort each half in the same "
    "way, and then merge the two by always taking the smaller of the two first elements. Each"
    " level of splitting touches every number once, and there are as many levels as times "
    "that the length can be halved. For a million numbers this is about twenty levels, so "
    "twenty million steps, while comparing every number with every other would need half a "
    "million million. The difference between the two is the difference between a blink and an"
    " afternoon.\n"
    "\n"
    "A library keeps more than books. It keeps the order in which they stand, and without "
    "that order the books would be lost where everybody can see them. The first catalogues "
    "were lists nailed to the end of a shelf. Later came cards in drawers, one for each "
    "title, one for each author, and one for each subject, so that a reader who knew any one "
    "of the three could find the other two. Today the drawers are gone, but the idea of "
    "several paths to the same place is what every search still rests on.\n"
    "\n"
    "When the old man had finished his story, the children sat still for a while. The fire "
    "had burned down to a red glow, and outside the wind was pulling at the shutters. \"Is it "
    "true?\" asked the youngest at last. He looked at her as if he had to think about it. "
    "\"Parts of it are,\" he said. \"The house was there, and so was the river. As for the rest,"
    " you will have to go and look for yourself.\" Then he stood up, put another log on the "
    "fire, and went to see whether the door was locked.\n"
    "";

}  // namespace hone::cli
