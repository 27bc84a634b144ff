/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sending of a stream.
 */
#ifndef SENDER_H
#define SENDER_H

#include "receiver.h"

struct sender {
	int fd;
	size_t length;		/* of each packet; 0: they differ */
	struct sockaddr_in to;
	uint64_t session;
	uint64_t sent;
	uint64_t interval_ns;
	uint64_t next_ns;
};

static inline void sender_init(struct sender *s, int fd, const char *to, uint16_t port,
			       unsigned int rate)
{
	memset(s, 0, sizeof(*s));
	s->fd = fd;
	s->to.sin_family = AF_INET;
	s->to.sin_port = htons(port);
	if (inet_pton(AF_INET, to, &s->to.sin_addr) != 1 || !rate || rate > 1000000) {
		fprintf(stderr, "bad address %s or rate %u\n", to, rate);
		exit(2);
	}
	s->session = mix(now_ns() ^ (uint64_t)getpid() << 48);
	s->interval_ns = NSEC_PER_SEC / rate;
	s->next_ns = now_ns();
}

static inline void sender_one(struct sender *s, const struct receiver *r,
			      const struct report *about)
{
	uint8_t packet[HELD_LENGTH];
	size_t length = s->length ? s->length : stream_length(s->session, s->sent);
	size_t start = pattern_start(length);
	struct header h = {
		.magic = STREAM_MAGIC,
		.length = (uint32_t)length,
		.session = s->session,
		.number = s->sent,
		.sent_ns = now_ns(),
	};

	if (r->last_sent_ns) {
		h.echo_ns = r->last_sent_ns;
		h.hold_ns = h.sent_ns - r->last_ns;
	}
	memcpy(packet, &h, sizeof(h));
	if (start > sizeof(h))
		memcpy(packet + sizeof(h), about, sizeof(*about));
	for (size_t i = start; i < length; i += sizeof(uint64_t)) {
		uint64_t word = pattern(s->session, s->sent, i);

		memcpy(packet + i, &word, pattern_part(i, length));
	}

	/*
	 * A full queue is waited for: a packet that was not sent has no number.
	 * Nobody listening at the other end (ECONNREFUSED, from ICMP) is no error.
	 */
	while (sendto(s->fd, packet, length, 0, (struct sockaddr *)&s->to, sizeof(s->to)) < 0) {
		struct pollfd p = { .fd = s->fd, .events = POLLOUT };

		if (errno == ECONNREFUSED || errno == EINTR)
			continue;
		if (errno != EAGAIN && errno != ENOBUFS)
			return;
		poll(&p, 1, 10);
		if (now_ns() > h.sent_ns + NSEC_PER_SEC)
			return;
	}
	s->sent++;
}

/* Send what is due; after a long stop go on from now, without a burst */
static inline void sender_run(struct sender *s, const struct receiver *r,
			      const struct report *about)
{
	uint64_t now = now_ns();

	if (now > s->next_ns + NSEC_PER_SEC)
		s->next_ns = now;
	for (; s->next_ns <= now; s->next_ns += s->interval_ns)
		sender_one(s, r, about);
}

#endif /* SENDER_H */
