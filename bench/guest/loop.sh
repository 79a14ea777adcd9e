# SPDX-License-Identifier: Apache-2.0
# loop.sh N: arithmetic, strings and functions in the shell itself, no program started.
n=$1
sum=0
words=
step() {
    case $1 in
    *7) sum=$((sum ^ $1)) ;;
    *[02468]) sum=$((sum + $1 * 3)) ;;
    *) sum=$(((sum << 1 | sum >> 30 & 1) & 0x3fffffff)) ;;
    esac
}
i=0
while [ "$i" -lt "$n" ]; do
    step "$i"
    words="$words ${i%5}"
    if [ "${#words}" -gt 200 ]; then
        words=${words#*1}
    fi
    i=$((i + 1))
done
echo "$sum ${#words}"
