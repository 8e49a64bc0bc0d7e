#!/usr/bin/env bash
# A whole generation against retro-pytorch 0.3.9's own `generate`: 512 tokens from one, two neighbours a chunk, which both sides are
# given at once (its BERT and its index are not measured), the very same weights, both on two threads. Tokens a second; that both
# compute the same is part of the row: the largest difference of the peer's logits of its own text from ours in fp32.
#   generate.sh [--full]   --full: the package's default sizes, five minutes; otherwise a smaller model of the same form, two
set -euo pipefail
ninja -C "$RETRO_BUILD" generate_bench retro-model >&2
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/peer/torch_in_python.sh"
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
exec "$RETRO_PYTHON" "$here/generate/generate_bench.py" --build "$RETRO_BUILD" "$@"
