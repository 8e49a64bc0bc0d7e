#!/usr/bin/env bash
# What the service adds to index and store: Search of one vector with 10 neighbours, texts and all, over gRPC on loopback.
#   processor   32 calls in flight: what a call costs the server's process, less what its thread spends in index and store (told
#               apart in the row), against an RPC on the same server that echoes as many bytes: at most twice as much. The row also has what
#               the echo costs where each comes after a search on the same thread, as in the service, less that search
#   alone       the median of a call, as its caller sees it, less the time that it says it spent in index and store: at most 300 us
#   service.sh [what vectors/make.sh takes; 100000 vectors by default]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" service_bench store_fill >&2
. tests/bench/store/make.sh
vectors=$(bench_vectors --vectors 100000 "$@")
bench_store "$vectors"
"$RETRO_BUILD/bench/service_bench" "$vectors" "$vectors/store" common/tokenizer/retro-16k.model
