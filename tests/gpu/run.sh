#!/usr/bin/env bash
# Parity, engine tests, captured decode steps against the others, the decode benchmark with and without them, both services with many
# streams, and training on a GPU, on a machine that has torch 2.11 with CUDA 13 (Python 3.12) and nothing of ours. Two halves, since that
# machine cannot build:
#   tests/gpu/run.sh pack [FOLDER]              here: builds and fills FOLDER (default build/gpu-bundle), at most 60 MiB
#   bash FOLDER/run.sh go OUT [DEVICE [PART]]   there: runs everything, or parity, tests, model, bench, serve or train alone, on DEVICE
#                                               (default cuda) within ten minutes
# OUT/figures.jsonl gets one JSON line a figure, OUT/log what the programs said. Exit status 1 if something failed.
# `go OUT cpu` is the rehearsal on a machine without a GPU: the same programs, fewer figures.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

bundle_mib_max=60
programs=(bin/retro-model bench/model_bench tests/model_test tests/engine_test tests/bert_encoder_test tests/fixed_step_test tests/device_sampler_test
          bin/retro bin/retro-retriever bin/retro-generator bin/retro-train)

pack() {
  local root folder size
  root=$(cd "$here/../.." && pwd)
  folder=${1:-$root/build/gpu-bundle}
  cd "$root"
  . deploy/local/pack_libraries.sh
  [ -f build/release/build.ninja ] || cmake --preset release >/dev/null
  ninja -C build/release retro_cuda_graph demo-model "${programs[@]##*/}" >/dev/null
  rm -rf "$folder"
  mkdir -p "$folder"/{bin,lib,tests/goldens}
  for program in "${programs[@]}"; do strip -o "$folder/bin/${program##*/}" "build/release/$program"; done
  pack_libraries "$folder"
  strip -o "$folder/lib/libretro_cuda_graph.so" build/release/bin/libretro_cuda_graph.so
  cp -r tests/goldens/{paper,bert} "$folder/tests/goldens/"
  cp -r build/release/demo-model "$folder/model"
  mkdir "$folder/documents" && cp README.md docs/*.md "$folder/documents/"
  cp tests/e2e/harness.py tests/bench/train/train_bench.py "$folder/tests/"
  mkdir -p "$folder/common/tokenizer" && cp common/tokenizer/retro-16k.model "$folder/common/tokenizer/"
  python3 tests/bench/train/train_bench.py --build build/release --deps "${RETRO_DEPS:-$HOME/.cache/retro-deps}" --make-data "$folder/training" 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
  rm "$folder/log"
  git rev-parse HEAD >"$folder/commit"
  tar -C "$folder" -cf - bin lib tests model documents common training commit | xz --lzma2=preset=6,dict=192MiB >"$folder/contents.tar.xz"
  rm -r "$folder"/{bin,lib,tests,model,documents,common,training,commit}
  cp "$here"/{run.sh,on_gpu.py,serve.py} "$folder/"
  size=$(du -sm "$folder" | cut -f1)
  [ "$size" -le $bundle_mib_max ] || { echo "run.sh: $folder has $size MiB, at most $bundle_mib_max may travel" >&2; exit 1; }
  echo "$folder: $size MiB"
}

case ${1:-} in
  pack) shift; pack "$@" ;;
  go) shift; [ $# -ge 1 ] || usage; exec python3 "$here/on_gpu.py" "$here" "$@" ;;
  *) usage ;;
esac
