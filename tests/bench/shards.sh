#!/usr/bin/env bash
# The same vectors in 1, 2 and 4 shards, each a store and an index behind gRPC on loopback, all in one process: recall@10
# at effort 0.5 against exact search, and what fan-out costs: the median of a search as the router sees it, less the
# slowest shard's time in index and store. One line a number of shards; recall must be within 0.02 of one shard's.
#   shards.sh [VECTORS] [QUERIES]    100000 and 500: 384 numbers from a mixture of 1,000 Gaussians; queries from the same
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" shards_bench >&2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$RETRO_BUILD/bench/shards_bench" "$folder" "${1:-100000}" "${2:-500}"
