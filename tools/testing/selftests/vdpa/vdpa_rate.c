// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa_rate send|receive SECONDS [log]: how many frames VDPA_DEV takes or gives in that time
 *
 * A driver that does nothing else: what is sent is not looked at on its way, and what is
 * received is thrown away. With log, the dirty log is on all the while, and is read twice a
 * second. Prints the frames in a second. Whoever measures what is received sends it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "tx.h"

#define RING		256
#define LOG_MS		500
#define WAIT_MS		10	/* for a call; what comes without one is seen then */

static void must(const char *what, int ret)
{
	if (ret < 0) {
		fprintf(stderr, "vdpa_rate: %s: %s\n", what, strerror(-ret));
		exit(1);
	}
}

/* Gives the device all slots that are free */
static void fill(struct vq *q, uint32_t len)
{
	int slot, posted = 0;

	while ((slot = vq_free_slot(q)) >= 0) {
		vq_post(q, slot, len);
		posted++;
	}
	if (posted)
		vq_kick(q);
}

/* Frames until then */
static uint64_t run(struct vdpa *v, struct vq *q, uint32_t len, uint64_t end, bool log)
{
	uint64_t words[LOG_WORDS], read_at = deadline(LOG_MS), frames = 0;
	int ret;

	fill(q, len);
	while (!expired(end)) {
		while ((ret = vq_reap(q, NULL)) >= 0)
			frames++;
		if (ret != -EAGAIN)
			must("ring", ret);
		fill(q, len);
		if (log && expired(read_at)) {
			read_at = deadline(LOG_MS);
			memset(words, 0, sizeof(words));
			ret = log_read_mem(v, words);
			must("log", ret > 0 ? -EIO : ret);
		}
		if (vq_device_used(q) == q->used_idx) {
			wait_readable(q->call, deadline(WAIT_MS));
			vq_take_calls(q);
		}
	}
	return frames;
}

int main(int argc, char **argv)
{
	static struct vq rx, tx;
	static struct vdpa v;
	unsigned long seconds = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
	bool log = argc == 4 && !strcmp(argv[3], "log");
	bool send = argc > 1 && !strcmp(argv[1], "send");
	uint64_t frames;

	if (argc < 3 || argc > 4 || (argc == 4 && !log) || (!send && strcmp(argv[1], "receive")) ||
	    !seconds || !vdpa_dev_path()) {
		fprintf(stderr,
			"usage: VDPA_DEV=/dev/vhost-vdpa-N vdpa_rate send|receive SECONDS [log]\n");
		return 2;
	}
	must("open", vdpa_open(&v));
	must("memory", vdpa_mem_init(&v, VDPA_IOVA));
	must("receive queue", vq_init(&rx, &v, 0, RING, 1, VQ_BUF_SIZE, true));
	must("send queue", vq_init(&tx, &v, 1, RING, 1, VQ_BUF_SIZE, false));
	must("start", tx_start(&v, &rx, &tx));
	if (log)
		must("log", log_mem(&v));
	frames = run(&v, send ? &tx : &rx, send ? TX_FRAME_LEN : VQ_BUF_SIZE,
		     deadline(seconds * 1000), log);
	printf("%.1f\n", (double)frames / (double)seconds);
	must("reset", vdpa_reset(&v));
	vq_free(&rx);
	vq_free(&tx);
	vdpa_close(&v);
	return 0;
}
