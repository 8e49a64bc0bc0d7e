"""See ../scale.sh."""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

from retriever import Retriever, resident_mb

THREADS = 2
RECALL = 0.95
START_MAX_S = 10
INDEX_BYTES_MAX = 128  # of memory a vector, without the mapped ones
START_VECTORS = 1_000_000  # that the promise is about


def files(folder):
    return [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]


def forget(folder):
    """Out of the page cache, as after the machine was started."""
    os.sync()
    for path in files(folder):
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def between(points, name):
    """At RECALL, by linear interpolation between the two efforts around it."""
    low, high = points[-2] if len(points) > 1 else points[-1], points[-1]
    share = (RECALL - low["recall"]) / max(high["recall"] - low["recall"], 1e-9) if low["recall"] < RECALL else 0
    return low[name] + (high[name] - low[name]) * min(1, share)


def measure(options, vectors):
    build = json.loads(pathlib.Path(vectors, "store.json").read_text())
    forget(f"{vectors}/store")
    cold = Retriever(options.build, vectors, options.model, THREADS)
    cold.stop()
    retriever = Retriever(options.build, vectors, options.model, THREADS)
    command = [f"{options.build}/bench/search_bench", retriever.address, vectors, str(RECALL)]
    for _ in range(2):  # as a server that has run for a while: what the first touches is mapped and cached for the second
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    points = [json.loads(line) for line in lines]
    for point in points:
        print(f"scale: {vectors} {point}", file=sys.stderr)
    (shard,) = retriever.run("stats")["shards"]
    (collection,) = shard["collections"]
    row = {"chunks": int(collection["chunks"]), "recall": min(RECALL, points[-1]["recall"])}
    row |= {name: between(points, name) for name in ("effort", "p50_us", "p99_us", "index_us")}
    row |= {"ram_mb": resident_mb(retriever.process.pid), "ram_mapped_mb": resident_mb(retriever.process.pid, "RssFile"),
            "ram_index_mb": sum(int(s["memory_bytes"]) for s in collection["segments"]) / 2**20,
            "ram_documents_mb": int(collection["document_memory_bytes"]) / 2**20,
            "disk_mb": sum(path.stat().st_size for path in files(f"{vectors}/store")) / 2**20,
            "segments": [f"{s['kind']} {s['vectors']}" for s in collection["segments"]],
            "build_seconds": build["build_seconds"], "build_processor_seconds": build["build_processor_seconds"],
            "start_seconds": retriever.start_seconds, "start_seconds_cold": cold.start_seconds}
    retriever.stop()
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("vectors", nargs="+", help="folders of sizes that grow, each with its store")
    options = parser.parse_args()
    before, passed = None, True
    for vectors in options.vectors:
        row = measure(options, vectors)
        slowest = max(row["start_seconds"], row["start_seconds_cold"])
        starts = row["chunks"] > START_VECTORS or slowest <= START_MAX_S
        rows = [{"row": f"start with {row['chunks']} chunks", "unit": "s", "ours": slowest, "peer": START_MAX_S,
                 "peer_name": f"the promise, for {START_VECTORS}", "ratio": START_MAX_S / slowest, "pass": starts, **row}]
        each = row["ram_index_mb"] * 2**20 / row["chunks"]
        rows.append({"row": f"index memory a vector, {row['chunks']} chunks in the segments of a live store", "unit": "bytes", "ours": each,
                     "peer": INDEX_BYTES_MAX, "peer_name": "the promise, for an index of one segment", "ratio": INDEX_BYTES_MAX / each,
                     "pass": each <= INDEX_BYTES_MAX or row["chunks"] < START_VECTORS})
        if before is not None:
            grown = row["p50_us"] / before["p50_us"]
            allowed = math.sqrt(row["chunks"] / before["chunks"])
            reached = row["recall"] >= RECALL
            rows.append({"row": f"median latency at recall@10 {RECALL}, {before['chunks']} to {row['chunks']} chunks", "unit": "times",
                         "ours": grown, "peer": allowed, "peer_name": "the square root of the growth", "ratio": allowed / grown,
                         "pass": reached and grown <= allowed})
        for line in rows:
            passed &= line["pass"]
            print(json.dumps({"bench": "scale", **line, "valid": True}), flush=True)
        before = row
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
