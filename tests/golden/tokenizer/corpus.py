"""The fuzzed corpus of the tokenizer tests; string i is the same as in tokenizer_corpus.h."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence

MASK32 = 0xFFFFFFFF
SEED = 0x70CE17
WORDS = [
    "the",
    "of",
    "Hello",
    "world",
    "don't",
    "I'LL",
    "we'Ve",
    "it's",
    "'S",
    "'ſ",
    "kK",
    "naïve",
    "tion",
    "__x",
    "int",
    "return",
    "HTTP",
    "Übung",
    "привет",
    "мир",
    "東京",
    "안녕",
    "שלום",
    "مرحبا",
    "नमस्ते",
    "ไทย",
    "é",
    "ﬁn",
    "Å",
    "▁a",
    "Ġthe",
    "👩\u200d👩\u200d👧\u200d👦",
]
SPACES = [" ", " ", " ", "\n", "\n", "\t", "\r\n", "\r", "\u00a0", "\u3000", "\u2003", "\v", "\f"]
SPACES += ["\u0085", "\u2028", "\u180e"]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
NUMBERS = [0x0660, 0x00B2, 0x00BD, 0x2167, 0x0967, 0x3007, 0xFF10, 0x1D7CE]
RANGES = [
    (0xC0, 0x180),
    (0x400, 0x100),
    (0x4E00, 0x5200),
    (0x3041, 0x56),
    (0xAC00, 0x2BA4),
    (0x300, 0x70),
    (0x1F300, 0x300),
    (0x900, 0x80),
]


class Random:
    """Philox4x32-10, as base/random.h has it."""

    def __init__(self, seed: int, stream: int) -> None:
        self.seed, self.stream = seed, stream
        self.position = 0
        self.block: list[int] = []

    def next_u32(self) -> int:
        if not self.block:
            low, high = self.position & MASK32, self.position >> 32
            c = [low, high, self.stream & MASK32, self.stream >> 32]
            k0, k1 = self.seed & MASK32, self.seed >> 32
            for _ in range(10):
                p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [(p1 >> 32) ^ c[1] ^ k0, p1 & MASK32, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK32]
                k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
            self.position += 1
            self.block = c[::-1]
        return self.block.pop()

    def below(self, bound: int) -> int:
        return (self.next_u32() * bound) >> 32


def not_surrogate(code: int) -> int:
    return code - 0x800 if 0xD800 <= code < 0xE000 else code


def unit(random: Random, broken: bool, specials: Sequence[str]) -> bytes:
    kind = random.below(16 if broken else 14)
    if kind <= 2:
        return WORDS[random.below(len(WORDS))].encode()
    if kind <= 4:
        space = SPACES[random.below(len(SPACES))]
        return (space * (1 + random.below(5))).encode()
    if kind == 5:
        return bytes(0x30 + random.below(10) for _ in range(1 + random.below(6)))
    if kind == 6:
        code = random.below(32) if random.below(2) else 0x7F + random.below(33)
        return chr(code).encode()
    if kind == 7:
        return chr(not_surrogate(random.below(0x10000))).encode()
    if kind == 8:
        return chr(not_surrogate(random.below(0x110000))).encode()
    if kind == 9:
        first, count = RANGES[random.below(len(RANGES))]
        length = 1 + random.below(4)
        return "".join(chr(first + random.below(count)) for _ in range(length)).encode()
    if kind == 10:
        count = 1 + random.below(4)
        return "".join(PUNCTUATION[random.below(len(PUNCTUATION))] for _ in range(count)).encode()
    if kind == 11:
        return chr(NUMBERS[random.below(len(NUMBERS))]).encode()
    if kind == 12:
        return specials[random.below(len(specials))].encode() if specials else b""
    if kind == 13:
        return bytes(0x61 + random.below(26) for _ in range(1 + random.below(5)))
    if kind == 14:
        broken_byte = bytes([0x80 + random.below(128)])
        return broken_byte + b"a 1\n"[(i := random.below(4)) : i + 1]
    whole = chr(0x800 + random.below(0x5000)).encode()
    part = whole[: 1 + random.below(2)]
    return part + b"a 1\n"[(i := random.below(4)) : i + 1]


def may_be_broken(i: int) -> bool:
    return i % 5 == 4


def make_string(i: int, specials: Sequence[str]) -> bytes:
    random = Random(SEED, i)
    count = 1 + random.below(16)
    return b"".join(unit(random, may_be_broken(i), specials) for _ in range(count))


def digest(many: Iterable[Sequence[int]]) -> str:
    """FNV-1a over the ids, little endian, each string ended by -1."""
    value = 0xCBF29CE484222325
    for ids in many:
        for token in [*ids, -1]:
            for byte in (token & MASK32).to_bytes(4, "little"):
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"
