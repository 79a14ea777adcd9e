#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh: install what the build needs, set up the build directory once, build. SAN= picks the sanitizers.
set -eu
cd "$(dirname "$0")/.."
. tools/lib.sh

dir=$(build_dir)
sanitizers=$(meson_sanitizers)

tools/deps.sh build

if ! command -v meson >/dev/null; then
    say build "meson is not installed; to get it: sudo apt-get install meson ninja-build"
    exit 1
fi
if [ ! -f "$dir/build.ninja" ]; then
    # b_lundef: the sanitizers' runtime is found at load time, so undefined symbols are no error there.
    if [ "$sanitizers" = none ]; then
        meson setup "$dir"
    else
        meson setup "$dir" "-Db_sanitize=$sanitizers" -Db_lundef=false
    fi
fi
ninja -C "$dir"
