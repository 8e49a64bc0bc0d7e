#!/usr/bin/env bash
# Eight sessions against one: retro-425m with random weights, fp16, context 512, two threads, tokens a second.
set -euo pipefail
ninja -C "$RETRO_BUILD" model_bench >&2
exec "$RETRO_BUILD/bench/model_bench" batch
