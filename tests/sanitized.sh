#!/usr/bin/env bash
# What ctest runs in builds with sanitizers: a test's command, with what the sanitizers shall heed. Fails if the command does, or if
# any process of it, also one that was killed or whose exit code nobody looked at, reported something.
#   tests/sanitized.sh COMMAND...
set -uo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
export ASAN_OPTIONS=detect_stack_use_after_return=1:log_path=$reports/report
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/report
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:history_size=5:suppressions=$tests/tsan.supp:log_path=$reports/report
"$@"
code=$?
# LeakSanitizer's own remark of a thread that ends while it looks through a process that ends.
said=$(cat "$reports"/* 2>/dev/null | grep -vE '^==[0-9]+==Unable to get registers from thread [0-9]+\.$')
if [ -n "$said" ]; then
  echo "The sanitizers report:"
  echo "$said"
  exit 1
fi
exit $code
