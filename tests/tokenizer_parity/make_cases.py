#!/usr/bin/env python3
"""Writes lines of mixed Unicode with the ids and ranges that PyPI `tokenizers` gives them, for tokenizer_parity.cc.

    make_cases.py --vocabulary vocab.txt --out cases.bin [--lines 50000] [--seed 7]

File, little endian: uint32 seed, uint32 lines; then for each line: uint32 bytes, the UTF-8 text, and for uncased and for cased:
uint32 tokens, then for each token int32 id, uint32 begin, uint32 end (byte offsets into the text).
"""

import argparse
import random
import struct
import unicodedata

import numpy
from tokenizers import BertWordPieceTokenizer

BATCH = 1000
LAST_CODE = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)

# Starts of blocks whose neighbouring characters make words; a run is taken from up to 96 codes after the start.
SCRIPTS = [0x41, 0xC0, 0x100, 0x180, 0x250, 0x370, 0x400, 0x530, 0x10A0, 0x13A0, 0x1400, 0x16A0, 0x1E00, 0x1F00, 0x2C00, 0xA640,
           0xA720, 0xAB30, 0xFB00, 0xFF00, 0x10400, 0x10D50, 0x118A0, 0x1D400, 0x1E900]
INDIC = [0x900, 0x980, 0xA00, 0xA80, 0xB00, 0xB80, 0xC00, 0xC80, 0xD00, 0xD80, 0xE00, 0xE80, 0xF00, 0x1000, 0x1700, 0x1780, 0x1800,
         0x1900, 0x1A00, 0x1B00, 0x1C00, 0xA800, 0xA880, 0xA900, 0xAA00, 0xABC0, 0x11000, 0x11100, 0x11200, 0x11400, 0x11600,
         0x11800, 0x11900, 0x11A00, 0x11C00, 0x11D00, 0x11F00]
RTL = [0x590, 0x600, 0x650, 0x700, 0x780, 0x7C0, 0x800, 0x840, 0x8A0, 0xFB1D, 0xFB50, 0xFE70, 0x10800, 0x10900, 0x10D00, 0x1EE00]
EAST_ASIAN = [0x1100, 0x2E80, 0x3000, 0x3040, 0x30A0, 0x3100, 0x3400, 0x4E00, 0x6C00, 0x9FA0, 0xAC00, 0xC500, 0xD700, 0xF900, 0xFA60,
              0x20000, 0x2A6D0, 0x2A700, 0x2B740, 0x2B820, 0x2CEA0, 0x2F800, 0x30000]
SYMBOLS = [0xA0, 0x2000, 0x2010, 0x2030, 0x2050, 0x20A0, 0x2100, 0x2190, 0x2200, 0x2300, 0x2400, 0x2500, 0x2580, 0x2600, 0x2700, 0x2900,
           0x2E00, 0x2E40, 0x3000, 0xFE10, 0xFE50, 0x10100, 0x1D100, 0x1D7C0, 0x1F000]
CONTROLS = [*range(0x00, 0x20), *range(0x7F, 0xA1), 0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x2028, 0x2030),
            *range(0x205F, 0x2070), 0x3000, 0xFEFF, *range(0xFFF9, 0xFFFE), 0xFFFE, 0xFFFF, 0x1BCA0, 0xE0001, 0xE0041, 0xE007F]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇬🇧", "1️⃣", "#️⃣", "❤️", "☃︎", "🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "🧑🏿‍🚀",
         "©️", "™", "🫠", "🪿", "\U0001FAE9", "👁️‍🗨️"]
MARKUP = ["<p class=\"x\">", "</div>", "&amp;", "&#x1F600;", "<!-- a -->", "<![CDATA[", "]]>", "**bold**", "`code()`", "[a](http://b.c/?d=e&f=g#h)",
          "# Head", "| a | b |", "{{x}}", "\\section{y}", "$x^2_{i}$", "@user", "#tag", "me@x.org", "f(x)->y;", "a_b", "don't", "e.g.",
          "3.14", "1,000", "C++", "x86-64", "\r\n", "\n\n", "\t", "  ", "'''", "--", "…", "“q”", "‘s’", "«f»", "<s>", "</s>", "<0x41>",
          "<unk>", "▁", "▁▁a", "\u2581"]
SPECIAL = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[cls]", "[SEP", "[[MASK]]", "SEP]", "[unused1]", "##ing", "a[SEP]b", "[PAD][PAD]",
           "[MA\u0301SK]", "[ SEP ]"]
AWKWARD = ["İstanbul", "ẞß", "ΣΑΣ", "ς", "ﬁﬂ", "Å", "Å", "é", "e\u0301\u0323", "\u0344", "\u0958", "각", "ᄀ\u1161\u11a8", "\u0340\u0341\u0343",
           "\u2126", "\u1fef", "\u037e", "\u0387", "ǅ", "\u1e9b\u0323", "\u1100\u1161", "क्षि", "\u0f43", "\u1d15e", "\U0001D15E", "\U0001D160",
           "\U00011938", "\u1734", "\U000111C9", "\u166D", "\u1C89", "\uA7CB", "\uA7DC"]


def code_points(low, high):
    return [code for code in range(low, high) if code not in SURROGATES]


