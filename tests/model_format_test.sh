#!/usr/bin/env bash
# docs/read_model.py against the reference: a golden of each of the paper's choices, imported and read by the documented reader.
#   tests/model_format_test.sh RETRO_MODEL PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
retro_model=$1 python=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in paper_tiny_variant paper_tiny_mask_offset_share paper_tiny_ragged; do
  golden=tests/goldens/paper/$name
  "$retro_model" import --from paper --config "$golden.json" --weights "$golden.weights.safetensors" --out "$folder/$name" >/dev/null
  "$python" docs/read_model.py "$folder/$name" "$golden.io.safetensors"
done
