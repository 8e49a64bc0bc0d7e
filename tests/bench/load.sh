#!/usr/bin/env bash
# Start: retro-425m with random weights from a folder in the page cache to ready in fp16, checked (SHA-256, no NaN), process start
# included; resident memory then against the packed weights and tables. Its folder takes 2.8 GiB of TMPDIR for the while.
set -euo pipefail
ninja -C "$RETRO_BUILD" model_bench >&2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$RETRO_BUILD/bench/model_bench" make "$folder/model"
cat "$folder"/model/* >/dev/null   # into the page cache
"$RETRO_BUILD/bench/model_bench" load "$folder/model" "$(date +%s%N)"
