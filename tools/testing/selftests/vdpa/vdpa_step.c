// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa_step: drive VDPA_DEV through a VMM's life, one step for each line of stdin.
 *
 * For tests that look at what one step costs: what the driver does at other times is not
 * to be counted with it. A line is the name of a step, one of steps[] below. The answer is
 * "STEP=ERRNO us=TIME": 0 if all is well, and how many microseconds it took. Each step is done
 * to all virtqueues of the device, of which the last is the control virtqueue.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctrl.h"
#include "log.h"

#define RING		32
/* Not 0: a state of 0 may be that of a device that is gone, and is looked at twice */
#define BASE		7
#define MAX_QUEUES	17
#define STEP_SECONDS	600	/* the caller is gone, or hangs */

struct run {
	struct vdpa v;
	struct vq queues[MAX_QUEUES];
	uint32_t bases[MAX_QUEUES];
};

static int step_open(struct run *r)
{
	uint32_t i;
	int ret;

	ret = vdpa_open(&r->v);
	if (!ret)
		ret = vdpa_mem_init(&r->v, VDPA_IOVA);
	if (!ret && (r->v.nvqs < 3 || r->v.nvqs > MAX_QUEUES))
		ret = -ERANGE;
	/* A slot of the control virtqueue is two descriptors */
	for (i = 0; !ret && i < r->v.nvqs; i++)
		ret = vq_init(&r->queues[i], &r->v, i, RING, i == r->v.nvqs - 1 ? 2 : 1,
			      CTRL_BUF_SIZE, i % 2 == 0);
	return ret;
}

static int step_reset(struct run *r)
{
	return vdpa_set_status(&r->v, 0);
}

static int step_features(struct run *r)
{
	return vdpa_negotiate(&r->v, BIT_ULL(VIRTIO_F_VERSION_1) |
			      BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_NET_F_MAC) |
			      BIT_ULL(VIRTIO_NET_F_STATUS) | BIT_ULL(VIRTIO_NET_F_CTRL_VQ) |
			      BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT_ULL(VIRTIO_NET_F_MQ));
}

static int step_queues(struct run *r)
{
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < r->v.nvqs; i++) {
		vq_set_start(&r->queues[i], BASE);
		ret = vq_setup(&r->queues[i], BASE);
		if (!ret)
			ret = vq_enable(&r->queues[i], true);
	}
	return ret;
}

static int step_start(struct run *r)
{
	return vdpa_set_status(&r->v, CTRL_DRV_OK);
}

static int step_status(struct run *r)
{
	int status = vdpa_get_status(&r->v);

	return status < 0 ? status : status == CTRL_DRV_OK ? 0 : -EPROTO;
}

static int step_config(struct run *r)
{
	struct virtio_net_config config;

	return vdpa_get_config(&r->v, 0, &config, sizeof(config));
}

static int step_suspend(struct run *r)
{
	return vdpa_ioctl(&r->v, VHOST_VDPA_SUSPEND, NULL);
}

static int step_resume(struct run *r)
{
	return vdpa_ioctl(&r->v, VHOST_VDPA_RESUME, NULL);
}

static int step_get_state(struct run *r)
{
	uint32_t i;
	int base;

	for (i = 0; i < r->v.nvqs; i++) {
		base = vdpa_get_base(&r->v, i);
		if (base < 0)
			return base;
		r->bases[i] = base;
	}
	return 0;
}

static int step_set_state(struct run *r)
{
	uint32_t i;
	int ret = 0;

	for (i = 0; !ret && i < r->v.nvqs; i++)
		ret = vdpa_set_base(&r->v, i, r->bases[i]);
	return ret;
}

static int step_log_start(struct run *r)
{
	return log_mem(&r->v);
}

static int step_log_read(struct run *r)
{
	uint64_t words[LOG_WORDS];
	int flags;

	memset(words, 0, sizeof(words));
	flags = log_read_mem(&r->v, words);
	return flags > 0 ? -EPROTO : flags;
}

static int step_log_stop(struct run *r)
{
	return log_stop(&r->v);
}

/* Sets the MAC address; the status, which is a register, is not read while it waits */
static int step_command(struct run *r)
{
	static const uint8_t mac[CTRL_MAC_LEN] = { 0x52, 0x54, 0x00, 0x77, 0x00, 0x03 };
	struct vq *q = &r->queues[r->v.nvqs - 1];
	uint64_t end = deadline(CTRL_MS);
	int slot;

	slot = ctrl_post(q, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, sizeof(mac));
	if (slot < 0)
		return slot;
	vq_kick(q);
	while ((slot = vq_reap(q, NULL)) == -EAGAIN) {
		if (expired(end))
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	if (slot < 0)
		return slot;
	return *ctrl_ack(q, slot) == VIRTIO_NET_OK ? 0 : -EIO;
}

static int step_close(struct run *r)
{
	uint32_t i;

	for (i = 0; i < r->v.nvqs; i++)
		vq_free(&r->queues[i]);
	vdpa_close(&r->v);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct run *r);
} steps[] = {
	{ "open", step_open },
	{ "reset", step_reset },
	{ "features", step_features },
	{ "queues", step_queues },
	{ "start", step_start },
	{ "status", step_status },
	{ "config", step_config },
	{ "suspend", step_suspend },
	{ "resume", step_resume },
	{ "get_state", step_get_state },
	{ "set_state", step_set_state },
	{ "log_start", step_log_start },
	{ "log_read", step_log_read },
	{ "log_stop", step_log_stop },
	{ "command", step_command },
	{ "close", step_close },
};

int main(void)
{
	static struct run run;
	uint64_t began;
	char line[32];
	size_t i;
	int ret;

	if (!vdpa_dev_path()) {
		fprintf(stderr, "usage: VDPA_DEV=/dev/vhost-vdpa-N vdpa_step <STEPS\n");
		return 2;
	}
	alarm(STEP_SECONDS);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		for (i = 0; i < ARRAY_SIZE(steps); i++)
			if (!strcmp(line, steps[i].name))
				break;
		if (i == ARRAY_SIZE(steps)) {
			fprintf(stderr, "vdpa_step: there is no step %s\n", line);
			return 2;
		}
		began = now_us();
		ret = steps[i].run(&run);
		printf("%s=%d us=%llu\n", line, ret < 0 ? -ret : 0,
		       (unsigned long long)(now_us() - began));
		fflush(stdout);
	}
	return 0;
}
