/* SPDX-License-Identifier: Apache-2.0 */
/* The packet socket's set-up: packet(7), PACKET_VNET_HDR in linux/if_packet.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tap_internal.h"

static int bridge_error(struct error *err, int rc, const char *name)
{
	if (rc == -EPERM || rc == -EACCES)
		return error_set(
			err, rc,
			"bridge %s: no permission; run as root, or give the program the right "
			"once: setcap cap_net_raw+ep hanok",
			name);
	if (rc == -ENODEV)
		return error_set(err, rc,
				 "bridge %s: there is no such interface; `ip link` lists them",
				 name);
	return error_set(err, rc, "bridge %s: %s", name, strerror(-rc));
}

static int set_up(int fd, const char *name, int *mtu)
{
	struct packet_mreq member = {.mr_type = PACKET_MR_PROMISC};
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct ifreq ifr = {0};
	int on = 1;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFINDEX, &ifr))
		return -errno;
	address.sll_ifindex = member.mr_ifindex = ifr.ifr_ifindex;
	if (ioctl(fd, SIOCGIFMTU, &ifr))
		return -errno;
	*mtu = ifr.ifr_mtu;
	/* What we send ourselves is not for us. */
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof(member)))
		return -errno;
	return 0;
}

int net_bridge_create(struct net_tap **out, struct loop *loop, const char *interface,
		      struct error *err)
{
	struct net_tap_config c = {.name = interface,
				   .packet = true,
				   .features = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6};
	int mtu = 1500, rc;

	*out = NULL;
	if (!*interface || strlen(interface) >= IFNAMSIZ)
		return bridge_error(err, -ENODEV, interface);
	/* Protocol 0: nothing is heard before the socket is bound to its interface. */
	c.fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c.fd < 0)
		return bridge_error(err, -errno, interface);
	rc = set_up(c.fd, interface, &mtu);
	if (rc) {
		close(c.fd);
		return bridge_error(err, rc, interface);
	}
	c.max_frame_bytes = (uint32_t)mtu + NET_ETH_HEADER_BYTES;
	return net_tap_start(out, loop, &c, err);
}
