#!/usr/bin/env bash
# Fuzzes every parser with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer: run.sh SECONDS [NAME ...]
# A corpus grows in build/fuzz/corpus/NAME; what crashes is left in build/fuzz/crashes/NAME. Once mended it goes to
# tests/fuzz/found/NAME, where every build runs it.
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [NAME ...]}
shift
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz >/dev/null || exit 1
names=("$@")
[ $# -gt 0 ] || for source in tests/fuzz/fuzz_*.cc; do name=${source##*/fuzz_}; names+=("${name%.cc}"); done
cmake --build --preset fuzz --target "${names[@]/#/fuzz_}" -- --quiet || exit 1
status=0
for name in "${names[@]}"; do
  mkdir -p "build/fuzz/corpus/$name" "build/fuzz/crashes/$name"
  echo "== $name, $seconds s"
  RETRO_SOURCE_DIR=$PWD chrt -i 0 "build/fuzz/fuzz/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 \
    -artifact_prefix="build/fuzz/crashes/$name/" "build/fuzz/corpus/$name" 2>&1 | grep -E "==ERROR|SUMMARY|DONE|^fuzz:|Test unit" || status=1
  [ -z "$(ls -A "build/fuzz/crashes/$name")" ] || status=1
done
exit $status
