/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_NIC_FRAME_H
#define HANOK_DEV_NIC_FRAME_H

#include "net/frame.h"
#include "net/netport.h"

/*
 * What network cards do alike to a frame that arrives: the tag is taken out or put in, checksums
 * are checked. The sender may change the frame meanwhile, so what is decided by is read once.
 */
struct nic_view {
	const struct net_frame *frame;
	uint8_t head[16];    /* the guest's first bytes: addresses, and a tag that was put in */
	uint32_t head_bytes; /* 12 or 16 */
	uint32_t rest;	     /* where in the frame what follows head begins */
	uint32_t bytes;	     /* as the guest gets it */
	bool tagged;	     /* it has an 802.1Q tag: in front of it, within, or taken out */
	bool stripped;	     /* which the guest gets beside the frame */
	uint16_t tci;
};

/* strip: tags are taken out of the frame; else they are put in. */
void nic_view_init(struct nic_view *v, const struct net_frame *f, bool strip);
/* Copies up to `bytes` from `offset` of what the guest gets; returns how many there were. */
uint32_t nic_view_read(const struct nic_view *v, uint32_t offset, void *buf, uint32_t bytes);

/* What a card that checks checksums has to say. */
struct nic_csum {
	bool ip_checked, ip_good; /* IPv4's header */
	bool l4_checked, l4_good; /* TCP or UDP, not in a fragment */
};
void nic_csum_check(struct nic_csum *c, const struct net_headers *h, const struct net_frame *f);

#endif
