"""Vectors, queries and their true neighbours for benchmarks of the store: see make.sh. Prints the folder that holds them."""
import argparse
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import faiss
import numpy as np

ROOT = pathlib.Path(__file__).parents[3]
TOKENIZER = str(ROOT / "common/tokenizer/retro-16k.model")
SEED = 5
DIMENSION, K, QUERIES = 384, 10, 1000
THREADS = 2
CLUSTERS = 256
AXES = 128  # of the residuals' covariance; the rest of it is spread evenly
ROWS_AT_ONCE = 250_000  # made single precision


def read_documents(path):
    if path.endswith(".zst"):
        text = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    else:
        text = pathlib.Path(path).read_text(errors="replace")
    if ".jsonl" in path:
        return [json.loads(line)["text"] for line in text.split("\n") if line]  # other ends of a line may be in a text
    return text.split("\n\n")


def default_documents():
    files = sorted(pathlib.Path("/usr/share/doc").glob("*/copyright"))
    return list(dict.fromkeys(file.read_text(errors="replace") for file in files if file.is_file()))


def real_vectors(options):
    """Embeddings of the documents' chunks in the documents' order, so that the last ones are of documents of their own."""
    documents = read_documents(options.texts) if options.texts else default_documents()
    lines, size = [], 0
    for document in documents:
        if size > (options.real + QUERIES) * 300:  # about 250 bytes a chunk
            break
        if document.strip():
            lines.append(json.dumps({"text": document}) + "\n")
            size += len(document.encode())
    text = "".join(lines)
    folder = pathlib.Path(options.cache)
    folder.mkdir(parents=True, exist_ok=True)
    chunks = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    cached = chunks.with_suffix(".f32")
    if not cached.exists():
        chunks.write_text(text, encoding="utf-8")
        print(f"vectors: embedding {chunks}", file=sys.stderr)
        subprocess.run([f"{options.build}/bench/embedder_bench", options.model, TOKENIZER, str(THREADS)], check=True,
                       input=f"write {chunks} 64\n", text=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, OMP_WAIT_POLICY="passive"))
        os.rename(f"{chunks}.f32", cached)
        chunks.unlink()
    vectors = np.fromfile(cached, np.float32).reshape(-1, DIMENSION)
    return np.unique(vectors.astype(np.float16), axis=0, return_index=True)[1], vectors


def mixture(real, count, rng):
    kmeans = faiss.Kmeans(DIMENSION, min(CLUSTERS, len(real) // 40 + 1), niter=20, seed=SEED)
    kmeans.train(real)
    cluster = kmeans.index.search(real, 1)[1][:, 0]
    residuals = real - kmeans.centroids[cluster]
    values, axes = np.linalg.eigh(residuals.T @ residuals / len(real))
    values, axes = values[::-1], axes[:, ::-1]
    rest = np.sqrt(values[AXES:].mean())
    projected = residuals @ axes[:, :AXES]
    spread = np.sqrt(np.stack([(projected[cluster == c] ** 2).mean(0) if (cluster == c).sum() > 5 else values[:AXES]
                               for c in range(len(kmeans.centroids))]))
    for begin in range(0, count, 100_000):
        drawn = rng.choice(cluster, min(100_000, count - begin))
        noise = rng.standard_normal((len(drawn), DIMENSION), np.float32)
        noise[:, :AXES] *= spread[drawn]
        noise[:, AXES:] *= rest
        vectors = kmeans.centroids[drawn] + noise @ axes.T.astype(np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Vectors:
    """In a folder that what is made of them is kept in as well."""

    def __init__(self, options):
        unique, vectors = real_vectors(options)
        order = np.sort(unique)
        self.queries, real = vectors[order[-QUERIES:]], vectors[order[:-QUERIES][:options.real]]
        self.queries, self.real = np.ascontiguousarray(self.queries), min(len(real), options.vectors)
        digest = hashlib.sha256(real.tobytes() + self.queries.tobytes() + f"{options.vectors} {SEED} 1".encode())
        self.folder = pathlib.Path(options.cache) / f"{digest.hexdigest()[:16]}-{options.vectors}"
        self.folder.mkdir(exist_ok=True)
        kept(self.folder / "queries.f32", read_nothing, self.queries.tofile)
        self.half = kept(self.folder / "base.f16", lambda path: np.memmap(path, np.float16, "r").reshape(-1, DIMENSION),
                         lambda path: self.make(real, options.vectors).tofile(path))
        self.truth = kept(self.folder / "truth.i64", lambda path: np.fromfile(path, np.int64).reshape(-1, K),
                          lambda path: self.exact().tofile(path))

    @functools.cached_property
    def base(self):
        return self.half.astype(np.float32)

    @staticmethod
    def make(real, count):
        rng = np.random.default_rng(SEED)
        parts = [part.astype(np.float16) for part in (real, *mixture(real, max(0, count - len(real)), rng))]
        base = np.concatenate(parts)[:count]
        return base[rng.permutation(len(base))]

    def exact(self):
        distances, rows = [], []
        for begin in range(0, len(self.half), ROWS_AT_ONCE):
            flat = faiss.IndexFlatL2(DIMENSION)
            flat.add(self.half[begin:begin + ROWS_AT_ONCE].astype(np.float32))
            nearest, found = flat.search(self.queries, K)
            distances.append(nearest)
            rows.append(found + begin)
        nearest = np.argsort(np.concatenate(distances, axis=1), axis=1, kind="stable")[:, :K]
        return np.take_along_axis(np.concatenate(rows, axis=1), nearest, axis=1)


def read_nothing(path):
    return None


def kept(path, read, write):
    """What `path` holds, made first if it is missing. All of it takes minutes, and is the same every time."""
    if not path.exists():
        print(f"vectors: making {path}", file=sys.stderr)
        temporary = path.with_name("new-" + path.name)
        write(str(temporary))
        os.rename(temporary, path)
    return read(str(path))


def add_arguments(parser):
    for name in ("build", "model", "texts", "cache"):
        parser.add_argument("--" + name)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--real", type=int, default=100_000)


def main():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    print(Vectors(parser.parse_args()).folder)


if __name__ == "__main__":
    main()
