#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh [--slow]: every check of the repository: layout, include arrows, unit tests, whole-program tests.
# Goes on after a failure, so that one run shows everything, and fails when anything failed.
# SAN= builds and tests with sanitizers; --slow adds the long tests. HANOK_ENGINES picks the engines.
set -u
cd "$(dirname "$0")/.." || exit 125
. tools/lib.sh

marks='not slow'
guests='cloud i686-pae i686'
case ${1:-} in
--slow)
    marks='slow or not slow'
    guests="$guests generic"
    ;;
'') ;;
*)
    say check "usage: tools/check.sh [--slow]"
    exit 2
    ;;
esac

failed=
# step NAME COMMAND...: runs it under a heading and remembers a failure.
step() {
    name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed $name"
}

dir=$(build_dir)
meson_sanitizers >/dev/null || exit 2

# A finding of a sanitizer ends the program with a status that no test expects.
export ASAN_OPTIONS="${ASAN_OPTIONS:-abort_on_error=1:detect_leaks=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"

# Sanitized code is slower: everything that waits for it waits longer.
patience=1
[ -z "${SAN:-}" ] || patience=4
export HANOK_TIMEOUT_SCALE="${HANOK_TIMEOUT_SCALE:-$patience}"

# guests: have them all before the tests, where a download is seen to progress.
guests() {
    result=0
    for guest in $guests; do
        tools/guest.sh "$guest" >/dev/null || result=1
    done
    return $result
}

tools/deps.sh build guest check
step build tools/build.sh
if [ -n "$failed" ]; then
    echo "check: the build failed"
    exit 1
fi
step format tools/format.sh --check
step arrows "$PYTHON" tools/check-arrows.py
# tests OPTION...: of those that meson knows.
tests() {
    meson test -C "$dir" --no-rebuild --print-errorlogs --timeout-multiplier "$patience" "$@"
}

step unit tests --no-suite long
# A guest that cannot be had is not a failure of the code: its tests say that they were skipped.
guests
# The long ones among them take one processor and no attention: the other can go on meanwhile.
tests --suite long --num-processes 1 --logbase long >"$dir/long.log" 2>&1 &
long=$!
step program env HANOK="$PWD/$dir/hanok" "$PYTHON" -m pytest -v -rsfE --durations=5 -m "$marks" tests

if ! wait $long; then
    printf '\n== long\n'
    cat "$dir/long.log"
    failed="$failed long"
fi

echo
if [ -n "$failed" ]; then
    # Once more at the end, where it is found without a search.
    "$PYTHON" tools/failed-tests.py "$dir/meson-logs/testlog.json" "$dir/meson-logs/long.json"
    echo "check: failed:$failed"
    exit 1
fi
echo "check: everything passed"
