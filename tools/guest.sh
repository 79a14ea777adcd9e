#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# guest.sh [OPTION]... GUEST: have a stock Debian kernel and a small initramfs ready, print where.
#
#   cloud     linux-image-cloud-amd64, the default of `make run`
#   generic   linux-image-amd64
#   i686-pae  linux-image-686-pae (32-bit, PAE paging)
#   i686      linux-image-686 (32-bit, two-level paging)
#
# Answer on stdout, progress on stderr:
#   kernel=/home/user/.cache/hanok/guests/cloud/vmlinuz-...
#   initrd=/home/user/.cache/hanok/guests/cloud/initrd
#
# Nothing is installed on the host: the newest packages are downloaded with apt-get in a state folder of our
# own (lists, cache and, for the 32-bit guests, architecture), with the host's sources and keys, and no root
# is needed. They live in $HANOK_CACHE, or $XDG_CACHE_HOME/hanok, or ~/.cache/hanok, and are looked up anew
# after seven days when the network allows. What is there stays until its successor is complete.
# Without apt or network: what the cache holds, else a kernel of the host's.
#
# Options put more into the initramfs, which is written to initrd-NAME, given by --name, so that it does not
# disturb the plain one:
#   --name NAME
#   --add FILE=PATH      a file of the host at PATH
#   --program FILE       a program of the host in /bin, with its shared libraries
#   --modules NAME,...   kernel modules, each with what it depends on, which /init loads in this order;
#                        NAME:PARAMETER=VALUE,... sets parameters. For example:
#                            tools/guest.sh --name disks --modules virtio_pci,virtio_blk,ext4 \
#                                --program /sbin/mke2fs cloud
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. tools/lib.sh

FRESH_DAYS=7

usage() {
    say guest "usage: tools/guest.sh [--name NAME [--add FILE=PATH | --program FILE]... [--modules NAMES]]" \
        "cloud|generic|i686-pae|i686"
    exit 2
}

# choose GUEST: sets package (the one that always depends on the newest kernel) and arch.
choose() {
    case $1 in
    cloud) package=linux-image-cloud-amd64 arch=amd64 ;;
    generic) package=linux-image-amd64 arch=amd64 ;;
    i686-pae) package=linux-image-686-pae arch=i386 ;;
    i686) package=linux-image-686 arch=i386 ;;
    *) usage ;;
    esac
}

# newer_than_days FILE DAYS: true when FILE exists and is younger.
newer_than_days() {
    [ -n "$(find "$1" -mtime "-$2" 2>/dev/null)" ]
}

# touch_stale FILE: old enough to be tried again in an hour, so that an absent network costs one wait, not
# one at every call.
touch_stale() {
    touch -d "$FRESH_DAYS days ago + 1 hour" "$1"
}

# apt_private ARCH: makes the state folder and points APT_CONFIG at it for every apt command that follows.
apt_private() {
    apt=$cache/apt-$1
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    cat >"$apt/apt.conf.tmp" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "$1";
APT::Architectures { "$1"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
Acquire::Retries "1";
CONF
    mv "$apt/apt.conf.tmp" "$apt/apt.conf"
    export APT_CONFIG="$apt/apt.conf"
}

# update_lists: true when the lists are of today. Once a run. Without Error-Mode=any apt takes a network
# that is not there for a success.
update_lists() {
    newer_than_days "$apt/updated" 1 && return 0
    [ -z "${lists_tried:-}" ] || return 1
    lists_tried=1
    say guest "reading Debian's package lists ($arch)"
    apt-get -q -o APT::Update::Error-Mode=any update >&2 || return 1
    touch "$apt/updated"
}

# newest_kernel PACKAGE: linux-image-amd64 -> linux-image-6.1.0-56-amd64, or nothing.
newest_kernel() {
    apt-cache show --no-all-versions "$1" 2>/dev/null |
        sed -n 's/^Depends: .*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1
}

# download PACKAGE MEMBER DEST: fetches the package, which apt checks, and takes the one file or folder out.
# Prints nothing; DEST appears complete or not at all.
download() {
    rm -rf "$cache/download"
    mkdir "$cache/download"
    folder=$cache/download
    say guest "downloading $1"
    if (cd "$folder" && apt-get -q download "$1" >&2) &&
        dpkg-deb --fsys-tarfile "$folder"/*.deb >"$folder/data.tar" &&
        tar -xf "$folder/data.tar" -C "$folder" "$2" &&
        [ -s "$folder/$2" ]; then
        mv "$folder/$2" "$3"
        rm -rf "$folder"
        return 0
    fi
    rm -rf "$folder"
    return 1
}

# In both that follow a failed update matters only where something is there to go on with: a source that does
# not serve this architecture fails it too, and the package may be found all the same.

# refresh_busybox: $cache/busybox-ARCH, the newest.
refresh_busybox() {
    newer_than_days "$cache/busybox-$arch.stamp" "$FRESH_DAYS" && [ -s "$cache/busybox-$arch" ] &&
        return 0
    update_lists || [ ! -s "$cache/busybox-$arch" ] || return 1
    download busybox-static ./bin/busybox "$cache/busybox-$arch" || return 1
    touch "$cache/busybox-$arch.stamp"
}

# refresh_kernel: $guest/vmlinuz-VERSION, with its name in $guest/kernel.
refresh_kernel() {
    newer_than_days "$guest/stamp" "$FRESH_DAYS" && [ -n "$(cached_kernel)" ] && return 0
    update_lists || [ -z "$(cached_kernel)" ] || return 1
    image=$(newest_kernel "$package")
    if [ -z "$image" ]; then
        say guest "apt knows no kernel behind $package"
        return 1
    fi
    file=vmlinuz-${image#linux-image-}
    if [ ! -s "$guest/$file" ] || [ "$(apt_version "$image")" != "$(cat "$guest/version" 2>/dev/null)" ]; then
        download "$image" "./boot/$file" "$guest/$file" || return 1
    fi
    apt_version "$image" >"$guest/version"
    printf '%s\n' "$file" >"$guest/kernel.tmp"
    mv "$guest/kernel.tmp" "$guest/kernel"
    for old in "$guest"/vmlinuz-* "$guest"/modules-*; do
        [ "$old" = "$guest/$file" ] || [ "$old" = "$guest/modules-${file#vmlinuz-}" ] || rm -rf "$old"
    done
    touch "$guest/stamp"
}

# refresh_modules KERNEL: $guest/modules-VERSION/VERSION, the modules of this very kernel, which stay as long
# as it does. Not fetched before somebody asks for one. Prints the folder, or nothing.
refresh_modules() {
    release=${1##*/vmlinuz-}
    modules=$guest/modules-$release
    if [ ! -d "$modules/$release" ] && command -v apt-get >/dev/null &&
        [ "$(apt_version "linux-image-$release")" = "$(cat "$guest/version" 2>/dev/null)" ]; then
        download "linux-image-$release" ./lib/modules "$modules" || true
    fi
    # The host's kernel has its modules on the host.
    [ -d "$modules/$release" ] || modules=/lib/modules
    if [ -d "$modules/$release" ]; then
        printf '%s\n' "$modules/$release"
    fi
}

