"""A model folder in pure PyTorch: how the files are read, and what the numbers in them mean. Slow; for models of the paper's form.

    python docs/read_model.py MODEL_FOLDER REFERENCE.safetensors     # prints the greatest difference to logits_f64

model_format.md describes the folder. Names: decoder.LAYER.BLOCK.LEAF, layers from 1; matrices are [out, in], applied as x @ W.T.
"""

import json
import math
import os
import sys

import torch

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
         "I32": torch.int32}


def read_safetensors(path):
    """8 bytes of header length, a JSON header, then the tensors' bytes, row-major and little-endian."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = torch.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_model(folder):
    """The model's config and its weights in fp64."""
    def path(name):  # NAME.next takes the place of NAME in a folder whose writer was cut
        next_one = os.path.join(folder, name + ".next")
        cut = os.path.exists(os.path.join(folder, "config.json.next"))
        return next_one if cut and os.path.exists(next_one) else os.path.join(folder, name)

    with open(path("config.json"), encoding="utf-8") as file:
        info = json.load(file)
    if (info["format"], info["format_version"]) != ("retro-model", 1):
        raise ValueError(f"{folder}: not a model folder that this program knows")
    weights = read_safetensors(path("model.safetensors"))
    return info["model"], {name: tensor.double() for name, tensor in weights.items()}


