#!/usr/bin/env bash
# The same million vectors in 1, 2 and 4 shards, each a store and an index behind gRPC on loopback, all in one process:
# recall@10 at effort 0.5, and what fan-out costs: the median of a search as the router sees it, less the slowest shard's time
# in index and store. One line a number of shards; recall must be within 0.02 of one shard's.
#   shards.sh [prepare] [what vectors/make.sh takes]    prepare: only makes the stores, which are kept and take half an hour
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" shards_bench >&2
. tests/bench/vectors/make.sh
prepare=()
if [ "${1:-}" = prepare ]; then prepare=(prepare); shift; fi
vectors=$(bench_vectors "$@")
"$RETRO_BUILD/bench/shards_bench" "$vectors" "$vectors/shards" "${prepare[@]}"
