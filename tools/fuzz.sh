#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh [TARGET...]: build the fuzz targets with clang's libFuzzer, address and undefined-behaviour checks,
# and run each for FUZZ_SECONDS (60). Without names: all of them.
# A target is an executable build-fuzz/fuzz/NAME; its seeds are fuzz/seeds/NAME/, kept in the tree; what it
# finds grows in build-fuzz/corpus/NAME/; an input that breaks it is left in build-fuzz/findings/.
set -u
cd "$(dirname "$0")/.." || exit 125
. tools/lib.sh

dir=build-fuzz
seconds=${FUZZ_SECONDS:-60}

tools/deps.sh build fuzz
if ! command -v clang >/dev/null; then
    say fuzz "clang is not installed; to get it: sudo apt-get install clang llvm"
    exit 1
fi
if [ ! -f "$dir/build.ninja" ]; then
    CC=clang meson setup "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false || exit 1
fi
ninja -C "$dir" || exit 1

all=
if [ $# -eq 0 ]; then
    all=1
    # shellcheck disable=SC2046 # names without blanks
    set -- $(find "$dir/fuzz" -maxdepth 1 -type f -executable -printf '%f\n' 2>/dev/null | sort)
fi
if [ $# -eq 0 ]; then
    say fuzz "there is no fuzz target in $dir/fuzz"
    exit 1
fi

mkdir -p "$dir/findings"
failed=
if [ -n "$all" ]; then
    # Disks and snapshots against a model: random operations instead of bytes; it prints its own seed.
    "$dir/tests/disk/diskmodel" --ops "${FUZZ_DISK_OPS:-1000000}" || failed=" diskmodel"
fi
for target in "$@"; do
    corpus=$dir/corpus/$target
    mkdir -p "$corpus"
    seeds=
    [ -d "fuzz/seeds/$target" ] && seeds=fuzz/seeds/$target
    # The seed is printed, so that a run can be repeated.
    seed=$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')
    echo "fuzz: $target for $seconds s, seed $seed, corpus $corpus${seeds:+, seeds $seeds}"
    # shellcheck disable=SC2086 # $seeds is empty or one word
    if ! "$dir/fuzz/$target" -max_total_time="$seconds" -seed="$seed" -print_final_stats=1 \
        -artifact_prefix="$dir/findings/$target-" "$corpus" $seeds; then
        failed="$failed $target"
    fi
done
if [ -n "$failed" ]; then
    echo "fuzz: failed:$failed; the inputs are in $dir/findings"
    exit 1
fi
echo "fuzz: nothing found in $# targets"
