"""Makes what bert_encoder_test.cc compares with: MiniLM's vectors of some texts, and tiny random models of other kinds.

    python make_bert_goldens.py MINILM_FOLDER

Needs numpy, safetensors and tokenizers (deploy/local/setup.sh --dev installs them in venv-tools).
"""
import json
import pathlib
import sys

import numpy as np
from reference_bert import ReferenceBert
from safetensors.numpy import save_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
SEED = 20240607
MAX_TOKENS = 256

SENTENCES = [
    "Retrieval lets a small language model look things up instead of remembering them.",
    "The cat sat on the mat; the dog, however, did not.",
    "Ein Brot für 3,50 € — naïve café façade, Ångström, 東京, привет мир, مرحبا.",
    "E = mc² and ∑ x_i ≥ 0 for all i ∈ ℕ 🙂🚀",
    "Debian 12 'bookworm' ships Linux 6.1 and was released on 10 June 2023.",
    "def f(x):\n    return x ** 2  # square",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
]


def texts():
    """Of all lengths: nothing, one word, sentences, up to far beyond the maximal length."""
    result = ["", "a", "Hello, world!"] + SENTENCES
    story = " ".join(SENTENCES[:2] + SENTENCES[4:6])
    result += [story[:size] for size in (7, 19, 33, 50, 70, 90, 120, 150)]
    result += [(story + " ") * repeat for repeat in (1, 2, 3, 4, 5, 6, 8, 12)]
    return result + ["word " * count for count in (13, 62, 64, 254, 300)]


def make_minilm(folder):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    model = ReferenceBert(folder, "mean", normalise=True)
    ids = [tokenizer.encode(text).ids for text in texts()]
    vectors = np.stack([model.embed(sequence) for sequence in ids]).astype(np.float32)
    lines = [json.dumps({"text": text, "ids": sequence}) for text, sequence in zip(texts(), ids)]
    (HERE / "minilm_texts.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    save_file({"vectors": vectors}, HERE / "minilm_vectors.safetensors")


TINY = {
    "tiny_cls": dict(pooling="cls", normalise=True, prefix="bert.", dtype=np.float32, gamma=False, hidden=24, heads=3,
                     layers=2, inner=40, act="gelu_new", eps=1e-5, types=2),
    "tiny_max": dict(pooling="max", normalise=False, prefix="", dtype=np.float16, gamma=True, hidden=32, heads=4,
                     layers=3, inner=56, act="relu", eps=1e-12, types=2),
    "tiny_odd": dict(pooling="mean", normalise=False, prefix="", dtype=np.float32, gamma=False, hidden=39, heads=3,
                     layers=1, inner=51, act="gelu", eps=1e-12, types=1),
}
VOCABULARY, POSITIONS = 61, 40


def tiny_weights(rng, kind):
    hidden, inner, prefix = kind["hidden"], kind["inner"], kind["prefix"]
    gamma, beta = ("gamma", "beta") if kind["gamma"] else ("weight", "bias")
    tensors = {}

    def add(name, *shape, scale=0.3, shift=0.0):
        tensors[prefix + name] = (rng.normal(size=shape) * scale + shift).astype(kind["dtype"])

    def linear(name, outputs, inputs):
        add(name + ".weight", outputs, inputs)
        add(name + ".bias", outputs)

    def norm(name):
        add(f"{name}.{gamma}", hidden, scale=0.2, shift=1.0)
        add(f"{name}.{beta}", hidden)

    for table, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", kind["types"])):
        add(f"embeddings.{table}_embeddings.weight", rows, hidden)
    norm("embeddings.LayerNorm")
    for i in range(kind["layers"]):
        name = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{name}.attention.self.{part}", hidden, hidden)
        linear(f"{name}.attention.output.dense", hidden, hidden)
        norm(f"{name}.attention.output.LayerNorm")
        linear(f"{name}.intermediate.dense", inner, hidden)
        linear(f"{name}.output.dense", hidden, inner)
        norm(f"{name}.output.LayerNorm")
    tensors[prefix + "embeddings.position_ids"] = np.arange(POSITIONS, dtype=np.int64)[None]
    return tensors


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def make_tiny(name, kind, rng):
    folder = HERE / name
    write_json(folder / "config.json", {
        "model_type": "bert", "hidden_size": kind["hidden"], "num_hidden_layers": kind["layers"],
        "num_attention_heads": kind["heads"], "intermediate_size": kind["inner"], "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS, "type_vocab_size": kind["types"], "layer_norm_eps": kind["eps"],
        "hidden_act": kind["act"]})
    save_file(tiny_weights(rng, kind), folder / "model.safetensors")
    if name != "tiny_odd":  # which has nothing beyond the network: the mean of the last layer
        modules = ["Transformer", "Pooling"] + ["Normalize"] * kind["normalise"]
        write_json(folder / "modules.json", [
            {"idx": i, "name": str(i), "type": f"sentence_transformers.models.{module}",
             "path": "" if i == 0 else f"{i}_{module}"} for i, module in enumerate(modules)])
        write_json(folder / "1_Pooling/config.json", {
            "word_embedding_dimension": kind["hidden"], "pooling_mode_cls_token": kind["pooling"] == "cls",
            "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": kind["pooling"] == "max"})
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32})
        write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "query: ", "document": "passage: "}})
    model = ReferenceBert(folder, kind["pooling"], kind["normalise"])
    lengths = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32]
    ids = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(0, VOCABULARY, length)
    vectors = np.stack([model.embed(row[:length]) for row, length in zip(ids, lengths)]).astype(np.float32)
    save_file({"ids": ids, "lengths": np.array(lengths, np.int32), "vectors": vectors}, folder / "expected.safetensors")


def main():
    make_minilm(sys.argv[1])
    rng = np.random.default_rng(SEED)
    for name, kind in TINY.items():
        make_tiny(name, kind, rng)


main()
