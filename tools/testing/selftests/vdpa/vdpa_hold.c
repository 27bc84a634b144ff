// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa_hold STEP [send]: take VDPA_DEV as far as STEP, as a VMM does, and hold it
 * there until a line comes on stdin; then go on as if nothing had happened in
 * between, and with send, send frames.
 *
 * For tests in which something happens to the device meanwhile: it is reset,
 * unplugged, its driver unbound, its machine saved and restored. Prints "held STEP"
 * when it is there, and in the end what each call has returned, 0 or an errno; both
 * times how many pages the log has, what the used index is, and how often the device
 * has told of a change of its configuration since the last time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log.h"
#include "tx.h"

#define RING		32
#define FRAMES		8
#define HELD_SECONDS	600	/* the caller is gone, or hangs */

/* Each includes those before it */
enum step { OPENED, RUNNING, LOGGING, SUSPENDED, STEPS };

static const char * const step_names[STEPS] = { "opened", "running", "logging", "suspended" };

struct hold {
	struct vdpa v;
	struct vq tx;
	int config_call;
	int bits;		/* that were read last */
};

static void must(const char *what, int ret)
{
	if (ret < 0) {
		fprintf(stderr, "vdpa_hold: %s: %s\n", what, strerror(-ret));
		exit(1);
	}
}

/* Reads which pages were written since the last time; flags, or a negative errno */
static int take(struct hold *h)
{
	uint64_t words[LOG_WORDS] = { 0 };
	int i, flags = log_read_mem(&h->v, words);

	h->bits = 0;
	for (i = 0; i < LOG_WORDS; i++)
		h->bits += __builtin_popcountll(words[i]);
	return flags;
}

static void go_to(struct hold *h, enum step step)
{
	must("open", vdpa_open(&h->v));
	h->config_call = eventfd(0, EFD_NONBLOCK);
	must("eventfd", h->config_call < 0 ? -errno : 0);
	must("config call", vdpa_ioctl(&h->v, VHOST_VDPA_SET_CONFIG_CALL, &h->config_call));
	must("memory", vdpa_mem_init(&h->v, VDPA_IOVA));
	must("queue", vq_init(&h->tx, &h->v, 1, RING, 1, VQ_BUF_SIZE, false));
	if (step >= RUNNING) {
		must("start", tx_start(&h->v, NULL, &h->tx));
		must("send", tx_send(&h->tx, FRAMES));
	}
	if (step >= LOGGING) {
		must("log", log_mem(&h->v));
		must("send", tx_send(&h->tx, FRAMES));
		must("read", take(h));
		/* the same pages again: those bits are left to the device */
		must("send", tx_send(&h->tx, FRAMES));
	}
	if (step >= SUSPENDED)
		must("suspend", vdpa_ioctl(&h->v, VHOST_VDPA_SUSPEND, NULL));
}

static void print_state(const struct hold *h)
{
	eventfd_t told = 0;

	eventfd_read(h->config_call, &told);
	printf(" bits=%d used=%u told=%llu", h->bits, vq_device_used(&h->tx),
	       (unsigned long long)told);
}

#define TRY(name, call) do {				\
	int _ret = (call);				\
							\
	printf(" %s=%d", name, _ret < 0 ? -_ret : 0);	\
	fflush(stdout);					\
} while (0)

int main(int argc, char **argv)
{
	static struct hold h;
	enum step step;
	char line[16];

	for (step = 0; step < STEPS; step++)
		if (argc >= 2 && !strcmp(argv[1], step_names[step]))
			break;
	if (step == STEPS || argc > 3 || (argc == 3 && strcmp(argv[2], "send")) ||
	    !vdpa_dev_path()) {
		fprintf(stderr,
			"usage: VDPA_DEV=/dev/vhost-vdpa-N vdpa_hold opened|running|logging|suspended [send]\n");
		return 2;
	}
	alarm(HELD_SECONDS);
	go_to(&h, step);
	printf("held %s", step_names[step]);
	print_state(&h);
	printf("\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 1;

	printf("then");
	take(&h);
	print_state(&h);
	TRY("status", vdpa_get_status(&h.v));
	TRY("log", log_mem(&h.v));
	TRY("log_read", take(&h));
	if (argc == 3) {
		if (step == SUSPENDED)
			TRY("first_resume", vdpa_ioctl(&h.v, VHOST_VDPA_RESUME, NULL));
		TRY("send", tx_send(&h.tx, FRAMES));
		printf(" new");
		take(&h);
		print_state(&h);
	}
	TRY("kick", (vq_kick(&h.tx), 0));
	TRY("suspend", vdpa_ioctl(&h.v, VHOST_VDPA_SUSPEND, NULL));
	TRY("base", vdpa_get_base(&h.v, 1));
	TRY("resume", vdpa_ioctl(&h.v, VHOST_VDPA_RESUME, NULL));
	TRY("log_stop", log_stop(&h.v));
	TRY("reset", vdpa_reset(&h.v));
	TRY("start", tx_start(&h.v, NULL, &h.tx));
	/* one that has just started looks at its rings, which are to be there until it has */
	TRY("suspend_started", vdpa_ioctl(&h.v, VHOST_VDPA_SUSPEND, NULL));
	TRY("unmap", vdpa_iotlb(&h.v, VHOST_IOTLB_INVALIDATE, h.v.iova, h.v.mem_size, NULL, 0));
	vq_free(&h.tx);
	vdpa_close(&h.v);
	close(h.config_call);
	printf(" close=0\n");
	return 0;
}
