/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DEBIAN_RECIPE_H
#define HANOK_APP_DEBIAN_RECIPE_H

/*
 * What `hanok create --os debian` installs, and how it is set up. A change here makes a new image:
 * the cache is named by the hash of these strings.
 */

#define DEBIAN_SUITE "bookworm"

/* No recommended packages: systemd with its network and name services, a shell, a kernel and a small
 * initramfs, what one needs to look about and to install more. */
#define DEBIAN_PACKAGES                                                                            \
	"systemd-sysv,systemd-resolved,libpam-systemd,dbus,udev,kmod,linux-image-cloud-amd64,"     \
	"tiny-initramfs,login,passwd,iproute2,iputils-ping,procps,less,nano,ca-certificates"

/*
 * Before packages are unpacked. tiny-initramfs: modules for the controllers that the disk may be on
 * (ext4 and NVMe are in the kernel) and no microcode.
 */
static const char debian_setup[] =
	"set -eu\n"
	"mkdir -p \"$1/etc/tiny-initramfs\" \"$1/etc/modprobe.d\"\n"
	"cat >\"$1/etc/tiny-initramfs/tiny-initramfs.conf\" <<END\n"
	"AUTO_MODULES=no\n"
	"MICROCODE=no\n"
	"INCLUDE_MODULES=vmw_pvscsi,sd_mod,virtio_pci,virtio_blk,ata_piix\n"
	"END\n"
	/* Self-tests of vector code that a disk and a network do not need. */
	"printf 'blacklist %s\\n' aesni_intel crc32_pclmul crct10dif_pclmul ghash_clmulni_intel \\\n"
	"    sha1_ssse3 sha256_ssse3 sha512_ssse3 >\"$1/etc/modprobe.d/hanok.conf\"\n";

/*
 * After packages are installed. Every unit that starts costs time before the prompt: masked are those
 * that a small machine with one serial console does without (`systemctl unmask NAME` brings each
 * back). The login prompt waits neither for udev (so console-getty, on /dev/console, which is ttyS0)
 * nor for the network.
 */
static const char debian_customize[] =
	"set -eu\n"
	"cd \"$1/etc/systemd/system\"\n"
	"for unit in sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \\\n"
	"    sys-fs-fuse-connections.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount \\\n"
	"    modprobe@dm_mod.service modprobe@loop.service modprobe@efi_pstore.service \\\n"
	"    modprobe@drm.service modprobe@fuse.service modprobe@configfs.service \\\n"
	"    systemd-pstore.service systemd-network-generator.service systemd-binfmt.service \\\n"
	"    systemd-repart.service systemd-firstboot.service systemd-pcrphase.service \\\n"
	"    systemd-pcrphase-sysinit.service systemd-networkd-wait-online.service \\\n"
	"    e2scrub_reap.service getty-static.service serial-getty@ttyS0.service; do\n"
	"    ln -sf /dev/null \"$unit\"\n"
	"done\n"
	"rm -f getty.target.wants/getty@tty1.service multi-user.target.wants/e2scrub_reap.service \\\n"
	"    sysinit.target.wants/systemd-resolved.service\n"
	"mkdir -p getty.target.wants multi-user.target.wants console-getty.service.d\n"
	"lib=/lib/systemd/system\n"
	"ln -sf $lib/multi-user.target default.target\n"
	"ln -sf $lib/console-getty.service getty.target.wants/console-getty.service\n"
	"printf '[Service]\\nType=simple\\n' >console-getty.service.d/hanok.conf\n"
	"for unit in systemd-networkd systemd-resolved; do\n"
	"    mkdir -p $unit.service.d\n"
	"    printf '[Unit]\\nAfter=console-getty.service\\n' >$unit.service.d/hanok.conf\n"
	"    ln -sf $lib/$unit.service multi-user.target.wants/$unit.service\n"
	"done\n"
	"sed 's/^Before=sysinit.target /Before=/' \"$1$lib/systemd-resolved.service\" "
	">systemd-resolved.service\n"
	"sed 's/ network.target//' \"$1$lib/systemd-user-sessions.service\" "
	">systemd-user-sessions.service\n"
	"printf '[Match]\\nType=ether\\n\\n[Network]\\nDHCP=yes\\n' >\"$1/etc/systemd/network/80-dhcp.network\"\n"
	/* tiny-initramfs mounts the root with the options of the kernel's command line. */
	"echo '# The root is mounted as the command line of the kernel says.' >\"$1/etc/fstab\"\n"
	": >\"$1/etc/machine-id\"\n"
	"touch \"$1/etc/.updated\" \"$1/var/.updated\"\n";

/*
 * From the tar of the installation to a file system, as root or under fakeroot, in the cache's
 * folder. Inode tables are written by nobody (noinit_itable on the command line), so that a thin
 * disk stays thin. csum_seed: the UUID can be changed without rewriting checksums.
 */
static const char debian_image[] =
	"set -eu\n"
	"umask 022\n"
	"mkdir root\n"
	"tar -xf root.tar -C root --exclude='./dev/*'\n"
	"rm root.tar\n"
	"ln -sf /run/systemd/resolve/stub-resolv.conf root/etc/resolv.conf\n"
	"rm -f root/etc/.resolv.conf.*\n"
	"cp root/boot/vmlinuz-* vmlinuz\n"
	"cp root/boot/initrd.img-* initrd\n"
	"chmod 644 vmlinuz initrd\n"
	"size=$(($(du -sm root | cut -f1) * 5 / 4 + 96))\n"
	"mke2fs -q -F -t ext4 -b 4096 -O metadata_csum_seed -e remount-ro -m 1 -d root base.ext4 ${size}M\n"
	"chmod -R u+rwX root\n"
	"rm -rf root\n";

#endif
