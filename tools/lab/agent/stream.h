/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbered, pattern-filled UDP stream that L2's agent and L0's peer send
 * each other, and the accounting of what arrives.
 */
#ifndef STREAM_H
#define STREAM_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STREAM_PORT		7001
#define HELD_PORT		7002
#define STREAM_MAGIC		0x4d4c5354u
#define STREAM_MIN		64	/* bytes of UDP payload */
#define STREAM_MAX		1400
/*
 * So long that most of it is in pages that nobody but the device writes: a driver has
 * data of its own in the first and the last page of a packet, as virtio-net's build_skb()
 */
#define HELD_LENGTH		8900
#define STREAM_WINDOW		65536	/* how far back a duplicate is told from a latecomer */
#define STREAM_ROOM		(8 << 20)	/* bytes of a socket's receive buffer */
#define STREAM_RUNS		64	/* runs of lost numbers that are told apart */

#define NSEC_PER_SEC		1000000000ull

/* Consecutive numbers that have not come, while the ones before and after have */
struct run {
	uint64_t from;
	uint64_t to;		/* included */
};

/* What one end tells the other about itself; in every packet that has the room */
struct report {
	uint64_t sent;
	uint64_t received;	/* distinct packets */
	uint64_t highest;	/* number of one of them */
	uint64_t duplicate;
	uint64_t late;		/* after one with a higher number */
	uint64_t corrupt;
	uint64_t pages_checked;
	uint64_t pages_bad;
	uint64_t passes;	/* times that the whole of the memory was checked */
	uint64_t held;		/* packets that lay in L2's memory before they were looked at */
	uint64_t held_bad;	/* and were not what was sent then */
	uint64_t held_until_ns;	/* when the last of them was sent, by the sender's clock */
	uint64_t lost_runs;	/* runs of lost numbers, as of now: what comes late fills them */
	uint64_t run_index;	/* one of the first STREAM_RUNS of them, each in its turn, */
	struct run run;		/* and what it is */
};

/* Both ends are x86: the fields are as they are in memory */
struct header {
	uint32_t magic;
	uint32_t length;	/* of the payload, header included */
	uint64_t session;	/* differs each time a sender is started */
	uint64_t number;	/* counts from 0 */
	uint64_t sent_ns;	/* the sender's clock */
	uint64_t echo_ns;	/* sent_ns of the last packet that the sender has got, or 0 */
	uint64_t hold_ns;	/* how long ago that was */
};

struct sender {
	int fd;
	size_t length;		/* of each packet; 0: they differ */
	struct sockaddr_in to;
	uint64_t session;
	uint64_t sent;
	uint64_t interval_ns;
	uint64_t next_ns;
};

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

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* One " name=value" of a line for a program to read */
static inline void print_pair(const char *name, uint64_t value)
{
	printf(" %s=%lld", name, (long long)value);
}

/* A bijective mixer (the finalizer of splitmix64): neighbours look unrelated */
static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline size_t stream_length(uint64_t session, uint64_t number)
{
	return STREAM_MIN + mix(session ^ number) % (STREAM_MAX - STREAM_MIN + 1);
}

/* Where the pattern begins in a packet of that length */
static inline size_t pattern_start(size_t length)
{
	size_t with_report = sizeof(struct header) + sizeof(struct report);

	return length >= with_report ? with_report : sizeof(struct header);
}

/* The pattern's eight bytes at an offset; one mix for all of them, as all this is emulated */
static inline uint64_t pattern(uint64_t session, uint64_t number, size_t offset)
{
	return mix(session + number * HELD_LENGTH + offset);
}

static inline size_t pattern_part(size_t offset, size_t length)
{
	return length - offset < sizeof(uint64_t) ? length - offset : sizeof(uint64_t);
}

static inline int stream_socket(const char *address, uint16_t port, int room)
{
	struct sockaddr_in here = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
	};
	int fd;

	if (inet_pton(AF_INET, address, &here.sin_addr) != 1) {
		fprintf(stderr, "%s is not an IPv4 address\n", address);
		exit(2);
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here))) {
		perror("UDP socket");
		exit(1);
	}
	/* packets lost here would be counted as the device's */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room))) {
		perror("SO_RCVBUFFORCE");
		exit(1);
	}
	return fd;
}

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
	if (h->number < r->first || h->number + STREAM_WINDOW <= r->highest) {
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

#endif /* STREAM_H */
