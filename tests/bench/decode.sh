#!/usr/bin/env bash
# One token after the other: retro-425m with random weights, one session with two neighbours a chunk, two threads. The weights that a
# token reads, as packed, times tokens a second, as a share of what a plain read of 2 GiB gets in the same run (a row below 25 GB/s is
# not valid); how much fp16 and int8 gain; how a long context slows it down.
set -euo pipefail
ninja -C "$RETRO_BUILD" model_bench >&2
exec "$RETRO_BUILD/bench/model_bench" decode
