#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [OPTION...]: build hanok, fetch a stock Linux and boot it on this terminal.
# The options are added to those of `hanok run`.
set -eu
cd "$(dirname "$0")/.."
. tools/lib.sh

tools/deps.sh build guest
tools/build.sh
guest=$(tools/guest.sh cloud)
kernel=$(printf '%s\n' "$guest" | sed -n 's/^kernel=//p')
initrd=$(printf '%s\n' "$guest" | sed -n 's/^initrd=//p')

say run "booting $(basename "$kernel"); Ctrl-A x quits, Ctrl-A h helps"
exec "$(build_dir)/hanok" run --kernel "$kernel" --initrd "$initrd" \
    --append "console=ttyS0" --memory 512M "$@"
