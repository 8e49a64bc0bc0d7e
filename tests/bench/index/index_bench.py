"""See ../index.sh."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import faiss
import numpy as np

from vectors import DIMENSION, K, QUERIES, SEED, THREADS, Vectors, add_arguments, kept

BATCH = 64
RECALL = 0.95
BYTES_MAX = 128
EFFORTS = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)


def recall(found, truth):
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, truth)]))


def timed(search, queries, seconds):
    """Queries a second, and what the last round found."""
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < seconds:
        found = np.concatenate([search(queries[i:i + BATCH]) for i in range(0, len(queries), BATCH)])
        done += len(queries)
    return done / (time.perf_counter() - start), found


def at_recall(points):
    """Queries a second at RECALL, by linear interpolation along the settings that nobody beats; None out of their range."""
    points = sorted((r, q) for r, q in points if not any(r2 >= r and q2 > q for r2, q2 in points))
    for (r1, q1), (r2, q2) in zip(points, points[1:]):
        if r1 <= RECALL <= r2:
            return q1 + (q2 - q1) * (RECALL - r1) / max(r2 - r1, 1e-9)
    return points[0][1] if points and points[0][0] >= RECALL else None


def show(name, setting, queries_per_second, r):
    print(f"index: {name:10s} {setting:16s} recall {r:.4f}  {queries_per_second:9.1f} queries/s", file=sys.stderr)


def run_ours(options, data, folder):
    command = [f"{options.build}/bench/index_bench", folder, str(DIMENSION), f"{data.folder}/base.f16",
               f"{data.folder}/queries.f32", str(BATCH), str(THREADS), str(options.seconds), *map(str, EFFORTS)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True,
                           env=dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(THREADS))).stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]  # the rest are words about building
    facts, points = rows[0], []
    print(f"index: ours {facts}", file=sys.stderr)
    for effort, row in zip(EFFORTS, rows[1:]):
        found = np.fromfile(f"{folder}/found.{effort}", np.uint64).reshape(QUERIES, K).astype(np.int64)
        points.append((recall(found, data.truth), row["queries_per_second"]))
        show("ours", f"effort {effort}", points[-1][1], points[-1][0])
    return facts, points


class Faiss:
    CODES = (DIMENSION // 2, DIMENSION // 4)

    def __init__(self, data):
        self.lists = 2 ** round(np.log2(4 * np.sqrt(len(data.base))))
        self.data = data
        self.inner = {codes: kept(data.folder / f"faiss.{codes}", faiss.read_index,
                                  lambda path, codes=codes: self.build(codes, path)) for codes in self.CODES}

    def build(self, codes, path):
        faiss.omp_set_num_threads(THREADS)
        index = faiss.index_factory(DIMENSION, f"IVF{self.lists}_HNSW32,PQ{codes}x4fs")
        same = self.data.folder / f"faiss.{self.CODES[0]}"
        if same.exists():  # the very same centroids, which `other` owns
            other = faiss.read_index(str(same))
            index.quantizer, index.own_fields = other.quantizer, False
        index.train(self.data.base[:64 * self.lists])
        index.add(self.data.base)
        faiss.write_index(index, path)

    def points(self, seconds):
        faiss.omp_set_num_threads(1)
        for codes, inner in self.inner.items():
            index = faiss.IndexRefineFlat(inner, faiss.swig_ptr(self.data.base))
            for nprobe, factors in ((16, (10, 20)), (32, (10, 20, 40)), (64, (5, 10, 20, 40)), (128, (5, 10, 20, 40)), (256, (10, 40))):
                faiss.downcast_index(inner.quantizer).hnsw.efSearch = max(16, nprobe)
                for factor in factors:
                    inner.nprobe, index.k_factor = nprobe, factor
                    speed, found = timed(lambda q: index.search(q, K)[1], self.data.queries, seconds)
                    yield f"PQ{codes} {nprobe}:{factor}", speed, found


class Scann:
    def __init__(self, data):
        import scann

        self.data = data
        self.searcher = kept(data.folder / "scann", scann.scann_ops_pybind.load_searcher, self.build)

    def build(self, path):
        import scann

        leaves = int(2 * np.sqrt(len(self.data.base)))  # its documentation: about the square root; it gains from more
        os.mkdir(path)
        # On unit vectors the order of dot products is that of distances, and what its documentation tunes.
        (scann.scann_ops_pybind.builder(self.data.base, K, "dot_product")
         .tree(num_leaves=leaves, num_leaves_to_search=40, training_sample_size=min(len(self.data.base), 250_000))
         .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()).serialize(path, relative_path=True)

    def points(self, seconds):
        for leaves, reorders in ((20, (50, 100)), (40, (50, 100, 200)), (80, (50, 100, 200, 400)), (160, (100, 200, 400))):
            for reorder in reorders:
                speed, found = timed(lambda q: self.searcher.search_batched(
                    q, leaves_to_search=leaves, pre_reorder_num_neighbors=reorder)[0].astype(np.int64),
                    self.data.queries, seconds)
                yield f"{leaves}/{reorder}", speed, found


class Hnswlib:
    def __init__(self, data):
        self.data = data
        self.index = kept(data.folder / "hnswlib", self.read, self.build)

    @staticmethod
    def read(path):
        import hnswlib

        index = hnswlib.Index("l2", DIMENSION)
        index.load_index(path)
        return index

    def build(self, path):
        import hnswlib

        index = hnswlib.Index("l2", DIMENSION)
        index.init_index(len(self.data.base), M=16, ef_construction=200, random_seed=SEED)
        index.add_items(self.data.base, num_threads=THREADS)
        index.save_index(path)

    def points(self, seconds):
        for ef in (20, 40, 80, 160, 320):
            self.index.set_ef(ef)
            speed, found = timed(lambda q: self.index.knn_query(q, K, num_threads=1)[0].astype(np.int64),
                                 self.data.queries, seconds)
            yield f"ef {ef}", speed, found


PEERS = {"faiss-cpu": Faiss, "scann": Scann, "hnswlib": Hnswlib}


def run_peer(name, data, seconds):
    points = []
    for setting, speed, found in PEERS[name](data).points(seconds):
        points.append((recall(found, data.truth), speed))
        show(name, setting, speed, points[-1][0])
    return points


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", choices=["prepare", "ours", *PEERS], help="prepare: make what is kept, measure nothing")
    parser.add_argument("--keep", help="folder that our index is in, or is made in")
    options = parser.parse_args()
    data = Vectors(options)
    if options.only == "prepare":
        for peer in PEERS.values():
            peer(data)
        return
    if options.only in PEERS:
        print(json.dumps({"peer_name": options.only, "peer": at_recall(run_peer(options.only, data, options.seconds))}))
        return
    with tempfile.TemporaryDirectory() as folder:
        facts, ours = run_ours(options, data, options.keep or folder)
    ours = at_recall(ours)
    if options.only == "ours":
        print(json.dumps({"ours": ours, **facts}))
        return
    peers = {name: at_recall(run_peer(name, data, options.seconds)) for name in PEERS}
    passed = True
    best = max(peers["faiss-cpu"] or 0, peers["scann"] or 0)
    for name, speed in peers.items():
        ratio = ours / speed if ours and speed else None
        promised = name != "hnswlib" and (speed or 0) == best
        row_passes = not promised or (ratio is not None and ratio >= 1.0)
        passed &= row_passes
        print(json.dumps({"bench": "index", "row": f"queries/s at recall@10 {RECALL}", "ours": ours, "peer": speed,
                          "peer_name": name, "ratio": ratio, "pass": row_passes, "valid": True,
                          "vectors": len(data.half), "real": data.real, **facts}))
    small = facts["index_bytes_a_vector"] <= BYTES_MAX
    print(json.dumps({"bench": "index", "row": "bytes of memory a vector, without the mapped ones",
                      "ours": facts["index_bytes_a_vector"], "peer": BYTES_MAX, "peer_name": "the promise",
                      "ratio": BYTES_MAX / facts["index_bytes_a_vector"], "pass": small, "valid": True}))
    sys.exit(0 if passed and small else 1)


main()
