#!/usr/bin/env bash
# A running session beside a long prompt: the 99th percentile of the time between its tokens while prompts of 2,000 tokens
# are prefilled with their look-ups, against the same session's when it is alone. At most three times as long is promised,
# so `ratio` is 3 x alone / beside. The retro-425m preset with random weights and our vocabulary, 2 threads; the retriever
# is one that embeds 94 chunks a second, one after the other, and needs 3 ms beside that.
#   mixed.sh [--preset NAME]
set -euo pipefail
ninja -C "$RETRO_BUILD" mixed_bench >&2
exec "$RETRO_BUILD/bench/mixed_bench" --tokenizer common/tokenizer/retro-16k.model "$@"