apt_version() {
    apt-cache show --no-all-versions "$1" | sed -n 's/^Version: //p' | head -n 1
}

cached_kernel() {
    if [ -s "$guest/kernel" ] && [ -s "$guest/$(cat "$guest/kernel")" ]; then
        printf '%s\n' "$guest/$(cat "$guest/kernel")"
    fi
}

# The host's own kernel will do for a 64-bit guest; the newest that can be read.
host_kernel() {
    [ "$arch" = amd64 ] || return 0
    for candidate in $(find /boot -maxdepth 1 -name 'vmlinuz*' 2>/dev/null | sort -Vr); do
        if [ -r "$candidate" ] && [ -s "$candidate" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
}

# The host's busybox, when it is static and of the guest's architecture: no library is in the initramfs.
host_busybox() {
    [ "$arch" = amd64 ] || return 0
    candidate=$(command -v busybox) || return 0
    if ! ldd "$candidate" >/dev/null 2>&1; then
        printf '%s\n' "$candidate"
    fi
}

name=
additions=
wanted=
while [ $# -gt 0 ]; do
    case $1 in
    --add)
        [ $# -ge 2 ] || usage
        additions="$additions --add $2"
        shift 2
        ;;
    --program)
        [ $# -ge 2 ] || usage
        additions="$additions --program $2"
        shift 2
        ;;
    --modules)
        [ $# -ge 2 ] || usage
        wanted=$2
        shift 2
        ;;
    --name)
        [ $# -ge 2 ] || usage
        name=-$2
        shift 2
        ;;
    -*) usage ;;
    *) break ;;
    esac
done
[ $# -eq 1 ] || usage
choose "$1"

cache=${HANOK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hanok}
guest=$cache/guests/$1
mkdir -p "$guest"
cache=$(cd "$cache" && pwd)
guest=$cache/guests/$1

# One at a time: two test runs may share the cache, and its folder for downloads.
exec 9>"$cache/lock"
if ! flock -n 9; then
    say guest "waiting for another guest.sh"
    flock 9
fi

if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    apt_private "$arch"
    if ! refresh_busybox && [ -s "$cache/busybox-$arch" ]; then
        say guest "busybox could not be looked up anew: going on with the one in the cache"
        touch_stale "$cache/busybox-$arch.stamp"
    fi
    if ! refresh_kernel && [ -n "$(cached_kernel)" ]; then
        say guest "the kernel could not be looked up anew: going on with the one in the cache"
        touch_stale "$guest/stamp"
    fi
fi

kernel=$(cached_kernel)
if [ -z "$kernel" ]; then
    kernel=$(host_kernel)
    if [ -z "$kernel" ]; then
        say guest "no kernel for '$1': neither apt and the network, nor $guest, nor /boot has one"
        exit 1
    fi
    say guest "no network or no apt: going on with the host's $kernel"
fi

busybox=$cache/busybox-$arch
if [ ! -s "$busybox" ]; then
    busybox=$(host_busybox)
    if [ -z "$busybox" ]; then
        say guest "no static busybox for '$1'; to get one: sudo apt-get install busybox-static"
        exit 1
    fi
    say guest "no network or no apt: going on with the host's $busybox"
fi

if [ -n "$wanted" ]; then
    modules=$(refresh_modules "$kernel")
    if [ -z "$modules" ]; then
        say guest "no modules for $kernel; its package could not be fetched"
        exit 1
    fi
    additions="$additions --modules $modules $wanted"
fi

initrd=$guest/initrd$name
# shellcheck disable=SC2086 # a list of options
"$PYTHON" tools/mkinitrd.py --busybox "$busybox" --init tools/initrd/init $additions "$initrd"

printf 'kernel=%s\ninitrd=%s\n' "$kernel" "$initrd"
