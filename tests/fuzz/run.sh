#!/usr/bin/env bash
# Fuzzes the readers of files of unknown origin with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer (clang):
#   tests/fuzz/run.sh SECONDS [safetensors|model_config]   so many seconds each; without a name, one after the other
# New inputs go to a folder of their own under build/fuzz; what fails is left there as crash-..., and the exit status is not 0.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [NAME]}
names=(${2:-safetensors model_config})
declare -A sources=(
  [safetensors]="common/safetensors/safetensors.cc common/base/file.cc"
  [model_config]="generator_service/model/config.cc")
mkdir -p build/fuzz
for name in "${names[@]}"; do
  fuzzer=build/fuzz/${name}_fuzzer
  # shellcheck disable=SC2086
  clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. \
    "tests/fuzz/${name}_fuzzer.cc" ${sources[$name]} -o "$fuzzer" \
    $(pkg-config --libs absl_status absl_statusor absl_strings absl_str_format absl_cord)
  mkdir -p "build/fuzz/$name"
  "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -artifact_prefix="build/fuzz/$name-" -print_final_stats=1 \
    "build/fuzz/$name" "tests/fuzz/corpus/$name"
done
