# SPDX-License-Identifier: Apache-2.0
"""Programs run natively: in a namespace of their own, with the guest's root as their root."""

import os

# $1 is the root, the rest the command. /dev is the host's, /tmp is fresh, as in a guest.
ENTER = (
    'root=$1; shift; mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" && '
    'mount -t tmpfs tmpfs "$root/tmp" && exec chroot "$root" "$@"'
)

HINT = (
    "native runs need root, or a user who may create namespaces "
    "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
)


def in_root(root, command):
    """The argument list that runs command in root. Ends with all its children when it is killed."""
    enter = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        enter += ["--user", "--map-root-user"]
    return enter + ["sh", "-c", ENTER, "sh", root] + command


def one_cpu():
    """The last processor this process may use: where a one-CPU workload is kept."""
    return {max(os.sched_getaffinity(0))}