class PaperModel:
    """The forward pass of a model whose choices are the paper's; mask_pad and offset are our own two."""

    def __init__(self, config, weights):
        # All that forward() does not look at.
        paper = {"norm": "rms", "final_norm": True, "post_norm": False, "residual_scale": 1.0, "encoder_residual_scale": 1.0, "gated_ffw": False,
                 "attention_scale": True, "query_key_value_biases": False, "output_biases": False, "readout_bias": False, "embedding_width": 0,
                 "encoder_projection": False, "conditioning_cca_norm": False, "encoder_cca_residual_normed": False, "null_key": False, "gate": 1.0,
                 "positions": "transformer_xl", "learned_positions": "none", "additive_pad_mask": False, "partial_chunk_first": False}
        for key, value in paper.items():
            if config[key] != value:
                raise ValueError(f"{key} is {config[key]}: this reader computes models of the paper's form only")
        self.c, self.w = config, weights

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.c["norm_eps"]) * self.w[name]

    def attend(self, x, keys, distance, allowed, block, heads):
        """What an attention adds to x [T, d]; distance, allowed: [T, S]; block: name up to its last dot."""
        w = {leaf: self.w.get(block + leaf) for leaf in
             ("query", "key", "value", "position", "output", "content_bias", "position_bias")}
        h = self.norm(x, block + "norm")
        split = lambda rows: rows.reshape(*rows.shape[:-1], heads, -1)  # [..., heads, head]
        keys = h if keys is None else keys
        query, key, value = split(h @ w["query"].T), split(keys @ w["key"].T), split(keys @ w["value"].T)
        width = x.shape[-1]
        angles = distance[..., None] * 10000.0 ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
        relative = split(torch.cat([torch.sin(angles), torch.cos(angles)], -1) @ w["position"].T)  # [T, S, heads, head]
        u, v = (0 if bias is None else split(bias) for bias in (w["content_bias"], w["position_bias"]))
        logits = torch.einsum("thc,shc->hts", query + u, key) + torch.einsum("thc,tshc->hts", query + v, relative)
        shares = (logits / math.sqrt(query.shape[-1])).masked_fill(~allowed, -math.inf).softmax(-1)
        return torch.einsum("hts,shc->thc", shares, value).reshape(len(x), -1) @ w["output"].T

    def ffw(self, x, block):
        up = self.norm(x, block + "norm") @ self.w[block + "up"].T
        gelu = torch.nn.functional.gelu
        act = {"gelu_tanh": lambda a: gelu(a, approximate="tanh"), "gelu_erf": gelu, "relu": torch.relu}[self.c["activation"]]
        return act(up) @ self.w[block + "down"].T

    def encode(self, ids, present, chunk):
        """One neighbour [r] -> [r, d']; chunk: the decoder's activations of the chunk it was found for, at most m rows."""
        c = self.c
        e = self.w["decoder.embedding" if c["shared_embedding"] else "encoder.embedding"][ids]
        place = torch.arange(len(ids))
        chunk_place = torch.arange(c["chunk_length"] - len(chunk), c["chunk_length"])  # a short chunk stands at the end
        if c["conditioning_norm"]:
            chunk = self.norm(chunk, "encoder.conditioning_norm")
        for layer in range(1, c["encoder_layers"] + 1):
            block = f"encoder.{layer}."
            e = e + self.attend(e, None, place[:, None] - place, present, block + "attention.", c["encoder_heads"])
            if layer in c["encoder_cca_layers"]:
                e = e + self.attend(e, chunk, place[:, None] - chunk_place, torch.tensor(True), block + "cca.", c["encoder_heads"])
            e = e + self.ffw(e, block + "ffw.")
        return self.norm(e, "encoder.final_norm") if c["encoder_final_norm"] else e

    def forward(self, tokens, neighbours=None):
        """tokens [n], neighbours [complete chunks, k, r] or None -> logits [n, V]."""
        c, n, m = self.c, len(tokens), self.c["chunk_length"]
        ends = [end for end in range(c["offset"] or m, n + 1, m)]  # one past each complete chunk
        h, place = self.w["decoder.embedding"][tokens], torch.arange(n)
        encoded = None
        for layer in range(1, c["layers"] + 1):
            block = f"decoder.{layer}."
            distance = place[:, None] - place
            h = h + self.attend(h, None, distance, distance >= 0, block + "attention.", c["heads"])
            if neighbours is not None and layer in c["cca_layers"]:
                if encoded is None:
                    encoded = [self.encode_chunk(rows, h[begin:end]) for rows, begin, end in zip(neighbours, [0, *ends], ends)]
                h = h + self.chunked_cross_attention(h, encoded, ends, block + "cca.")
            h = h + self.ffw(h, block + "ffw.")
        return self.norm(h, "decoder.final_norm") @ self.w["decoder.embedding" if c["tied_readout"] else "decoder.readout"].T

    def encode_chunk(self, rows, chunk):
        """The encoded neighbours of one chunk in a row, the places in them, and which of them are keys."""
        present = rows != self.c["pad_id"] if self.c["mask_pad"] else torch.ones(rows.shape, dtype=torch.bool)
        there = [j for j in range(len(rows)) if present[j].any()]
        if not there:
            return None
        encoded = torch.cat([self.encode(rows[j], present[j], chunk) for j in there])
        return encoded, torch.arange(rows.shape[1]).repeat(len(there)), present[there].reshape(-1)

    def chunked_cross_attention(self, h, encoded, ends, block):
        """From the last token of a chunk to the token before the next chunk's last one."""
        added, m = torch.zeros_like(h), self.c["chunk_length"]
        for end, chunk in zip(ends, encoded):
            rows = h[end - 1 : end - 1 + m]
            if chunk is not None:
                keys, places, present = chunk
                distance = torch.arange(len(rows))[:, None] - places + m - 1
                added[end - 1 : end - 1 + m] = self.attend(rows, keys, distance, present, block, self.c["heads"])
        return added


if __name__ == "__main__":
    model = PaperModel(*read_model(sys.argv[1]))
    reference = read_safetensors(sys.argv[2])
    logits = model.forward(reference["tokens"], reference["neighbours"])
    difference = (logits - reference["logits_f64"]).abs().max()
    print(f"{sys.argv[1]}: logits {list(logits.shape)}, greatest difference {difference:.3g}")
    sys.exit(0 if difference < 1e-9 else 1)
