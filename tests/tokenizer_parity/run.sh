#!/usr/bin/env bash
# Makes the reference cases with PyPI `tokenizers` (installed by deploy/local/setup.sh --dev) and compares ours with them.
#   run.sh PROGRAM VOCABULARY MODEL FOLDER     the built tokenizer_parity; vocab.txt; *.model; a scratch folder
set -euo pipefail
program=$1 vocabulary=$2 model=$3 folder=$4
python=${RETRO_DEPS:-$HOME/.cache/retro-deps}/venv-tools/bin/python
[ -x "$python" ] || { echo "tokenizer_parity: no $python: run deploy/local/setup.sh --dev" >&2; exit 1; }
mkdir -p "$folder"
"$python" "$(dirname "$0")/make_cases.py" --vocabulary "$vocabulary" --out "$folder/cases.bin"
"$program" "$folder/cases.bin" "$vocabulary" "$model"
rm -f "$folder/cases.bin"
