"""Writes docs/scale.md: what a store of 10^9 and of 3 x 10^10 chunks takes, from figures.json beside this file, which holds what
benchmarks of this repository measured and says which. Everything else is arithmetic, stated in the document.
  project.py > docs/scale.md"""
import json
import math
import pathlib

FIGURES = json.loads(pathlib.Path(__file__).with_name("figures.json").read_text())
SIZES = FIGURES["scale"]  # rows of the scale bench, growing
LARGEST = SIZES[-1]
DIMENSION = 384
TOKENS_A_CHUNK = 64
STORES = (10**9, 3 * 10**10)
SHARDS_OF = (10**7, 10**8, 10**9)  # chunks
WIDE_CODES_MAX = 4_000_000  # these two: retriever_service/index/tuning.h
ROWS_A_LIST_MIN = 192
FLAT_LISTS_MAX, GRAPH_LINKS = 8192, 64  # beyond, a graph finds the nearest centroids, of single precision
SEGMENTS = ("The measured ones were of one segment each; a shard that takes documents is in several, and a search in it takes longer."
            if FIGURES["one_segment"] else "The measured ones were in as many segments as the store of a shard that takes documents.")
CODES_A_BLOCK = 32  # the last one of a list is half empty on average
THREADS_A_SHARD = 8  # of a router: retriever_service/query/shard_map.cc
GB = 1e9


def number(value):
    """Two digits, so that nobody takes it for more than it is."""
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    rounded = round(value, digits if value < 100 else -(math.floor(math.log10(value)) - 1))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.{digits}f}"


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])


def lists(chunks):
    return 2 ** min(round(math.log2(4 * math.sqrt(chunks))), math.floor(math.log2(chunks / ROWS_A_LIST_MIN)))


def index_bytes(chunks):
    """Of memory: codes and a row's number; centroids and what is empty in blocks of codes."""
    codes = DIMENSION // (2 if chunks <= WIDE_CODES_MAX else 4) // 2
    centroid = DIMENSION * 2 + codes if lists(chunks) <= FLAT_LISTS_MAX else DIMENSION * 4 + GRAPH_LINKS * 4
    return chunks * (codes + 4) + lists(chunks) * (centroid + CODES_A_BLOCK // 2 * codes)


def document_bytes(chunks):
    return LARGEST["ram_documents_mb"] * 2**20 / LARGEST["chunks"] * chunks


def rest_bytes():
    """Of a retriever with its embedder, store and allocators, beside the index."""
    return (LARGEST["ram_mb"] - LARGEST["ram_index_mb"] - LARGEST["ram_documents_mb"]) * 2**20


def disk_bytes(chunks):
    return LARGEST["disk_mb"] * 2**20 / LARGEST["chunks"] * chunks


def build_seconds(chunks):
    """Of one core. The last merge dominates, in which each vector is compared with as many centroids as the lists of its segment,
    4 sqrt(chunks): chunks ^ 1.5. The training of the centroids beside it grows as chunks, so this is an upper bound."""
    return LARGEST["build_processor_seconds"] * (chunks / LARGEST["chunks"]) ** 1.5


def start_hours(chunks):
    """Every byte of store and index is read and its checksum compared."""
    return LARGEST["start_seconds_cold"] * chunks / LARGEST["chunks"] / 3600


def latency_us(chunks):
    return LARGEST["p50_us"] * math.sqrt(chunks / LARGEST["chunks"])


def shard_row(chunks):
    return [f"{chunks:,}", number((index_bytes(chunks) + document_bytes(chunks) + rest_bytes()) / GB),
            number(chunks * DIMENSION * 2 / GB), number(disk_bytes(chunks) / GB), number(build_seconds(chunks) / 3600),
            number(start_hours(chunks)), number(latency_us(chunks) / 1000), number(1e6 / latency_us(chunks))]


def store_row(store, chunks):
    shards = store // chunks
    ram = (index_bytes(chunks) + document_bytes(chunks) + rest_bytes()) * shards
    return [f"{store:,}", f"{chunks:,}", f"{shards:,}", number(ram / GB), number(disk_bytes(store) / GB),
            number(build_seconds(chunks) * shards / 3600), number(latency_us(chunks) / 1000),
            number(latency_us(chunks) * shards / 1e6)]


def measured_row(row):
    return [f"{row['chunks']:,}", f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}", f"{row['recall']:.3f}", f"{row['ram_mb']:.0f}",
            f"{row['ram_index_mb']:.0f}", f"{row['disk_mb']:.0f}", f"{row['effort']:.2f}", f"{row['build_processor_seconds']:.0f}", f"{row['start_seconds']:.1f}"]


