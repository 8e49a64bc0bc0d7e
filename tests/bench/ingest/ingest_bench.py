"""See ../ingest.sh."""
import argparse
import contextlib
import glob
import hashlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from retriever import TOKENIZER, Retriever, resident_mb

SEED = 11

# speed
THREADS = 2
ROUNDS = 6
DOCUMENTS_A_ROUND, DOCUMENT_BYTES = 60, 4000
BATCHES = (16, 32, 64, 128)
RATIO_LEAST = 0.9
# The embedder alone on two idle cores of the kinds of machine known, chunks a second; below this share of it somebody
# else was at work.
USUAL = {"avx512": 400.0, "avx2": 163.0}
USUAL_SHARE = 0.8

# memory
STORE_MB = 96  # --store-memory-bytes, by default
SAMPLE_S = 0.25  # and the time that asking for the index takes
SLACK_MB = 48  # documents in flight, threads, allocators
# What may come on top of what a process has at its start: of the retriever its --store-memory-bytes, and again the third of it
# that is write buffers, while a full set is written and the next one fills.
BOUNDS_MB = {"retriever without its index": STORE_MB + STORE_MB // 3, "command": 0}
# How much more memory the last third of a run may take than the second one (the first warms up), by their means: merging in the
# background goes up and down by tens of megabytes, which a mean evens out where a median or a percentile is a matter of luck. Peaks
# are what the bound above is for.
GROWTH_MB = 8
GIVEN_DIMENSION = 256
POOL = 1000  # different vectors and words to choose from: writing the file must not take longer than reading it


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
    return "\n".join(json.loads(line)["text"] for line in text.splitlines()[:5000])


def index_store_chunks(retriever):
    """Megabytes of the index and of the store's memory, as they say themselves, and chunks in the index."""
    (shard,) = retriever.run("stats")["shards"]
    index = sum(int(s["memory_bytes"]) for c in shard["collections"] for s in c.get("segments", []))
    index += sum(int(c.get(f"{what}_memory_bytes", 0)) for c in shard["collections"] for what in ("document", "building"))
    store = int(shard["memory"].get("cache_bytes", 0)) + int(shard["memory"].get("table_bytes", 0))
    return index / 2**20, store / 2**20, sum(int(c.get("chunks", 0)) for c in shard["collections"])


# ------------------------------------------------------------------------------------------------ speed
class EmbedderAlone:
    def __init__(self, build, model):
        self.process = subprocess.Popen([f"{build}/bench/embedder_bench", model, TOKENIZER, str(THREADS)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=dict(os.environ, OMP_WAIT_POLICY="passive"))

    def speed(self, path, batch):
        """Chunks, and chunks a second."""
        self.process.stdin.write(f"time {path} {batch}\n")
        self.process.stdin.flush()
        chunks, seconds = self.process.stdout.readline().split()
        return int(chunks), int(chunks) / float(seconds)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_rounds(text, folder):
    paths = []
    for number in range(ROUNDS + 1):  # the first warms up
        path = f"{folder}/round{number}.jsonl"
        with open(path, "w", encoding="utf-8") as f:
            for i in range(DOCUMENTS_A_ROUND):
                begin = (number * DOCUMENTS_A_ROUND + i) * DOCUMENT_BYTES % max(1, len(text) - DOCUMENT_BYTES)
                f.write(json.dumps({"id": f"{number}-{i}", "text": text[begin:begin + DOCUMENT_BYTES]}) + "\n")
        paths.append(path)
    return paths


def ingest_speed(retriever, path):
    start = time.perf_counter()
    summary = retriever.run("ingest", path)
    return summary["chunks"], summary["chunks"] / (time.perf_counter() - start)


def measure_speed(options):
    with tempfile.TemporaryDirectory(prefix="retro-bench-") as folder:
        warm_up, *paths = write_rounds(read_text(options.texts), folder)
        alone = EmbedderAlone(options.build, options.model)
        retriever = Retriever(options.build, folder, options.model, THREADS)
        alone.speed(warm_up, BATCHES[0])
        batch = max(BATCHES, key=lambda size: alone.speed(warm_up, size)[1])
        ingest_speed(retriever, warm_up)
        ours, peers = [], []
        for number, path in enumerate(paths):
            sides = [lambda: ours.append(ingest_speed(retriever, path)), lambda: peers.append(alone.speed(path, batch))]
            for side in sides if number % 2 == 0 else reversed(sides):
                side()
        retriever.stop()
        alone.close()
    if [chunks for chunks, _ in ours] != [chunks for chunks, _ in peers]:
        sys.exit("ingest: the two sides did not have the same chunks")
    ratio = statistics.median(o / p for (_, o), (_, p) in zip(ours, peers))
    peer = statistics.median(p for _, p in peers)
    usual = USUAL["avx512" if " avx512f" in pathlib.Path("/proc/cpuinfo").read_text() else "avx2"]
    return {"bench": "ingest", "row": f"BERT, {THREADS} threads, {sum(c for c, _ in ours)} chunks of 64 tokens", "unit": "chunks/s",
            "ours": round(statistics.median(o for _, o in ours), 1), "peer": round(peer, 1),
            "peer_name": f"the embedder alone, batches of {batch}", "ratio": round(ratio, 3),
            "least": round(min(o / p for (_, o), (_, p) in zip(ours, peers)), 3), "pass": ratio >= RATIO_LEAST,
            "peer_usual": usual, "valid": peer >= USUAL_SHARE * usual}


# ------------------------------------------------------------------------------------------------ memory
def write_documents(path, megabytes):
    rng = random.Random(SEED)
    words = [f"{a}{b}" for a in ("re", "in", "con", "de", "sub", "trans", "per", "ex", "pro", "ad")
             for b in ("form", "struct", "duct", "port", "scribe", "mit", "fer", "pose", "tract", "gress", "ple", "cede", "flect")]
    lines = [" ".join(rng.choices(words, k=12)) for _ in range(POOL)]
    size, number = 0, 0
    with open(path, "w", encoding="ascii") as f:
        while size < megabytes * 1e6:
            text = ". ".join(rng.choices(lines, k=rng.randrange(200, 2000)))
            size += f.write(json.dumps({"id": f"document-{number}", "text": text}) + "\n")
            number += 1


def write_documents_with_vectors(path, megabytes, chunk_counts):
    """`chunk_counts`: text to the number of its chunks."""
    rng = random.Random(SEED)
    vectors = ["[" + ",".join(f"{rng.uniform(-1, 1):.4f}" for _ in range(GIVEN_DIMENSION)) + "]" for _ in range(POOL)]
    fingerprint = hashlib.sha256(f"retro hash embedder, version 1, dimension {GIVEN_DIMENSION}".encode()).hexdigest()
    texts = list(chunk_counts)
    size, number = 0, 0
    with open(path, "w", encoding="ascii") as f:
        while size < megabytes * 1e6:
            text = texts[number % len(texts)]
            head = json.dumps({"id": f"document-{number}", "text": text, "embedder_fingerprint": fingerprint})
            size += f.write(f'{head[:-1]},"vectors":[{",".join(rng.choices(vectors, k=chunk_counts[text]))}]}}\n')
            number += 1


def count_chunks(build, folder):
    """Texts and how many chunks the retriever cuts them into."""
    path = f"{folder}/few.jsonl"
    write_documents(path, 0.3)
    os.mkdir(f"{folder}/few")
    retriever = Retriever(build, f"{folder}/few", f"hash:{GIVEN_DIMENSION}", THREADS)
    retriever.run("ingest", path)
    texts = {document["id"]: document["text"] for document in map(json.loads, open(path, encoding="ascii"))}
    counts = {text: int(retriever.run("get", name)["info"]["chunk_count"]) for name, text in texts.items()}
    retriever.stop()
    return counts


class Sampler:
    """Of a running ingest, every SAMPLE_S: share done, memory of the retriever without its index, of the command, the index,
    what the store says it has itself, and what the retriever has mapped."""

    def __init__(self, retriever, command, path):
        self.samples, self.chunks = [], 0
        size = os.path.getsize(path)
        while command.poll() is None:
            done = self.bytes_read(command.pid)
            index, store, chunks = index_store_chunks(retriever)
            service, client = resident_mb(retriever.process.pid), resident_mb(command.pid)
            mapped = resident_mb(retriever.process.pid, "RssFile")
            if service and client and mapped:
                self.chunks = chunks
                self.samples.append((done / size, service - index, client, index, store, mapped))
            time.sleep(SAMPLE_S)

    @staticmethod
    def bytes_read(pid):
        with contextlib.suppress(OSError, ValueError):
            for line in pathlib.Path(f"/proc/{pid}/io").read_text().split("\n"):
                if line.startswith("rchar"):
                    return int(line.split()[1])
        return 0

    def growth(self, column):
        """Megabytes from the second third to the last."""
        second = [s[column] for s in self.samples if 1 / 3 <= s[0] < 2 / 3]
        last = [s[column] for s in self.samples if s[0] >= 2 / 3]
        return statistics.fmean(last) - statistics.fmean(second) if second and last else None


def memory_rows(retriever, path, name):
    base = {1: retriever.resident_at_start, 2: 0}
    start = time.perf_counter()
    command = retriever.start("ingest", "--json", "--quiet", path)
    output = []
    reader = threading.Thread(target=lambda: output.append(command.stdout.read()))
    reader.start()
    sampler = Sampler(retriever, command, path)
    reader.join()
    seconds = time.perf_counter() - start
    if command.returncode != 0:
        sys.exit(f"ingest: the ingest of {name} ended with {command.returncode}: {output[-1][-500:]}")
    for column, process in ((1, "retriever without its index"), (2, "command")):
        values = [s[column] for s in sampler.samples]
        growth = sampler.growth(column)
        allowed = BOUNDS_MB[process] + SLACK_MB
        above = max(values) - base[column]
        yield {"bench": "ingest", "row": f"memory of the {process}, {os.path.getsize(path) / 1e9:.2f} GB, {name}", "unit": "MB",
               "ours": round(above, 1), "peer": allowed, "peer_name": "most allowed above what it has at its start",
               "ratio": round(allowed / max(above, 1), 2), "valid": growth is not None,
               "pass": above <= allowed and growth is not None and growth <= GROWTH_MB,
               "growth_in_last_third": None if growth is None else round(growth, 1), "growth_most": GROWTH_MB,
               "at_start": round(base[column]), "store_most": round(max(s[4] for s in sampler.samples)),
               "curve": [round(v) for v in values[::max(1, len(values) // 12)]], "index_mb": round(sampler.samples[-1][3]),
               "index_bytes_a_chunk": round(sampler.samples[-1][3] * 2**20 / max(1, sampler.chunks)),
               "mapped_most": round(max(s[5] for s in sampler.samples)),
               "seconds": round(seconds, 1)}


def measure_memory(options):
    with tempfile.TemporaryDirectory(prefix="retro-bench-") as folder:
        path = f"{folder}/documents.jsonl"
        write_documents(path, options.megabytes)
        os.mkdir(f"{folder}/hash")
        retriever = Retriever(options.build, f"{folder}/hash", "hash:8", THREADS)
        yield from memory_rows(retriever, path, "hash embedder")
        yield from memory_rows(retriever, path, "unchanged")
        retriever.stop()
    with tempfile.TemporaryDirectory(prefix="retro-bench-") as folder:
        path = f"{folder}/vectors.jsonl"
        write_documents_with_vectors(path, options.megabytes, count_chunks(options.build, folder))
        os.mkdir(f"{folder}/given")
        retriever = Retriever(options.build, f"{folder}/given", f"hash:{GIVEN_DIMENSION}", THREADS)
        yield from memory_rows(retriever, path, "vectors given")
        retriever.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--megabytes", type=float, default=1000)
    options = parser.parse_args()
    rows = []
    if options.only != "memory":
        rows.append(measure_speed(options))
        print(json.dumps(rows[-1]), flush=True)
    if options.only != "speed":
        for row in measure_memory(options):
            rows.append(row)
            print(json.dumps(row), flush=True)
    sys.exit(1 if any(row["valid"] and not row["pass"] for row in rows) else 3 if any(not row["valid"] for row in rows) else 0)


if __name__ == "__main__":
    main()
