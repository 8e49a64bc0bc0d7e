"""Writes lucidrains_deepnet.* and lucidrains_gated.*: what retro-pytorch 0.3.9 itself computes with random weights, in fp64, for its two
forms of norms beside the plain one. Run it as tests/bench/generate.sh runs its peer.

    python tests/goldens/foreign/make_lucidrains.py
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "bench" / "generate"))
import numpy as np  # noqa: E402
import peer  # noqa: E402
import torch  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

VOCABULARY, CHUNK, NEIGHBOURS = 61, 8, 2
COMMON = {"num_tokens": VOCABULARY, "max_seq_len": 64, "chunk_size": CHUNK, "dim_head": 32, "dec_dim": 32, "dec_depth": 3,
          "dec_cross_attn_layers": [1, 3], "enc_depth": 2}
FORMS = {"lucidrains_deepnet": (27, {"enc_dim": 32, "use_deepnet": True, "enc_cross_attn_layers": [1]}),
         "lucidrains_gated": (32, {"enc_dim": 24, "gated_rmsnorm": True})}


def make(name, length, form):
    settings = {**COMMON, **form}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    model = peer.make_model(length, **given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    weights = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    model.double()
    tokens = torch.randint(1, VOCABULARY, (2, length))
    neighbours = torch.randint(1, VOCABULARY, (2, length // CHUNK, NEIGHBOURS, 2 * CHUNK))
    neighbours[0, 1, 1, 5:] = 0  # a short one
    neighbours[1, 0] = 0  # and a chunk without any
    with torch.no_grad():
        outputs = {"logits_f64": model(tokens, retrieved=neighbours), "logits_off_f64": model(tokens)}
    io = {"tokens": tokens, "retrieved": neighbours, **outputs}
    save_file(weights, HERE / f"{name}.weights.safetensors")
    save_file({key: np.ascontiguousarray(value.numpy()) for key, value in io.items()}, HERE / f"{name}.io.safetensors")
    (HERE / f"{name}.json").write_text(json.dumps({"config": settings}, indent=1) + "\n")


for name, (length, form) in FORMS.items():
    make(name, length, form)
