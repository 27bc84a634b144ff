/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbered, pattern-filled UDP stream that L2's agent and L0's peer send each other: what is
 * in a packet. sender.h sends it, receiver.h accounts for what arrives.
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
	uint64_t held_late;	/* and came after one with a higher number */
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

#endif /* STREAM_H */
