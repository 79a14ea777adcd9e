/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and restoring a Fusion-MPT controller: what is restored is nobody's word, and checked. */
#include "dev/scsi/mpt_internal.h"

static void fifo_state(struct state_stream *s, uint32_t *fifo, uint32_t depth, uint32_t *head,
		       uint32_t *count)
{
	state_u32(s, head);
	state_u32(s, count);
	if (*head >= depth || *count > depth) {
		*head = *count = 0;
		state_fail(s, "mpt: a queue with more entries than it holds");
	}
	for (uint32_t i = 0; i < *count; i++)
		state_u32(s, &fifo[(*head + i) % depth]);
}

static void handshake_state(struct mpt *m, struct state_stream *s)
{
	state_u8(s, &m->doorbell);
	state_u16(s, &m->hs_words);
	state_u16(s, &m->hs_at);
	for (unsigned i = 0; i < sizeof(m->hs_request) / sizeof(m->hs_request[0]); i++)
		state_u32(s, &m->hs_request[i]);
	for (unsigned i = 0; i < sizeof(m->hs_reply) / sizeof(m->hs_reply[0]); i++)
		state_u16(s, &m->hs_reply[i]);
	if (m->doorbell >= MPT_DOORBELLS || m->hs_words > 255 ||
	    (m->doorbell == MPT_GIVES_REPLY && m->hs_words > MPT_REPLY_BYTES / 2) ||
	    m->hs_at > m->hs_words ||
	    (m->doorbell == MPT_TAKES_REQUEST && m->hs_at == m->hs_words)) {
		m->doorbell = MPT_IDLE;
		m->hs_words = m->hs_at = 0;
		state_fail(s, "mpt: a handshake that cannot be");
	}
}

static void ioc_state(struct mpt *m, struct state_stream *s)
{
	uint8_t state = (uint8_t)m->state;

	state_u8(s, &state);
	if (state > MPT_OPERATIONAL && state != MPT_FAULT) {
		state = MPT_READY;
		state_fail(s, "mpt: a state that is none");
	}
	m->state = (enum mpt_state)state;
	state_u16(s, &m->fault_code);
	state_u8(s, &m->who_init);
	state_u8(s, &m->max_devices);
	state_u8(s, &m->max_buses);
	state_u8(s, &m->event_state);
	state_u16(s, &m->reply_frame_bytes);
	state_u32(s, &m->mfa_high);
	state_u32(s, &m->sense_high);
	state_u32(s, &m->intr_status);
	state_u32(s, &m->intr_mask);
	state_u8(s, &m->sequence);
	state_u32(s, &m->diagnostic);
	for (unsigned i = 0; i < MPT_TARGETS_MAX; i++) {
		state_u32(s, &m->spi_parameters[i]);
		state_u32(s, &m->spi_configuration[i]);
	}
	m->who_init &= 7;
	m->event_state &= 1;
	m->intr_status &= MPT_INTR_ALL;
	m->intr_mask &= MPT_INTR_ALL;
	if (m->sequence > 4)
		m->sequence = 0;
}

void mpt_state(struct mpt *m, struct state_stream *s)
{
	ioc_state(m, s);
	handshake_state(m, s);
	fifo_state(s, m->free_fifo, MPT_FREE_DEPTH, &m->free_head, &m->free_count);
	fifo_state(s, m->post_fifo, MPT_POST_DEPTH, &m->post_head, &m->post_count);
}
