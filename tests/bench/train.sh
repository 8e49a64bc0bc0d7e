#!/usr/bin/env bash
# Training steps against retro-pytorch 0.3.9: forward, backward, clipping and AdamW in fp32 on the CPU, two threads, the same sizes,
# windows, neighbours and vocabulary, in turns in one run. Tokens a second, by the median step.
# A second row is the most memory that ours was resident in, against weights, gradients, moments and activations as computed.
#   train.sh [--steps N] [--device cuda [--peak-flops F]]   on CUDA: bf16, larger, without the peer; the share of the device's peak
set -euo pipefail
ninja -C "$RETRO_BUILD" retro-train retro-model >&2
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/peer/torch_in_python.sh"
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
exec "$RETRO_PYTHON" "$here/train/train_bench.py" --build "$RETRO_BUILD" --deps "$RETRO_DEPS" "$@"
