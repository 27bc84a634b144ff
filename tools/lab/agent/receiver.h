/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The accounting of what arrives of a stream.
 */
#ifndef RECEIVER_H
#define RECEIVER_H

#include "stream.h"

struct receiver {
	size_t length;		/* as the sender's */
	uint64_t session;
	uint64_t sessions;
	uint64_t first;
	uint64_t highest;
	uint64_t received;
	uint64_t duplicate;
	uint64_t late;
	uint64_t corrupt;
	uint64_t last_ns;	/* when the last packet came */
	uint64_t last_sent_ns;	/* and the sender's time in it */
	uint64_t gap_ns;	/* the longest time without a packet */
	uint64_t gap_at_ns;	/* and when it ended */
	uint64_t lost_runs;
	struct run runs[STREAM_RUNS];	/* in no order; others are only counted */
	bool seen[STREAM_WINDOW];
};

static inline bool packet_intact(const struct receiver *r, const uint8_t *packet, size_t length,
				 const struct header *h)
{
	if (h->length != length ||
	    length != (r->length ? r->length : stream_length(h->session, h->number)))
		return false;
	for (size_t i = pattern_start(length); i < length; i += sizeof(uint64_t)) {
		uint64_t word = pattern(h->session, h->number, i);

		if (memcmp(packet + i, &word, pattern_part(i, length)))
			return false;
	}
	return true;
}

/* A number behind the highest has come that was in a run: cut it out of that */
static inline void runs_fill(struct receiver *r, uint64_t number)
{
	uint64_t known = r->lost_runs < STREAM_RUNS ? r->lost_runs : STREAM_RUNS;

	for (uint64_t i = 0; i < known; i++) {
		struct run *run = &r->runs[i];

		if (number < run->from || number > run->to)
			continue;
		if (run->from == run->to) {
			*run = r->runs[known - 1];
			r->lost_runs--;
		} else if (number == run->from) {
			run->from++;
		} else if (number == run->to) {
			run->to--;
		} else {
			if (r->lost_runs < STREAM_RUNS)
				r->runs[r->lost_runs] = (struct run){ number + 1, run->to };
			run->to = number - 1;
			r->lost_runs++;
		}
		return;
	}
}

/* Account for one packet; true if it is new, then *h and maybe *about are filled in */
static inline bool receiver_packet(struct receiver *r, const uint8_t *packet, size_t length,
				   struct header *h, struct report *about)
{
	uint64_t now = now_ns();
	bool *seen;

	if (length < sizeof(*h)) {
		r->corrupt++;
		return false;
	}
	memcpy(h, packet, sizeof(*h));
	if (h->magic != STREAM_MAGIC || !packet_intact(r, packet, length, h)) {
		r->corrupt++;
		return false;
	}
	if (h->session != r->session) {
		uint64_t sessions = r->sessions;
		size_t fixed = r->length;

		memset(r, 0, sizeof(*r));
		r->length = fixed;
		r->sessions = sessions + 1;
		r->session = h->session;
		r->first = h->number;
		r->highest = h->number;
	} else if (now - r->last_ns > r->gap_ns) {
		r->gap_ns = now - r->last_ns;
		r->gap_at_ns = now;
	}
	r->last_ns = now;
	/* no queue holds a packet up for so long: it is what a page held before */
	if (h->number + STREAM_WINDOW <= r->highest) {
		r->duplicate++;
		return false;
	}
	if (h->number < r->first) {
		r->late++;
		return false;
	}
	if (h->number > r->highest + 1) {
		if (r->lost_runs < STREAM_RUNS)
			r->runs[r->lost_runs] = (struct run){ r->highest + 1, h->number - 1 };
		r->lost_runs++;
	}
	for (; r->highest < h->number; r->highest++)
		r->seen[(r->highest + 1) % STREAM_WINDOW] = false;
	seen = &r->seen[h->number % STREAM_WINDOW];
	if (*seen) {
		r->duplicate++;
		return false;
	}
	*seen = true;
	r->received++;
	if (h->number < r->highest) {
		r->late++;
		runs_fill(r, h->number);
	}
	r->last_sent_ns = h->sent_ns;
	if (pattern_start(length) > sizeof(*h))
		memcpy(about, packet + sizeof(*h), sizeof(*about));
	return true;
}

#endif /* RECEIVER_H */
