"""See ../embed.sh."""
import argparse
import glob
import json
import os
import pathlib
import re
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
CLS, SEP = 101, 102

# The peer's threads spin for tens of milliseconds after its last run, and whoever is measured then has one core less.
# So a turn begins when neither process has used the processor for SETTLE_S, but for the share that looking takes.
SETTLE_S, IDLE_SHARE, SETTLE_S_MAX = 0.01, 0.1, 5.0

# What the peer does on two idle cores of the kinds of machine known, texts a second in batches of 32 and of one; a peer
# below this share of it was disturbed.
USUAL = {"avx512": {BATCH: 230.0, 1: 189.0}, "avx512, halves": {BATCH: 129.0, 1: 114.0}, "avx2": {BATCH: 94.0, 1: 77.0}}
USUAL_SHARE = 0.8


def usual():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    if " avx512f" not in text:
        return USUAL["avx2"]
    zen4 = "AuthenticAMD" in text and re.search(r"^cpu family\s*: 25$", text, re.MULTILINE)
    return USUAL["avx512, halves" if zen4 else "avx512"]  # Zen 4 takes two cycles for 512 bits


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


def cpu_seconds(pid):
    """That all threads of a process have used so far."""
    return time.clock_gettime(~pid << 3 | 2)  # the number of its CPU clock, clock_getcpuclockid(3)


def settle(pids):
    """Returns when both sides are idle."""
    end = time.monotonic() + SETTLE_S_MAX
    while time.monotonic() < end:
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(SETTLE_S)
        if all(cpu_seconds(pid) - start < IDLE_SHARE * SETTLE_S for pid, start in zip(pids, before)):
            return
    sys.exit(f"embed: a process is still busy {SETTLE_S_MAX} s after its turn")


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

    def seconds(self, calls):
        return self.ask(f"time {len(calls[0])} {self.write('calls', sum(calls, []))}")

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

    @staticmethod
    def feed(ids):
        ids = np.array(ids, np.int32)
        return {"ids": ids, "types": np.zeros_like(ids)}

    def seconds(self, calls):
        feeds = [self.feed(ids) for ids in calls]
        start = time.perf_counter()
        for feed in feeds:
            vectors = self.session.run(None, feed)[0].mean(1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return time.perf_counter() - start


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class Row:
    """`calls` batches of `batch` texts, one straight after the other."""

    def __init__(self, batch, calls=1):
        self.batch, self.calls = batch, calls
        self.texts = batch * calls
        self.pairs = 60 if self.texts == 1 else 20  # of turns

    def name(self):
        if self.batch > 1:
            return f"batch {self.batch} x {LENGTH} wordpieces"
        return f"one text of {LENGTH} wordpieces, " + ("alone" if self.calls == 1 else f"{self.calls} in succession")

    def figure(self, seconds):
        """Chunks a second, or milliseconds for a single text."""
        return round(self.texts / seconds, 1) if self.batch > 1 else round(1e3 * seconds / self.texts, 2)


ROWS = [Row(BATCH), Row(1), Row(1, calls=20)]


def measure(ours, peer, row, ids):
    """Medians of both, and of the ratio of neighbouring turns."""
    pids = [ours.process.pid, os.getpid()]
    times = []
    for i in range(row.pairs + 2):
        at = i * row.texts % (len(ids) - row.texts)
        calls = [ids[at + c * row.batch:at + (c + 1) * row.batch] for c in range(row.calls)]
        pair = []
        for side in (ours, peer):
            settle(pids)
            pair.append(side.seconds(calls))
        times.append(pair)
    times = np.array(times[2:])  # the first two warm up
    return np.median(times[:, 0]), np.median(times[:, 1]), np.median(times[:, 1] / times[:, 0])


def report(numbers, row, ours, peer, ratio, cosine):
    least = {"fp32": 0.99999, "fp16": 0.9999}[numbers]
    peer_usual = row.texts / usual()[row.batch]
    return {"bench": "embed", "row": f"{numbers}, {row.name()}, {THREADS} threads, each while the other is idle",
            "unit": "chunks/s" if row.batch > 1 else "ms", "ours": row.figure(ours), "peer": row.figure(peer),
            "peer_name": f"onnxruntime {onnxruntime.__version__}, fp32, BERT fusion, all optimisations, spinning",
            "ratio": round(float(ratio), 3), "one_minus_cosine": float(f"{1 - cosine:.2e}"),
            "pass": bool(ratio >= 1.0 and cosine >= least), "peer_usual": row.figure(peer_usual),
            "valid": bool(peer_usual >= USUAL_SHARE * peer)}


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
            for row in ROWS:
                rows.append(report(numbers, row, *measure(ours, peer, row, equal), cosine))
                print(json.dumps(rows[-1]), flush=True)
            ours.close()
    if any(r["valid"] and not r["pass"] for r in rows):
        sys.exit(1)
    sys.exit(0 if all(r["valid"] for r in rows) else 3)


main()
