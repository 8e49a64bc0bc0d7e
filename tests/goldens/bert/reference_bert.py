"""BERT sentence embeddings in numpy, fp64, from a model's folder: what the C++ encoder is measured against.

Written from Devlin et al. 2019 (section 3), Vaswani et al. 2017 and Reimers & Gurevych 2019; text by text, no batches.
"""
import json
import math
import pathlib

import numpy as np

# erf by linear interpolation in a fine table (error below 1e-9): numpy has none.
_STEPS = 200_000
_END = 6.0
_ERF = np.array([math.erf(_END * i / _STEPS) for i in range(_STEPS + 2)])


def erf(z):
    at = np.minimum(np.abs(z), _END) * (_STEPS / _END)
    low = at.astype(np.int64)
    return np.sign(z) * (_ERF[low] + (at - low) * (_ERF[low + 1] - _ERF[low]))


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    "gelu_new": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0.0),
}


def load_tensors(path):
    """Safetensors to fp64 by hand, bf16 included."""
    data = pathlib.Path(path).read_bytes()
    header_size = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:8 + header_size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
        raw = data[begin:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "I64": "<i8"}[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).astype(np.float64)
    return tensors


class ReferenceBert:
    def __init__(self, folder, pooling, normalise):
        folder = pathlib.Path(folder)
        self.config = json.loads((folder / "config.json").read_text())
        tensors = load_tensors(folder / "model.safetensors")
        self.weights = {name.removeprefix("bert."): value for name, value in tensors.items()}
        self.pooling, self.normalise = pooling, normalise

    def _linear(self, name, x):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _norm(self, name, x):
        gamma, beta = ("gamma", "beta") if f"{name}.gamma" in self.weights else ("weight", "bias")
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self.weights[f"{name}.{gamma}"] + self.weights[f"{name}.{beta}"]

    def _attention(self, name, x):
        heads = self.config["num_attention_heads"]
        split = lambda y: y.reshape(len(x), heads, -1).transpose(1, 0, 2)
        query, key, value = (split(self._linear(f"{name}.{part}", x)) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(len(x), -1)

    def embed(self, ids):
        w, activation = self.weights, ACTIVATIONS[self.config["hidden_act"]]
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:len(ids)]
        x = self._norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
        for i in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{i}"
            attended = self._linear(f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", x))
            x = self._norm(f"{name}.attention.output.LayerNorm", x + attended)
            inner = activation(self._linear(f"{name}.intermediate.dense", x))
            x = self._norm(f"{name}.output.LayerNorm", x + self._linear(f"{name}.output.dense", inner))
        vector = {"cls": lambda: x[0], "mean": lambda: x.mean(0), "max": lambda: x.max(0)}[self.pooling]()
        return vector / np.linalg.norm(vector) if self.normalise else vector