class LineMaker:
    def __init__(self, rng, vocabulary):
        self.rng = rng
        self.words = [word.removeprefix("##") for word in vocabulary if word]
        everything = code_points(0, LAST_CODE + 1)
        self.marks = [c for c in everything if unicodedata.category(chr(c)).startswith("M")]
        self.assigned = [c for c in everything if unicodedata.category(chr(c)) not in ("Cn", "Co", "Lo")]
        self.everything = everything
        self.kinds = [self.english] * 4 + [
            self.scripts, self.scripts, self.indic, self.rtl, self.east_asian, self.symbols, self.controls, self.emoji, self.markup,
            self.markup, self.special, self.combining, self.combining, self.long_word, self.any_assigned, self.any_assigned, self.any_code,
            self.awkward, self.spaces]

    def line(self):
        parts = [self.rng.choice(self.kinds)() for _ in range(self.rng.choice([1, 1, 2, 3]))]
        return self.rng.choice(["", " ", " ", "\n"]).join(parts)

    def run_of(self, starts, words):
        start = self.rng.choice(starts)
        codes = code_points(start, start + self.rng.choice([8, 32, 96]))
        return " ".join("".join(chr(self.rng.choice(codes)) for _ in range(self.rng.randint(1, 7))) for _ in range(words))

    def english(self):
        case = [str, str, str, str.upper, str.capitalize]
        words = (self.rng.choice(case)(self.rng.choice(self.words)) for _ in range(self.rng.randint(1, 16)))
        return "".join(word + self.rng.choice([" ", " ", " ", " ", ", ", ". ", "-", "'", "", "  ", "\t"]) for word in words)

    def scripts(self):
        return self.run_of(SCRIPTS, self.rng.randint(1, 6))

    def indic(self):
        return self.run_of(INDIC, self.rng.randint(1, 6))

    def rtl(self):
        return self.run_of(RTL, self.rng.randint(1, 6))

    def east_asian(self):
        return self.run_of(EAST_ASIAN, self.rng.randint(1, 5))

    def symbols(self):
        return self.run_of(SYMBOLS, self.rng.randint(1, 5))

    def inserted(self, pool, share):
        return "".join(c + (self.rng.choice(pool) if self.rng.random() < share else "") for c in self.english())

    def controls(self):
        return self.inserted([chr(c) for c in CONTROLS], 0.2)

    def emoji(self):
        return self.inserted(EMOJI, 0.1)

    def markup(self):
        return self.inserted(MARKUP, 0.1)

    def special(self):
        return self.inserted(SPECIAL, 0.1)

    def awkward(self):
        return self.inserted(AWKWARD, 0.15)

    def combining(self):
        bases = self.english() if self.rng.random() < 0.7 else self.indic()
        return "".join(c + "".join(chr(self.rng.choice(self.marks)) for _ in range(self.rng.choice([0, 0, 1, 2, 5]))) for c in bases)

    def long_word(self):
        unit = self.rng.choice(["a", "é", "각", "ﬁ", "й", "x\u0301", "ab", "\u200b", "𝒳", self.rng.choice(self.words)])
        length = self.rng.choice([49, 50, 51, 98, 99, 100, 101, 102, 150, 300])
        return unit * length + self.rng.choice(["", "", ".", " end"])

    def any_assigned(self):
        return "".join(chr(self.rng.choice(self.assigned)) + self.rng.choice(["", "", " ", "a"]) for _ in range(self.rng.randint(1, 40)))

    def any_code(self):
        return "".join(chr(self.rng.choice(self.everything)) + self.rng.choice(["", "", " ", "b"]) for _ in range(self.rng.randint(1, 40)))

    def spaces(self):
        pool = [" ", " ", "  ", "    ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u2028", "x", "Y", "."]
        return "".join(self.rng.choice(pool) for _ in range(self.rng.randint(0, 30)))


def byte_offsets(text):
    """Where each character begins, and where the last one ends."""
    sizes = numpy.fromiter((len(c.encode()) for c in text), dtype=numpy.uint32, count=len(text))
    return numpy.concatenate([numpy.zeros(1, numpy.uint32), numpy.cumsum(sizes, dtype=numpy.uint32)])


def pack_encoding(encoding, offsets):
    table = numpy.empty((len(encoding.ids), 3), dtype="<u4")
    table[:, 0] = encoding.ids
    if encoding.ids:
        table[:, 1:] = offsets[numpy.array(encoding.offsets)]
    return struct.pack("<I", len(encoding.ids)) + table.tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    with open(arguments.vocabulary, encoding="utf-8") as file:
        vocabulary = file.read().split("\n")
    maker = LineMaker(random.Random(arguments.seed), vocabulary)
    references = [BertWordPieceTokenizer(arguments.vocabulary, lowercase=lowercase) for lowercase in (True, False)]
    with open(arguments.out, "wb") as out:
        out.write(struct.pack("<II", arguments.seed, arguments.lines))
        for first in range(0, arguments.lines, BATCH):
            lines = [maker.line() for _ in range(min(BATCH, arguments.lines - first))]
            encodings = [reference.encode_batch(lines, add_special_tokens=False) for reference in references]
            for line, *pair in zip(lines, *encodings):
                text, offsets = line.encode(), byte_offsets(line)
                out.write(struct.pack("<I", len(text)) + text + b"".join(pack_encoding(e, offsets) for e in pair))


if __name__ == "__main__":
    main()
