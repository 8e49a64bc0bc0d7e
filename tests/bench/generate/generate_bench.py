"""See ../generate.sh."""
import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import peer
import torch
from safetensors.numpy import save_file

SEED = 11
THREADS = 2
TOKENS = 512
CHUNK, NEIGHBOURS = 64, 2
VOCABULARY = 16384  # of the tokenizer that ours is served with
WANTED = 10
SMALL = {"enc_dim": 512, "enc_depth": 2, "dec_dim": 512, "dec_depth": 6}
FULL = {"enc_dim": 896, "enc_depth": 2, "dec_dim": 768, "dec_depth": 12}  # the package's own
TOKENIZER = "common/tokenizer/retro-16k.model"


def run_peer(model, neighbours):
    """Seconds, and the text."""
    wrapper = peer.GivenNeighbours(model, neighbours)
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        text = wrapper.generate(torch.full((1, 1), 5))
    seconds = time.perf_counter() - start
    assert text.shape[1] == TOKENS + 1, text.shape
    return seconds, text[:, :TOKENS]


def import_ours(build, folder, model, settings):
    save_file({name: value.numpy() for name, value in model.state_dict().items()}, f"{folder}/weights.safetensors")
    pathlib.Path(f"{folder}/config.json").write_text(json.dumps(settings))
    subprocess.run([f"{build}/bin/retro-model", "import", "--from", "lucidrains", "--config", f"{folder}/config.json", "--weights",
                    f"{folder}/weights.safetensors", "--tokenizer", TOKENIZER, "--out", f"{folder}/model"],
                   check=True, stdout=sys.stderr)


def difference(build, folder, model, text, neighbours):
    """Of the peer's logits from ours, both in fp32, as retro-model verify finds it."""
    chunks = TOKENS // CHUNK
    with torch.no_grad():
        logits = model(text, retrieved=neighbours[None, :chunks])
    save_file({"tokens": text.numpy(), "retrieved": neighbours[None, :chunks].numpy(),
               "logits_f64": logits.numpy().astype(np.float64)}, f"{folder}/io.safetensors")
    out = subprocess.run([f"{build}/bin/retro-model", "verify", "--model", f"{folder}/model", "--reference",
                          f"{folder}/io.safetensors", "--tolerance", "0.01", "--json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["max_abs_diff"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    sizes = FULL if args.full else SMALL
    settings = {**sizes, "num_tokens": VOCABULARY, "max_seq_len": TOKENS, "chunk_size": CHUNK}
    model = peer.make_model(SEED, **settings)
    neighbours = torch.randint(4, VOCABULARY, (TOKENS // CHUNK, NEIGHBOURS, 2 * CHUNK))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        import_ours(args.build, folder, model, settings)
        seconds, text = run_peer(model, neighbours)
        apart = difference(args.build, folder, model, text, neighbours)
        for dtype in ("fp16", "fp32"):
            run = subprocess.run([f"{args.build}/bench/generate_bench", f"{folder}/model", dtype, str(TOKENS)], check=True,
                                 stdout=subprocess.PIPE)
            ours = TOKENS / json.loads(run.stdout)["seconds"]
            ratio = ours / (TOKENS / seconds)
            row = {"bench": f"generate {TOKENS} tokens, {dtype}", "ours": ours, "peer": TOKENS / seconds,
                   "peer_name": "retro-pytorch 0.3.9", "unit": "tokens/s", "ratio": ratio, "wanted": WANTED,
                   "pass": ratio >= WANTED, "valid": True, "logits_max_abs_diff": apart, **sizes}
            print(json.dumps(row), flush=True)
            failed = failed or not row["pass"]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
