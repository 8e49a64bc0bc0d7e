"""See ../embed.sh."""
import argparse
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
from bert_onnx import BertGraph
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "goldens" / "bert"))
from reference_bert import ReferenceBert

SEED = 7
THREADS = 2
BATCH, LENGTH = 32, 66
TEXTS, LONGEST = 1000, 128
PAIRS = {BATCH: 20, 1: 60}
PAUSE = 0.02  # the peer's threads spin for a while after a run: nobody is measured in that time
CLS, SEP = 101, 102

# What the peer does on two idle cores of the kinds of machine known, chunks a second and seconds for one; a peer below
# this share of it was disturbed.
USUAL = {"avx512": {BATCH: 230.0, 1: 0.0053}, "avx2": {BATCH: 94.0, 1: 0.013}}
USUAL_SHARE = 0.8


def usual():
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return USUAL["avx512" if " avx512f" in flags else "avx2"]


def read_text(path):
    if path is None:
        files = sorted(glob.glob("/usr/share/common-licenses/*") + glob.glob("/usr/share/doc/*/copyright"))
        return "\n".join(dict.fromkeys(pathlib.Path(file).read_text(errors="replace") for file in files[:200]))
    if path.endswith(".zst"):
        text = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    else:
        text = pathlib.Path(path).read_text(errors="replace")
    if ".jsonl" not in path:
        return text
    return "\n".join(json.loads(line)["text"] for line in text.splitlines()[:2000])


def sequences(model, text):
    """TEXTS sequences: every second one of exactly LENGTH ids, the others of any length up to LONGEST."""
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode(text[:2_000_000], add_special_tokens=False).ids
    rng = np.random.default_rng(SEED)
    result, at = [], 0
    for i in range(TEXTS):
        size = LENGTH - 2 if i % 2 == 0 else int(rng.integers(1, LONGEST - 1))
        result.append([CLS] + ids[at:at + size] + [SEP])
        at += size
    if at > len(ids):
        sys.exit(f"embed: the texts have {len(ids)} wordpieces, {at} are needed: give a larger file with --texts")
    return result


class Ours:
    def __init__(self, binary, model, numbers, folder):
        self.folder = folder
        self.process = subprocess.Popen([binary, model, numbers, str(THREADS)], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, env=dict(os.environ, OMP_WAIT_POLICY="passive"))

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def write(self, name, ids):
        path = f"{self.folder}/{name}"
        pathlib.Path(path).write_text("".join(" ".join(map(str, row)) + "\n" for row in ids))
        return path

    def seconds(self, ids):
        return self.ask("time " + self.write(f"batch{len(ids)}", ids))

    def vectors(self, ids):
        out = f"{self.folder}/vectors"
        self.ask(f"embed {self.write('all', ids)} {out}")
        return np.fromfile(out, np.float32).reshape(len(ids), -1)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Peer:
    def __init__(self, model, folder):
        BertGraph(model).save(f"{folder}/bert.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(f"{folder}/bert.onnx", options, ["CPUExecutionProvider"])

    def run(self, ids):
        ids = np.array(ids, np.int32)
        return self.session.run(None, {"ids": ids, "types": np.zeros_like(ids)})[0]

    def seconds(self, ids):
        start = time.perf_counter()
        vectors = self.run(ids).mean(1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return time.perf_counter() - start


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def measure(ours, peer, batches, pairs):
    """Medians of both, and of the ratio of neighbouring runs."""
    times = []
    for i in range(pairs + 2):
        ids = batches[i % len(batches)]
        pair = []
        for side in (ours, peer):
            time.sleep(PAUSE)
            pair.append(side.seconds(ids))
        times.append(pair)
    times = np.array(times[2:])  # the first two warm up
    return np.median(times[:, 0]), np.median(times[:, 1]), np.median(times[:, 1] / times[:, 0])


def row(numbers, batch, ours, peer, ratio, cosine):
    least = {"fp32": 0.99999, "fp16": 0.9999}[numbers]
    scale = (lambda seconds: round(batch / seconds, 1)) if batch > 1 else (lambda seconds: round(1e3 * seconds, 2))
    peer_usual = usual()[batch]
    speed, usual_speed = batch / peer, peer_usual if batch > 1 else 1 / peer_usual
    return {"bench": "embed", "row": f"{numbers}, batch {batch} x {LENGTH} wordpieces, {THREADS} threads",
            "unit": "chunks/s" if batch > 1 else "ms", "ours": scale(ours), "peer": scale(peer),
            "peer_name": f"onnxruntime {onnxruntime.__version__}, fp32, BERT fusion, all optimisations",
            "ratio": round(float(ratio), 3), "one_minus_cosine": float(f"{1 - cosine:.2e}"),
            "pass": bool(ratio >= 1.0 and cosine >= least), "peer_usual": peer_usual if batch > 1 else 1e3 * peer_usual,
            "valid": bool(speed >= USUAL_SHARE * usual_speed)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--texts")
    arguments = parser.parse_args()
    ids = sequences(arguments.model, read_text(arguments.texts))
    equal = [sequence for sequence in ids if len(sequence) == LENGTH]
    print("embed: computing the reference vectors in fp64", file=sys.stderr)
    model = ReferenceBert(arguments.model, "mean", normalise=True)
    reference = np.stack([model.embed(sequence) for sequence in ids])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(arguments.model, folder)
        for numbers in ("fp16", "fp32"):
            ours = Ours(arguments.binary, arguments.model, numbers, folder)
            cosine = cosines(ours.vectors(ids), reference).min()
            for batch, pairs in PAIRS.items():
                batches = [equal[i:i + batch] for i in range(0, len(equal) - batch + 1, batch)]
                rows.append(row(numbers, batch, *measure(ours, peer, batches, pairs), cosine))
                print(json.dumps(rows[-1]), flush=True)
            ours.close()
    if any(r["valid"] and not r["pass"] for r in rows):
        sys.exit(1)
    sys.exit(0 if all(r["valid"] for r in rows) else 3)


main()
