#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# deps.sh SET...: install the Debian packages of each set that are not there yet.
# Sets: build, guest, check, fuzz, bench. `deps.sh --list SET...` only prints them.
# As root it uses apt-get, otherwise `sudo -n`. Where neither works it says in one line what is missing
# and returns 0, so that the build goes on with what is there. docs/DEPENDENCIES.md says what each is for.
set -u
cd "$(dirname "$0")/.." || exit 125
. tools/lib.sh

# The build configures the unit tests too, so what Meson looks for is all in its set: a package that came
# only with `make check` would stay unseen by a build directory set up before.
packages_of() {
    case $1 in
    build) echo "gcc gcc-multilib libc6-dev meson ninja-build pkg-config python3 libzydis-dev libuv1-dev" \
        "libjansson-dev libcmocka-dev liburing-dev zlib1g-dev liblz4-dev libslirp-dev acpica-tools" ;;
    guest) echo "python3 xz-utils mmdebstrap e2fsprogs fakeroot uidmap" ;;
    check) echo "python3-pytest python3-pexpect qemu-system-x86 qemu-utils gdb clang-format shellcheck" \
        "mmdebstrap e2fsprogs genisoimage tshark iproute2 ethtool busybox-static stress-ng" ;;
    fuzz) echo "clang llvm $(clang_runtime)" ;;
    bench) echo "gcc libc6-dev mmdebstrap qemu-system-x86 python3 iperf3" ;;
    *)
        say deps "no set named '$1'; there are build, guest, check, fuzz and bench"
        return 2
        ;;
    esac
}

# libFuzzer comes with clang's runtime, which is packaged by clang's version: ask what `clang` depends on.
clang_runtime() {
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/^ *Depends: clang-\([0-9]*\)$/\1/p')
    if [ -n "$version" ]; then
        echo "libclang-rt-$version-dev"
    fi
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing_of() {
    list=
    for package in "$@"; do
        installed "$package" || list="$list${list:+ }$package"
    done
    printf '%s\n' "$list"
}

# As root: no prefix. As a user: sudo, when it does not ask for a password.
become_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo ""
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo "sudo -n"
    else
        return 1
    fi
}

update_lists() {
    [ -z "${lists_updated:-}" ] || return 0
    lists_updated=1
    say deps "apt-get update"
    # shellcheck disable=SC2086 # $root is empty or two words
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
}

# --no-remove: a build never takes a package away from its host.
install() {
    # shellcheck disable=SC2086 # $root is empty or two words
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove \
        install "$@" </dev/null >&2
}

known() {
    for package in "$@"; do
        apt-cache show "$package" >/dev/null 2>&1 || return 1
    done
}

list_only=
if [ "${1:-}" = --list ]; then
    list_only=1
    shift
fi
if [ $# -eq 0 ]; then
    say deps "usage: tools/deps.sh [--list] SET...   (sets: build guest check fuzz bench)"
    exit 2
fi

wanted=
for set in "$@"; do
    more=$(packages_of "$set") || exit 2
    wanted="$wanted $more"
done
# shellcheck disable=SC2086 # a list of words
wanted=$(printf '%s\n' $wanted | awk '!seen[$0]++' | tr '\n' ' ')
if [ -n "$list_only" ]; then
    # shellcheck disable=SC2086 # a list of words
    printf '%s\n' $wanted
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say deps "not a Debian system: going on with what is there; needed (Debian's names): $wanted"
    exit 0
fi

# shellcheck disable=SC2086 # a list of words
missing=$(missing_of $wanted)
[ -n "$missing" ] || exit 0

if ! root=$(become_root); then
    say deps "missing: $missing; going on with what is there; to get it: sudo apt-get install $missing"
    exit 0
fi

# shellcheck disable=SC2086
known $missing || update_lists
say deps "installing $missing"
# shellcheck disable=SC2086
if ! install $missing; then
    # Stale lists, or one package that cannot be had: fresh lists, then each by itself.
    update_lists
    # shellcheck disable=SC2086
    for package in $(missing_of $missing); do
        install "$package"
    done
fi

# shellcheck disable=SC2086
missing=$(missing_of $wanted)
if [ -n "$missing" ]; then
    say deps "missing: $missing; apt-get could not install it; going on with what is there"
fi
exit 0
