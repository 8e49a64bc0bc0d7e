#!/usr/bin/env bash
# The fault run: run.sh [SECONDS [SEED]] (60 and a seed that it prints). A router, two shards of two replicas and a generator under writes,
# reads, searches and generations, while processes are killed, stopped and promoted; an oracle over everything acknowledged.
set -euo pipefail
cd "$(dirname "$0")/../.."
bash deploy/local/setup.sh --bench
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
export RETRO_BUILD=${RETRO_BUILD:-$PWD/build/release}
[ -f "$RETRO_BUILD/build.ninja" ] || cmake --preset release >/dev/null
cmake --build "$RETRO_BUILD" --target retro retro-model retro-shard retro-retriever retro-generator -- --quiet
stubs=$RETRO_BUILD/python_stubs
mkdir -p "$stubs"
"$deps/venv-tools/bin/python" -m grpc_tools.protoc -I proto -I "$(echo "$deps"/venv/lib/python3*/site-packages)" --python_out="$stubs" \
  --grpc_python_out="$stubs" retro/retriever/v1/{document,filter,retriever}.proto retro/generator/v1/generator.proto google/rpc/{error_details,status}.proto
PYTHONPATH=$stubs:tests/e2e exec "$deps/venv-tools/bin/python" -B tests/chaos/chaos.py "$@"
