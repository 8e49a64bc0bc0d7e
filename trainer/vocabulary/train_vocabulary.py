#!/usr/bin/env python3
"""Trains the SentencePiece vocabulary that our own models share (common/tokenizer/retro-16k.model).

    train_vocabulary.py --corpus train.jsonl.zst --out common/tokenizer/retro-16k.model

Deterministic: same corpus and same sentencepiece (pip install sentencepiece==0.2.0) give the same bytes. Takes about two
minutes. Decoding gives back every byte of a text: identity normalisation, no dummy prefix, all spaces kept,
byte fallback for what has no piece.
"""

import argparse
import json
import random
import re
import subprocess
import sys

import sentencepiece

REQUIRED_VERSION = "0.2.0"
SEED = 20240601
VOCABULARY_SIZE = 16384
THREADS = 2  # fixed: the order of floating point sums depends on it

# Most bytes of text that are taken from one kind of source. Novels are two thirds of the corpus and would crowd out the rest.
MAX_BYTES_OF_SOURCE = {
    "github:mlschmitt/classic-books-markdown": 16_000_000,
    "github:COST-ELTeC/ELTeC-eng": 8_000_000,
}
DEFAULT_MAX_BYTES_OF_SOURCE = 8_000_000

# Line ends and tabs are symbols of their own, so that no piece reaches over a line.
LINE_SYMBOLS = ["\n", "\n\n", "\n\n\n", "\r\n", "\t", "\t\t"]

# The corpus has lost the indentation of its program listings, users' texts have not: one line in INDENTED_ONE_IN gets some, so
# that runs of spaces become pieces.
INDENTED_ONE_IN = 24
INDENTS = [2, 2, 3, 4, 4, 4, 4, 5, 6, 6, 8, 8, 8, 10, 12, 12, 16]

# Typography and Latin letters that any European text may hold; each has a piece of its own even where the corpus hardly has it.
REQUIRED_CHARACTERS = "…–—‘’“”«»•·°§©®™€£¥¢×÷±→←↑↓≤≥≠≈½¼¾²³µ¿¡áàâäãåæçéèêëíìîïñóòôöõøœßúùûüýÿÁÀÂÄÃÅÆÇÉÈÊËÍÎÏÑÓÔÖÕØŒÚÛÜ"


def source_kind(source):
    """'deb:perl-doc:perlos390.pod' -> 'deb:perl-doc'; 'github:python/peps@ba4d:x' -> 'github:python/peps'."""
    return re.split("@", ":".join(source.split(":")[:2]))[0]


def read_documents(path):
    """Documents by kind of source, in the order of the file."""
    by_kind = {}
    command = ["zstd", "-dc", "--long=27", path] if path.endswith(".zst") else ["cat", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            document = json.loads(line)
            by_kind.setdefault(source_kind(document["source"]), []).append(document["text"])
    if process.returncode != 0:
        sys.exit(f"train_vocabulary: cannot read {path}")
    return by_kind


def sample_lines(by_kind, rng):
    """Lines of randomly chosen paragraphs, each kind of source up to its bound, mixed."""
    lines = []
    for kind in sorted(by_kind):
        paragraphs = [p for text in by_kind[kind] for p in text.split("\n\n") if p.strip()]
        rng.shuffle(paragraphs)
        budget = MAX_BYTES_OF_SOURCE.get(kind, DEFAULT_MAX_BYTES_OF_SOURCE)
        taken = 0
        for paragraph in paragraphs:
            if taken >= budget:
                break
            taken += len(paragraph.encode())
            lines.extend(line for line in re.split(r"[\r\n\t]+", paragraph) if line)
        print(f"{kind}: {taken / 1e6:.2f} MB", file=sys.stderr)
    rng.shuffle(lines)
    return [" " * rng.choice(INDENTS) + line if rng.randrange(INDENTED_ONE_IN) == 0 else line for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="JSON lines with text and source, plain or .zst")
    parser.add_argument("--out", required=True, help="the .model file to write")
    arguments = parser.parse_args()
    if sentencepiece.__version__ != REQUIRED_VERSION:
        sys.exit(f"train_vocabulary: needs sentencepiece {REQUIRED_VERSION}, not {sentencepiece.__version__}")

    lines = sample_lines(read_documents(arguments.corpus), random.Random(SEED))
    with open(arguments.out, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out,
            model_type="unigram", vocab_size=VOCABULARY_SIZE, character_coverage=0.9999, required_chars=REQUIRED_CHARACTERS,
            pad_id=0, unk_id=1, bos_id=2, eos_id=3,
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
            byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
            user_defined_symbols=LINE_SYMBOLS, max_sentence_length=1 << 16, num_threads=THREADS, minloglevel=1)


if __name__ == "__main__":
    main()
