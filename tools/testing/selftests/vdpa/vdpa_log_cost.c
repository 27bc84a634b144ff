// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa_log_cost MIB SPAN ROUNDS PAGES [FILE COUNT]: how long the calls of the dirty log of
 * VDPA_DEV take
 *
 * So many MiB of memory are mapped, in pieces of 8 MiB that are spread evenly over a span of so
 * many MiB of IOVA, all of which is logged. In each round the device writes to so many pages of
 * it, evenly spread, after the start and before the reads: it receives a frame in each. Whoever
 * measures sends these frames. PAGES may be 0. With FILE and COUNT each round begins when so
 * many of these programs have come to it: they count themselves in that file, which was not
 * there. Each round prints the microseconds of
 *
 *	start=    a start of the log
 *	mapped=   reads of what is mapped, up to 64 GiB at a time with what is in between, as QEMU
 *	          has them
 *	all=      one read of the span
 *	stop=     a stop
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "log.h"
#include "tx.h"

#define PIECE		(8UL << 20)
#define WINDOW		(64UL << 30)
#define RINGS_IOVA	0x10000000ULL
#define RING		256
#define FRAME_MS	10000	/* none for so long: nobody sends them */
#define WAIT_MS		10	/* for a call; what comes without one is seen then */
#define MEET_MS		60000	/* until the others have mapped their memory */

static void must(const char *what, int ret)
{
	if (ret < 0) {
		fprintf(stderr, "vdpa_log_cost: %s: %s\n", what, strerror(-ret));
		exit(1);
	}
}

static void read_log(struct vdpa *v, uint64_t iova, uint64_t length, uint64_t *words)
{
	int flags = log_read(v, iova, length, words);

	must("read of the log", flags > 0 ? -EIO : flags);
}

/* The pieces begin at multiples of @stride, from that of the tests' memory on */
static void read_mapped(struct vdpa *v, uint64_t pieces, uint64_t stride, uint64_t *words)
{
	uint64_t first, end, i;

	for (first = 0; first < pieces; first = i) {
		end = first * stride + PIECE;
		for (i = first + 1; i < pieces; i++) {
			if (i * stride + PIECE - first * stride > WINDOW)
				break;
			end = i * stride + PIECE;
		}
		read_log(v, VDPA_IOVA + first * stride, end - first * stride,
			 words + first * stride / LOG_PAGE / 64);
	}
}

/* Have the device receive in that many pages of memory of @pieces, once in each */
static void write_pages(struct vq *rx, uint64_t pieces, uint64_t stride, uint64_t pages)
{
	uint64_t per_piece = PIECE / LOG_PAGE, posted = 0, used = 0, end = deadline(FRAME_MS);
	int slot, ret;

	while (used < pages) {
		while (posted < pages && (slot = vq_free_slot(rx)) >= 0) {
			uint64_t page = posted++ * (pieces * per_piece / pages);

			rx->desc[slot].addr = htole64(VDPA_IOVA + page / per_piece * stride +
						      page % per_piece * LOG_PAGE);
			rx->desc[slot].len = htole32(LOG_PAGE);
			rx->desc[slot].flags = htole16(VRING_DESC_F_WRITE);
			vq_publish(rx, slot);
		}
		vq_kick(rx);
		wait_readable(rx->call, deadline(WAIT_MS));
		vq_take_calls(rx);
		while ((ret = vq_reap(rx, NULL)) >= 0) {
			used++;
			end = deadline(FRAME_MS);
		}
		if (ret == -EAGAIN && expired(end))
			ret = -ETIMEDOUT;
		must("frames to receive", ret == -EAGAIN ? 0 : ret);
	}
}

