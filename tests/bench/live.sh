#!/usr/bin/env bash
# A store of a million chunks that changes while it is searched: 200 changes a second of documents of ten chunks with their
# vectors, inserts and deletes by turns, and 10 of short texts that MiniLM embeds. Meanwhile cells of 16,384 chunks are sealed, and, in a
# store of a million, 64 of them merged. Promised: the p99 of searches with vectors, timed
# from when each was due, is at most twice what it is without changes; an insert is found within a second of being sent; nothing
# deleted is found; no call fails; the changes keep their pace.
#   live.sh [--seconds N] [--rate N] [-- what vectors/make.sh takes]     of each of both phases (120); searches a second (50)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" live_bench store_fill retro-retriever >&2
. tests/bench/store/make.sh
arguments=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do arguments+=("$1"); shift; done
vectors=$(bench_vectors "${@:2}")
bench_store "$vectors"
folder=$(mktemp -d)
service=
trap '[ -z "$service" ] || kill "$service"; rm -rf "$folder"' EXIT
cp -r "$vectors/store" "$folder/store"
sync -f "$folder"  # the copy is not what is measured
"$RETRO_BUILD/bin/retro-retriever" --data "$folder/store" --embedder "${models[0]}" --tokenizer common/tokenizer/retro-16k.model \
  --listen 127.0.0.1:7798 > "$folder/log" 2>&1 &
service=$!
"$RETRO_BUILD/bench/live_bench" --address 127.0.0.1:7798 --vectors "$vectors" "${arguments[@]}"
