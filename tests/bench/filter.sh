#!/usr/bin/env bash
# Searches with filters among a million documents of one chunk each, in one sealed segment: the vectors of vectors/make.sh, k = 10,
# effort 0.5, one query at a time, one thread. A row a filter: the median of a search, its share of the documents, and how long it
# takes to look at every document instead, which finds the same ones. Promised: a search takes no longer than that. "exact" is a
# search that compares all that match: where it is the faster one, effort 0.5 is the same (kScanShareMax in tuning.h).
# The first row says what the lists for filters take: seconds to make them when a store is opened, bytes a document.
#   filter.sh [prepare] [what vectors/make.sh takes]      prepare: only makes the index, which is kept and takes minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" filter_bench >&2
. tests/bench/vectors/make.sh
prepare=()
if [ "${1:-}" = prepare ]; then prepare=(prepare); shift; fi
vectors=$(bench_vectors "$@")
OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 "$RETRO_BUILD/bench/filter_bench" "$vectors" "${prepare[@]}"
