#!/usr/bin/env bash
# Long prompts: retro-425m with random weights, two threads; 2 * the decoder's weights * tokens over the time of 1,024 tokens with two
# neighbours a chunk, as a share of the library's fp32 matrix product in the same run.
set -euo pipefail
ninja -C "$RETRO_BUILD" model_bench >&2
exec "$RETRO_BUILD/bench/model_bench" prefill
