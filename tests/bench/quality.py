"""Retrieval quality of a running retriever, beside brute force over the same chunks with an independent embedder.

The reference embedder is MiniLM in plain NumPy (fp32) with PyPI's tokenizers; it shares no code with ours. Documents are ranked by
their best chunk; judgements are binary. The retriever searches once exactly, and once as it does by default, through the lists of
sealed segments.
"""

import argparse
import collections
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import grpc
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retro.retriever.v1 import document_pb2, retriever_pb2, retriever_pb2_grpc

RANKS = 10
TOLERANCE_POINTS = 0.2
# Figures for chunks of 64 wordpieces instead of 64 pieces of our vocabulary, measured apart: to be read beside ours.
WORDPIECE_CHUNKS = {"xquad": {"ndcg@10": 0.950, "hit@5": 0.985}, "cranfield": {"ndcg@10": 0.489}}


SEAL_CHUNKS = 400  # so that stores as small as these have lists
SEGMENTS_S = 120
EFFORTS = {"exact": retriever_pb2.Effort(exact=True), "by lists, default effort": None}


class ReferenceEmbedder:
    """BERT (Devlin et al. 2019) with mean pooling and normalisation, as sentence-transformers runs MiniLM."""

    def __init__(self, folder):
        self.w = load_file(os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "config.json")) as f:
            self.config = json.load(f)
        with open(os.path.join(folder, "sentence_bert_config.json")) as f:
            length = json.load(f)["max_seq_length"]
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.enable_truncation(length)
        self.tokenizer.no_padding()

    def norm(self, x, name):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + self.config["layer_norm_eps"]) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def forward(self, ids):  # ids [batch, length] -> [batch, width]
        heads = self.config["num_attention_heads"]
        e = "embeddings."
        x = self.w[e + "word_embeddings.weight"][ids] + self.w[e + "position_embeddings.weight"][: ids.shape[1]]
        x = self.norm(x + self.w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
        b, n, d = x.shape
        for i in range(self.config["num_hidden_layers"]):
            p = f"encoder.layer.{i}."
            q, k, v = (self.linear(x, p + "attention.self." + part).reshape(b, n, heads, -1).transpose(0, 2, 1, 3) for part in ("query", "key", "value"))
            a = q @ k.transpose(0, 1, 3, 2) / math.sqrt(d // heads)
            a = np.exp(a - a.max(-1, keepdims=True))
            a /= a.sum(-1, keepdims=True)
            context = (a @ v).transpose(0, 2, 1, 3).reshape(b, n, d)
            x = self.norm(x + self.linear(context, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            h = self.linear(x, p + "intermediate.dense")
            h = h * 0.5 * (1 + erf(h / math.sqrt(2)))
            x = self.norm(x + self.linear(h, p + "output.dense"), p + "output.LayerNorm")
        x = x.mean(1)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def embed(self, texts):
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        vectors = np.zeros((len(texts), self.config["hidden_size"]), np.float32)
        by_length = {}
        for i, sequence in enumerate(ids):
            by_length.setdefault(len(sequence), []).append(i)
        for places in by_length.values():
            for start in range(0, len(places), 64):
                part = places[start : start + 64]
                vectors[part] = self.forward(np.array([ids[i] for i in part]))
        return vectors


def erf(x):
    """Abramowitz and Stegun 7.1.28; error at most 3e-7."""
    a = np.abs(x)
    p = 1 + a * (0.0705230784 + a * (0.0422820123 + a * (0.0092705272 + a * (0.0001520143 + a * (0.0002765672 + a * 0.0000430638)))))
    with np.errstate(over="ignore"):  # infinite is right: 1 / p is 0
        for _ in range(4):
            p = p * p
    return np.sign(x) * (1 - 1 / p)


def read_jsonl(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def scores(rankings, relevant):
    """rankings: query -> document ids, best first. -> mean nDCG@10 and hit@5, in 0 ... 1."""
    ndcg, hit = [], []
    for query, judged in relevant.items():
        found = rankings[query][:RANKS]
        gain = sum(1 / math.log2(rank + 2) for rank, document in enumerate(found) if document in judged)
        best = sum(1 / math.log2(rank + 2) for rank in range(min(len(judged), RANKS)))
        ndcg.append(gain / best)
        hit.append(any(document in judged for document in found[:5]))
    return {"ndcg@10": float(np.mean(ndcg)), "hit@5": float(np.mean(hit))}


def ingest(stub, documents):
    writes = [retriever_pb2.DocumentWrite(document=document_pb2.Document(id=d["id"], title=d["title"], text=d["text"])) for d in documents if d["text"]]
    for start in range(0, len(writes), 64):
        reply = stub.UpsertDocuments(retriever_pb2.UpsertDocumentsRequest(writes=writes[start : start + 64]))
        for result in reply.results:
            assert not result.HasField("error"), result.error.message
    return [write.document.id for write in writes]


def wait_for_segments(stub):
    """Until all but what is too little for a segment has lists."""
    end = time.monotonic() + SEGMENTS_S
    while True:
        (collection,) = stub.Stats(retriever_pb2.StatsRequest()).shards[0].collections
        kinds = collections.Counter()
        for segment in collection.segments:
            kinds[segment.kind] += segment.vectors
        if collection.index_state == retriever_pb2.INDEX_STATE_READY and kinds["exact"] < SEAL_CHUNKS:
            return ", ".join(f"{vectors} in {kind}" for kind, vectors in kinds.items() if vectors)
        if time.monotonic() > end:
            sys.exit(f"quality: no segments after {SEGMENTS_S} s: {kinds}")
        time.sleep(0.2)


def search(stub, queries, effort):
    rankings = {}
    for start in range(0, len(queries), 64):
        part = queries[start : start + 64]
        reply = stub.Search(
            retriever_pb2.SearchRequest(
                queries=[retriever_pb2.Query(text=q["text"], text_kind=retriever_pb2.TEXT_KIND_QUERY) for q in part],
                k=RANKS, max_chunks_per_document=1, effort=effort))
        for query, result in zip(part, reply.results):
            rankings[query["id"]] = [n.document_id for n in result.neighbours]
    return rankings


def brute_force(stub, embedder, ids, queries):
    owners, texts = [], []
    for document in ids:
        for chunk in stub.GetChunks(retriever_pb2.GetChunksRequest(document_id=document)).chunks:
            owners.append(document)
            texts.append(chunk.text)
    chunks = embedder.embed(texts)
    asked = embedder.embed([q["text"] for q in queries])
    rankings = {}
    for query, vector in zip(queries, asked):
        ranking = []
        for place in np.argsort(-(chunks @ vector), kind="stable"):
            if owners[place] not in ranking:
                ranking.append(owners[place])
            if len(ranking) == RANKS:
                break
        rankings[query["id"]] = ranking
    return rankings, len(texts)


def run(name, arguments, embedder):
    folder = os.path.join(arguments.data, name)
    queries = read_jsonl(os.path.join(folder, "queries.jsonl"))
    relevant = {}
    with open(os.path.join(folder, "qrels.tsv")) as f:
        for line in f:
            query, document, grade = line.split()
            if int(grade) > 0:
                relevant.setdefault(query, set()).add(document)
    queries = [q for q in queries if q["id"] in relevant]
    with tempfile.TemporaryDirectory() as data:
        port = 17700 + os.getpid() % 1000
        server = subprocess.Popen([arguments.program, "--data", os.path.join(data, "store"), "--embedder", arguments.embedder, "--tokenizer",
                                   arguments.tokenizer, "--listen", f"127.0.0.1:{port}", "--log-level", "warning",
                                   "--index-seal-chunks", str(SEAL_CHUNKS)])
        try:
            channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", 64 << 20)])
            grpc.channel_ready_future(channel).result(timeout=60)
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            start = time.time()
            ids = ingest(stub, read_jsonl(os.path.join(folder, "corpus.jsonl")))
            seconds = time.time() - start
            segments = wait_for_segments(stub)
            ours = {how: scores(search(stub, queries, effort), relevant) for how, effort in EFFORTS.items()}
            rankings, chunks = brute_force(stub, embedder, ids, queries)
            reference = scores(rankings, relevant)
        finally:
            server.terminate()
            server.wait()
    good = True
    for how, figure in itertools.product(ours, ("ndcg@10", "hit@5")):
        value = ours[how][figure]
        passed = abs(value - reference[figure]) * 100 <= TOLERANCE_POINTS
        good &= passed
        print(json.dumps({"bench": f"quality/{name}/{figure}", "search": how, "ours": round(value, 4), "peer": round(reference[figure], 4),
                          "peer_name": "brute force, NumPy MiniLM, same chunks", "ratio": round(value / reference[figure], 4), "pass": passed,
                          "wordpiece_chunks": WORDPIECE_CHUNKS[name].get(figure), "documents": len(ids), "chunks": chunks, "segments": segments,
                          "queries": len(queries), "ingest_seconds": round(seconds, 1)}), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "tokenizer", "embedder", "data"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    embedder = ReferenceEmbedder(arguments.embedder)
    results = [run(name, arguments, embedder) for name in ("xquad", "cranfield")]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
