#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [OPTION...]: build hanok and run a Linux on this terminal; the options are added to those of
# `hanok run`. GUEST picks it:
#   debian  a Debian on a disk of its own, in ~/hanok/debian, made the first time (the default)
#   tiny    Debian's kernel with a shell in a small initramfs: there in seconds, keeps nothing
set -eu
cd "$(dirname "$0")/.."
. tools/lib.sh

tools/deps.sh build guest
tools/build.sh
hanok=$(build_dir)/hanok

case ${GUEST:-debian} in
debian)
    vm=${HANOK_VMS:-$HOME/hanok}/debian
    [ -d "$vm" ] || "$hanok" create debian --os debian
    say run "log in as root, with the password $(cat "$vm/debian.password")"
    say run "Ctrl-A p shuts it down (so does \`poweroff\` in it), Ctrl-A x cuts its power, Ctrl-A h helps"
    exec "$hanok" run debian "$@"
    ;;
tiny)
    guest=$(tools/guest.sh cloud)
    kernel=$(printf '%s\n' "$guest" | sed -n 's/^kernel=//p')
    initrd=$(printf '%s\n' "$guest" | sed -n 's/^initrd=//p')
    say run "booting $(basename "$kernel"); Ctrl-A x quits, Ctrl-A h helps"
    exec "$hanok" run --kernel "$kernel" --initrd "$initrd" --append "console=ttyS0" --memory 512M "$@"
    ;;
*)
    say run "GUEST=$GUEST: there are debian and tiny"
    exit 2
    ;;
esac