def growth():
    if len(SIZES) < 2:
        return "Only one size was measured, so how the median grows is not known."
    steps = []
    for small, large in zip(SIZES, SIZES[1:]):
        exponent = math.log(large["p50_us"] / small["p50_us"]) / math.log(large["chunks"] / small["chunks"])
        steps.append(f"from {small['chunks']:,} to {large['chunks']:,} chunks to the power {exponent:.2f}")
    return f"The median grew with the size {', '.join(steps)}; the square root, 0.50, is what is reckoned with beyond."


def embedding_row(name, rate):
    return [name, number(rate), *(number(store / rate / 3600) for store in STORES)]


print(f"""# A store of trillions of tokens

Written by `tests/bench/scale/project.py` from `figures.json` beside it; do not edit. **Measured** is what stands in the first table
and in the embedder's rates. **Everything else on this page is extrapolated**, by the rules given with it, from at most
{LARGEST['chunks']:,} chunks to {STORES[-1]:,}: by a factor of {number(STORES[-1] / LARGEST['chunks'])}. No shard of more than
{LARGEST['chunks']:,} chunks was ever built here, and no cluster of more than four shards ran.

## Measured

{FIGURES['machine']}. Vectors of {DIMENSION} numbers, k = 10, one search after the other over gRPC on loopback (`tests/bench/run.sh scale`).

{table(["chunks", "median, us", "p99, us", "recall@10", "memory, MiB", "of it index, MiB", "disk, MiB", "effort", "building, core seconds", "start, s"],
       [measured_row(row) for row in SIZES])}

{growth()}

## A shard

{table(["chunks", "memory, GB", "vectors on disk that want page cache, GB", "disk, GB", "building, core hours", "a cold start, hours", "a search, ms",
        "searches a second and core"],
       [shard_row(chunks) for chunks in SHARDS_OF])}

- **Memory** is what a process keeps: codes of the index (4 bits for two coordinates up to {WIDE_CODES_MAX:,} rows, for four beyond), 4
  bytes of a row's number, for each list its centroid and half a block of codes that is empty; what the index knows of documents, as measured a chunk with
  {FIGURES['chunks_a_document']} chunks a document and no metadata; and {number(rest_bytes() / GB)} GB of everything else, as measured.
  Coarser codes beyond {WIDE_CODES_MAX:,} rows find less by themselves: the candidates that keep recall at 0.95 were not measured there.
- **A cold start** reads every byte of store and index to compare its checksum, as fast as it was measured.
  `--no-verify-at-start` leaves out the store's half; what starts a shard has to wait so long (`startupProbe` of deploy/k8s).
- **Page cache**: candidates are compared with their vectors in the mapped file, about 100 a search and segment at these efforts, each a random read of
  {DIMENSION * 2} bytes. What of it is not in memory costs a read of the disk: at 100 us each a search takes 10 ms more.
- **Disk** as measured a chunk: vectors twice (store and index), text, tokens, log. A merge wants as much again while it runs.
- **Building**: sealing and merging, without embedding. The measured core seconds of {LARGEST['chunks']:,} chunks times the growth to the
  power 1.5, since lists grow as the square root; of what was measured, the training of the centroids grows as the size alone. Beyond 8,192 lists a graph finds the nearest, which grows slower: for large shards
  this is too much rather than too little. Measured on a {'quiet' if FIGURES['build_was_quiet'] else 'busy'} machine.
- **A search** as the square root of the size, from the median at {LARGEST['chunks']:,}: on one core, which it has for itself. That
  is for an effort which is lowered as the store grows, to what keeps recall at 0.95, as in the measured rows; at one effort a search
  reads a fixed share of the lists, and takes as much longer as there is more in them. {SEGMENTS}

## A store

{table(["chunks", "a shard", "shards", "memory, GB", "disk, GB", "building, core hours", "a search, ms", "core seconds a search"],
       [store_row(store, chunks) for store in STORES for chunks in SHARDS_OF if chunks <= store])}

One replica of each; every further one takes the same memory and disk again. {STORES[0]:,} chunks are
{STORES[0] * TOKENS_A_CHUNK / 1e9:.0f} billion tokens, {STORES[1]:,} are {STORES[1] * TOKENS_A_CHUNK / 1e12:.1f} trillion. A search asks every shard, so its
core seconds are those of one shard times their number: few large shards cost less a search, many small ones answer sooner and are
built, copied and replaced sooner. The slowest shard decides, and more shards have a slower slowest one; how much slower was not
measured. What a router adds: {FIGURES['router_us']:.0f} us a search for one shard (`service` and `shards` benchmarks); for more of
them a call of each and the merging of ten neighbours of each, which was measured for four. It has {THREADS_A_SHARD} threads a shard
that wait for answers: some hundreds of shards are what one is made for. Thousands want routers above routers, which there are not.

## Embedding

{table(["embedder", "chunks a second", *(f"hours for {store:,}" for store in STORES)],
       [embedding_row(row["name"], row["chunks_a_second"]) for row in FIGURES["embedding"]])}

Divided by as many such machines as there are; `retro-build` has a process a shard and they share nothing.""")
