# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Shared by the scripts in tools/: `. tools/lib.sh` from the top of the tree. Defines functions only,
# and $PYTHON, so that a python of the user's own in front of PATH does not lose Debian's pytest.

PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3

# say WHO MESSAGE...: one line of progress, on stderr so that stdout stays for answers.
say() {
    who=$1
    shift
    printf '%s: %s\n' "$who" "$*" >&2
}

# build_dir: where the build that SAN asks for lives: build, build-asan-ubsan, build-tsan.
build_dir() {
    if [ -n "${SAN:-}" ]; then
        printf 'build-%s\n' "$(printf '%s' "$SAN" | tr ',' '-')"
    else
        printf 'build\n'
    fi
}

# meson_sanitizers: SAN in Meson's own words: asan,ubsan -> address,undefined. Fails on an unknown name.
meson_sanitizers() {
    list=
    for name in $(printf '%s' "${SAN:-}" | tr ',' ' '); do
        case $name in
        asan | address) word=address ;;
        ubsan | undefined) word=undefined ;;
        tsan | thread) word=thread ;;
        *)
            say build "SAN=$SAN: no sanitizer named '$name'; there are asan, ubsan and tsan"
            return 2
            ;;
        esac
        list="$list${list:+,}$word"
    done
    printf '%s\n' "${list:-none}"
}
