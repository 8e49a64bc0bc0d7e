#!/usr/bin/env bash
# Fuzzes every parser with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer: run.sh SECONDS [NAME ...]
# As many at a time as there are cores, at idle priority (beside a build an input may take a minute by the clock). A corpus grows in
# build/fuzz/corpus/NAME, the processor's seconds that each had in all stand in build/fuzz/seconds/NAME; what crashes is left in
# build/fuzz/crashes/NAME. Once mended it goes to tests/fuzz/found/NAME, where every build runs it.
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [NAME ...]}
shift
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz >/dev/null || exit 1
names=("$@")
[ $# -gt 0 ] || for source in tests/fuzz/fuzz_*.cc; do name=${source##*/fuzz_}; names+=("${name%.cc}"); done
cmake --build --preset fuzz --target "${names[@]/#/fuzz_}" -- --quiet || exit 1
mkdir -p build/fuzz/{corpus,crashes,seconds,log}

fuzz() {
  local name=$1 seconds=$2 status=0 TIMEFORMAT="%U %S"
  mkdir -p "build/fuzz/corpus/$name" "build/fuzz/crashes/$name"
  { time RETRO_SOURCE_DIR=$PWD chrt -i 0 "build/fuzz/fuzz/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=120 \
    -artifact_prefix="build/fuzz/crashes/$name/" "build/fuzz/corpus/$name" >"build/fuzz/log/$name" 2>&1; } 2>>"build/fuzz/seconds/$name" || status=1
  [ -z "$(ls -A "build/fuzz/crashes/$name")" ] || status=1
  echo "== $name: $(awk '{ s += $1 + $2 } END { printf "%.0f", s }' "build/fuzz/seconds/$name") s of a processor in all"
  grep -E "==ERROR|SUMMARY|DONE|^fuzz:|Test unit" "build/fuzz/log/$name"
  return $status
}
export -f fuzz
printf '%s\n' "${names[@]}" | xargs -P "$(nproc)" -I NAME bash -c "fuzz NAME $seconds"