/* Where the programs count themselves */
static uint64_t *meeting_place(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint64_t *come;

	must(path, fd < 0 || ftruncate(fd, sizeof(*come)) ? -errno : 0);
	come = mmap(NULL, sizeof(*come), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(path, come == MAP_FAILED ? -errno : 0);
	close(fd);
	return come;
}

/* Go on when programs have come there @all times, in all rounds so far */
static void meet(uint64_t *come, uint64_t all)
{
	uint64_t end = deadline(MEET_MS);

	__atomic_add_fetch(come, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(come, __ATOMIC_SEQ_CST) < all) {
		must("the other programs", expired(end) ? -ETIMEDOUT : 0);
		/* there are fewer CPUs than programs */
		sched_yield();
	}
}

/* How many there are; none is left */
static uint64_t take_bits(uint64_t *words, uint64_t count)
{
	uint64_t set = 0, i;

	for (i = 0; i < count; i++) {
		set += (uint64_t)__builtin_popcountll(words[i]);
		words[i] = 0;
	}
	return set;
}

int main(int argc, char **argv)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	/* Where it writes to its rings, these are logged, too: it must write nowhere else */
	struct vhost_vdpa_log_range ranges[] = {
		{ .iova = VDPA_IOVA },
		{ .iova = RINGS_IOVA, .length = VDPA_MEM_SIZE },
	};
	uint64_t size, span, pieces, stride, pages, i, logged;
	uint64_t began, started, written, mapped, all;
	static struct vq rx, tx;
	static struct vdpa v;
	uint64_t round, rounds, count = 0;
	uint64_t *words, *come = NULL;
	uint8_t *mem;

	if ((argc != 5 && argc != 7) || !vdpa_dev_path()) {
		fprintf(stderr,
			"usage: VDPA_DEV=NODE vdpa_log_cost MIB SPAN ROUNDS PAGES [FILE COUNT]\n");
		return 2;
	}
	size = strtoull(argv[1], NULL, 10) << 20;
	span = strtoull(argv[2], NULL, 10) << 20;
	rounds = strtoull(argv[3], NULL, 10);
	pages = strtoull(argv[4], NULL, 10);
	if (argc > 5) {
		come = meeting_place(argv[5]);
		count = strtoull(argv[6], NULL, 10);
	}
	pieces = size / PIECE;
	if (pages && size / LOG_PAGE % pages) {
		fprintf(stderr, "PAGES (%s) does not divide the pages of MIB (%s)\n", argv[4],
			argv[1]);
		return 2;
	}
	if (!pieces || size % PIECE || span < size || span % size || !rounds) {
		fprintf(stderr,
			"MIB (%s) is a multiple of 8, SPAN (%s) one of MIB, ROUNDS (%s) is not 0\n",
			argv[1], argv[2], argv[3]);
		return 2;
	}
	stride = span / pieces;
	ranges[0].length = span;

	must("limit of locked memory", setrlimit(RLIMIT_MEMLOCK, &unlimited) ? -errno : 0);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		   -1, 0);
	must("memory", mem == MAP_FAILED ? -errno : 0);
	words = calloc(span / LOG_PAGE / 64, sizeof(*words));
	must("bitmap", words ? 0 : -ENOMEM);
	must("open", vdpa_open(&v));
	for (i = 0; i < pieces; i++)
		must("map", vdpa_iotlb(&v, VHOST_IOTLB_UPDATE, VDPA_IOVA + i * stride, PIECE,
				       mem + i * PIECE, VHOST_ACCESS_RW));
	if (pages) {
		must("memory of the rings", vdpa_mem_init(&v, RINGS_IOVA));
		must("receive queue", vq_init(&rx, &v, 0, RING, 1, 0, true));
		must("send queue", vq_init(&tx, &v, 1, RING, 1, 0, false));
		must("start", tx_start(&v, &rx, &tx));
	}

	for (round = 1; round <= rounds; round++) {
		if (come)
			meet(come, round * count);
		began = now_us();
		must("start of the log", log_start(&v, ranges, pages ? 2 : 1));
		started = now_us();
		write_pages(&rx, pieces, stride, pages);
		written = now_us();
		read_mapped(&v, pieces, stride, words);
		mapped = now_us();
		read_log(&v, VDPA_IOVA, span, words);
		all = now_us();
		must("stop of the log", log_stop(&v));
		printf("start=%llu mapped=%llu all=%llu stop=%llu\n",
		       (unsigned long long)(started - began),
		       (unsigned long long)(mapped - written),
		       (unsigned long long)(all - mapped), (unsigned long long)(now_us() - all));
		logged = pages ? take_bits(words, span / LOG_PAGE / 64) : 0;
		if (logged != pages) {
			fprintf(stderr, "vdpa_log_cost: %llu pages written, %llu in the log\n",
				(unsigned long long)pages, (unsigned long long)logged);
			return 1;
		}
	}
	if (pages) {
		must("reset", vdpa_reset(&v));
		vq_free(&rx);
		vq_free(&tx);
	}
	vdpa_close(&v);
	return 0;
}
