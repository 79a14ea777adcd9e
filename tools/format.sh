#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# format.sh --write | --check: lay out the C files as .clang-format says, or list those that are not.
# Versions of clang-format differ in their taste: only Debian 12's, 14, is asked.
set -eu
cd "$(dirname "$0")/.."
. tools/lib.sh

mode=${1:---check}
tool=
for candidate in clang-format-14 clang-format; do
    if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
        tool=$candidate
        break
    fi
done
if [ -z "$tool" ]; then
    say format "clang-format 14 is not installed; to get it: sudo apt-get install clang-format"
    # A check that the layout tool is missing for is not a failure of the code.
    [ "$mode" = --check ] && exit 0
    exit 1
fi

files=$(find src tests fuzz -name '*.[ch]' 2>/dev/null | sort)
[ -n "$files" ] || exit 0
# shellcheck disable=SC2086 # file names of ours, without blanks
set -- $files
case $mode in
--write) exec "$tool" -i "$@" ;;
--check)
    result=0
    for file in "$@"; do
        if ! "$tool" --dry-run --Werror "$file" 2>/dev/null; then
            echo "$file: not laid out as .clang-format says; make format mends it"
            result=1
        fi
    done
    exit $result
    ;;
*)
    say format "usage: tools/format.sh --write | --check"
    exit 2
    ;;
esac
