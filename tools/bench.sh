#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench.sh: build hanok, fetch the guest and run the benchmarks of bench/run.py.
set -eu
cd "$(dirname "$0")/.."
. tools/lib.sh

tools/deps.sh build guest bench
tools/build.sh
HANOK="$PWD/$(build_dir)/hanok" exec "$PYTHON" bench/run.py "$@"
