#!/usr/bin/env bash
# A whole generation against retro-pytorch 0.3.9's own `generate`: 512 tokens from one, two neighbours a chunk, which both sides are
# given at once (its BERT and its index are not measured), the very same weights, both on two threads. Tokens a second; that both
# compute the same is part of the row: the largest difference of the peer's logits of its own text from ours in fp32.
#   generate.sh [--full]   --full: the package's default sizes, five minutes; otherwise a smaller model of the same form, two
set -euo pipefail
ninja -C "$RETRO_BUILD" generate_bench retro-model >&2
here=$(dirname "${BASH_SOURCE[0]}")
packages=("$RETRO_DEPS"/venv/lib/python3*/site-packages)
# torch in Python wants every library of CUDA to be there, though nothing of them is called here: those that are missing are stood in
# for by empty ones.
stubs=$RETRO_DEPS/torch-stubs
mkdir -p "$stubs"
for library in $(LD_LIBRARY_PATH=$stubs ldd "${packages[0]}"/torch/lib/*.so | sed -n 's/^\s*\(\S*\) => not found$/\1/p' | sort -u); do
  gcc -shared -Wl,-soname,"$library" -o "$stubs/$library" -x c /dev/null
done
export LD_LIBRARY_PATH=$stubs PYTHONPATH=${packages[0]} OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
exec "$RETRO_PYTHON" "$here/generate/generate_bench.py" --build "$RETRO_BUILD" "$@"
