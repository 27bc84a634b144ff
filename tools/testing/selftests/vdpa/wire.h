/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests and the other side of the wire (wire_peer.c) say to each
 * other, in Ethernet frames of an ethertype that IEEE 802 keeps for local
 * experiments. Numbers are big endian. Every frame carries the session it
 * belongs to, data frames their number in it and contents made from both, so
 * that whoever gets one can tell whether it is whole, and whether it is the
 * first of its kind.
 */
#ifndef WIRE_H
#define WIRE_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WIRE_ETHERTYPE		0x88b5
#define WIRE_MAC_LEN		6
#define WIRE_ARGS		5
#define WIRE_MIN_LEN		60
#define WIRE_MAX_LEN		1514	/* but for WIRE_F_LONG */
#define WIRE_LONG_LEN		65535
#define WIRE_MAX_SEQ		0x20000
#define WIRE_BURST_SEQ		0x10000	/* from here on: what WIRE_SEND asked for */

enum wire_op {
	WIRE_HELLO = 1,		/* who? The answer's arg[0]: WIRE_HAS_*, [1] its longest frame */
	WIRE_DATA,		/* arg[0]: WIRE_F_* */
	WIRE_SEND,		/* send me data: arg[0] first seq, [1] count, [2] us between */
	/* arg[0] distinct, [1] doubled, [2] damaged, [3] yet to send, [4] link downs done */
	WIRE_REPORT,
	WIRE_LINK,		/* take my link down for arg[0] ms, then up; answered before */
	WIRE_ANSWER = 0x8000	/* or'ed into the op of an answer */
};

#define WIRE_F_ECHO		0x1	/* send it back */
#define WIRE_F_LONG		0x2	/* of any length; what fills it are bytes below 0x80 */
#define WIRE_HAS_LINK		0x1	/* the peer has a link hook */

struct wire_hdr {
	uint8_t dst[WIRE_MAC_LEN];
	uint8_t src[WIRE_MAC_LEN];
	uint16_t type;
	uint16_t op;
	uint16_t len;		/* of the whole frame, before any padding */
	uint32_t session;
	uint32_t seq;		/* of data; of a request: asked again, it is not done again */
	uint32_t arg[WIRE_ARGS];
} __attribute__((packed));

/* splitmix64 over session and seq: the n-th eight bytes of a frame's contents */
static inline uint64_t wire_word(uint32_t session, uint32_t seq, uint32_t n)
{
	uint64_t z = ((uint64_t)session << 32 | seq) + (n + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* What of those words is in a frame */
static inline uint64_t wire_mask(const struct wire_hdr *h)
{
	bool plain = ntohs(h->op) == WIRE_DATA && ntohl(h->arg[0]) & WIRE_F_LONG;

	return plain ? 0x7f7f7f7f7f7f7f7fULL : ~0ULL;
}

/* The length of the session's frame @seq: anything that Ethernet allows */
static inline uint16_t wire_len(uint32_t session, uint32_t seq)
{
	uint32_t span = WIRE_MAX_LEN - WIRE_MIN_LEN + 1;

	return WIRE_MIN_LEN + wire_word(session, seq, ~0U) % span;
}

static inline void wire_fill(uint8_t *frame)
{
	struct wire_hdr *h = (struct wire_hdr *)frame;
	uint32_t n, at, part, len = ntohs(h->len);
	uint64_t w;

	for (n = 0, at = sizeof(*h); at < len; n++, at += part) {
		w = wire_word(ntohl(h->session), ntohl(h->seq), n) & wire_mask(h);
		part = len - at < sizeof(w) ? len - at : sizeof(w);
		memcpy(frame + at, &w, part);
	}
}

static inline bool wire_intact(const uint8_t *frame, uint32_t got)
{
	const struct wire_hdr *h = (const struct wire_hdr *)frame;
	uint32_t n, at, part, len = ntohs(h->len);
	uint64_t w;

	if (len < sizeof(*h) || len > got)
		return false;
	if (!(ntohl(h->arg[0]) & WIRE_F_LONG) &&
	    len != wire_len(ntohl(h->session), ntohl(h->seq)))
		return false;
	for (n = 0, at = sizeof(*h); at < len; n++, at += part) {
		w = wire_word(ntohl(h->session), ntohl(h->seq), n) & wire_mask(h);
		part = len - at < sizeof(w) ? len - at : sizeof(w);
		if (memcmp(frame + at, &w, part))
			return false;
	}
	return true;
}

#endif /* WIRE_H */
