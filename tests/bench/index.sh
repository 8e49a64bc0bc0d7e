#!/usr/bin/env bash
# The index against scann, faiss-cpu and hnswlib: the same unit vectors of 384 numbers (vectors/make.sh), 1,000 queries that are
# real chunks of documents that are not in the index, k = 10, one thread, batches of 64. Queries a second at recall@10 = 0.95, by
# interpolation between settings; the promise is 1.0 of the better of scann and faiss-cpu, and 128 bytes of memory a
# vector without the mapped file. Ours is one segment of them all, as a store's becomes by merging; what several take is told by
# scale.sh. hnswlib keeps whole vectors in memory and has a row of its own, which promises nothing.
#   index.sh [what vectors/make.sh takes] [--seconds S] [--only prepare|ours|faiss-cpu|scann|hnswlib] [--keep FOLDER]
#   S       a setting is searched for so long (3)
#   FOLDER  that our index is taken from, or made in, while one tries things
# Vectors and the peers' indexes, which take half an hour to make, are kept in a cache: "prepare" makes them, so that what is
# measured on a quiet machine takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" embedder_bench index_bench >&2
. tests/bench/vectors/make.sh
bench() { "$RETRO_PYTHON" tests/bench/index/index_bench.py "${vectors_options[@]}" "$@"; }
OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 bench "$@" --only prepare
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 bench "$@"
