#!/usr/bin/env bash
# docs/read_model.py against the reference: a golden of each of the paper's choices, imported and read by the documented reader.
#   tests/model_format_test.sh RETRO_MODEL PYTHON DEPENDENCIES
set -euo pipefail
cd "$(dirname "$0")/.."
retro_model=$1 python=$2 RETRO_DEPS=$3
. tests/bench/peer/torch_in_python.sh
# Libraries of CUDA may be empty stand-ins.
run="import os, runpy, sys; sys.setdlopenflags(os.RTLD_LAZY); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in paper_tiny_variant paper_tiny_mask_offset_share paper_tiny_ragged; do
  golden=tests/goldens/paper/$name
  "$retro_model" import --from paper --config "$golden.json" --weights "$golden.weights.safetensors" --out "$folder/$name" >/dev/null
  "$python" -W ignore -c "$run" docs/read_model.py "$folder/$name" "$golden.io.safetensors"
done
