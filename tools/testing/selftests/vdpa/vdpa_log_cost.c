// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa_log_cost MIB SPAN ROUNDS: how long the calls of the dirty log of VDPA_DEV take
 *
 * So many MiB of memory are mapped, in pieces of 8 MiB that are spread evenly over a span of so
 * many MiB of IOVA, all of which is logged. Nothing is written to it. Each round prints the
 * microseconds of
 *
 *	start=    a start of the log
 *	mapped=   reads of what is mapped, up to 64 GiB at a time with what is in between, as QEMU
 *	          has them
 *	all=      one read of the span
 *	stop=     a stop
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "log.h"

#define PIECE	(8UL << 20)
#define WINDOW	(64UL << 30)

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

int main(int argc, char **argv)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct vhost_vdpa_log_range range = { .iova = VDPA_IOVA };
	uint64_t size, pieces, stride, i, began, started, mapped, all;
	static struct vdpa v;
	unsigned long rounds;
	uint64_t *words;
	uint8_t *mem;

	if (argc != 4 || !vdpa_dev_path()) {
		fprintf(stderr,
			"usage: VDPA_DEV=/dev/vhost-vdpa-N vdpa_log_cost MIB SPAN ROUNDS\n");
		return 2;
	}
	size = strtoull(argv[1], NULL, 10) << 20;
	range.length = strtoull(argv[2], NULL, 10) << 20;
	rounds = strtoul(argv[3], NULL, 10);
	pieces = size / PIECE;
	if (!pieces || size % PIECE || range.length < size || range.length % size || !rounds) {
		fprintf(stderr,
			"MIB (%s) is a multiple of 8, SPAN (%s) one of MIB, ROUNDS (%s) is not 0\n",
			argv[1], argv[2], argv[3]);
		return 2;
	}
	stride = range.length / pieces;

	must("limit of locked memory", setrlimit(RLIMIT_MEMLOCK, &unlimited) ? -errno : 0);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		   -1, 0);
	must("memory", mem == MAP_FAILED ? -errno : 0);
	words = calloc(range.length / LOG_PAGE / 64, sizeof(*words));
	must("bitmap", words ? 0 : -ENOMEM);
	must("open", vdpa_open(&v));
	for (i = 0; i < pieces; i++)
		must("map", vdpa_iotlb(&v, VHOST_IOTLB_UPDATE, VDPA_IOVA + i * stride, PIECE,
				       mem + i * PIECE, VHOST_ACCESS_RW));

	while (rounds--) {
		began = now_us();
		must("start of the log", log_start(&v, &range, 1));
		started = now_us();
		read_mapped(&v, pieces, stride, words);
		mapped = now_us();
		read_log(&v, VDPA_IOVA, range.length, words);
		all = now_us();
		must("stop of the log", log_stop(&v));
		printf("start=%llu mapped=%llu all=%llu stop=%llu\n",
		       (unsigned long long)(started - began),
		       (unsigned long long)(mapped - started),
		       (unsigned long long)(all - mapped), (unsigned long long)(now_us() - all));
	}
	vdpa_close(&v);
	return 0;
}
