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
if compgen -G "$reports/*" >/dev/null; then
  echo "The sanitizers report:"
  cat "$reports"/*
  exit 1
fi
exit $code
