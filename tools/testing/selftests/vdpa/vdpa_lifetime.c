// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lifetimes of a PCI function that may misbehave: the parent's driver is bound
 * to it, a vDPA device made, opened, driven, deleted, and the driver unbound.
 * Whatever the function does, each of these steps ends, and what fails does so
 * with an errno.
 *
 * Not a test by itself: somebody has to make the function misbehave. For each
 * line on stdin with a seed, in which the steps are chosen by it, there is a line
 * on stdout:
 *
 *	SEED STEPS 0			every step was a success
 *	SEED STEPS ERRNO STEP		the first that was not
 *
 * With "late" after the seed, "SEED up" comes first when the device has been
 * started, and the next line on stdin is waited for.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctrl.h"
#include "log.h"
#include "vdpa_nl.h"

#define NAME		"vdpa_life"
#define RING		32
/* more than its queues need would only take time to pin */
#define MEM_SIZE	(512UL << 10)
#define FRAME_LEN	76	/* the header, and the least that Ethernet allows */
#define LINE_LEN	128
#define MUST_HAVE	(BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM))

struct life {
	const char *pci;
	const char *driver;	/* which the function is for */
	uint64_t seed;
	uint64_t rng;
	uint64_t commands;	/* a sequence of their own: the steps are the same without them */
	bool late;		/* the function behaves until the device is started */
	bool packed;		/* the rings are */
	unsigned int steps;
	int err;		/* of the first step that failed */
	const char *step;	/* its name */

	struct vdpa v;
	struct vq vq[2];
	struct vq cq;
	bool suspended;
	bool runs[2];		/* the device has taken the queue */
	bool ctrl;		/* the driver serves a control virtqueue */
};

/* Every step goes through here. Returns whether it was a success */
static bool did(struct life *l, const char *step, int ret)
{
	l->steps++;
	if (ret >= 0)
		return true;
	if (!l->err) {
		l->err = -ret;
		l->step = step;
	}
	return false;
}

/* vhost-vdpa's node of the device, named for vdpa_open() */
static int find_node(void)
{
	struct dirent *entry;
	char path[300];
	DIR *dir;
	int ret = -ENOENT;

	dir = opendir("/sys/bus/vdpa/devices/" NAME);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, "vhost-vdpa-", 11))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		ret = setenv("VDPA_DEV", path, 1) ? -errno : 0;
	}
	closedir(dir);
	return ret;
}

/* With the features that the driver offers by default, or with all that it can offer */
static int add(struct life *l)
{
	static const uint8_t mac[6] = { 0x02, 0, 0, 0, 0, 0x77 };
	struct vdpa_nl_add a = {
		.name = NAME,
		.mgmt_bus = "pci",
		.mgmt_dev = l->pci,
	};
	struct vdpa_nl_info info;
	int ret;

	if (rng_below(&l->rng, 3)) {
		a.mac = rng_below(&l->rng, 2) ? mac : NULL;
		a.set_mtu = rng_below(&l->rng, 2);
	} else {
		ret = vdpa_nl_mgmt_get("pci", l->pci, &info);
		if (ret)
			return ret;
		l->packed = rng_below(&l->rng, 2);
		a.set_features = true;
		a.features = info.supported & ~BIT_ULL(VIRTIO_F_NOTIFICATION_DATA);
		if (!l->packed)
			a.features &= ~BIT_ULL(VIRTIO_F_RING_PACKED);
		/* one that the device need not have */
		a.set_mtu = true;
	}
	a.mtu = 1400;
	return vdpa_nl_dev_add(&a);
}

/* The control virtqueue, if the driver serves one: no device can keep it from that */
static bool start_ctrl(struct life *l)
{
	struct vdpa *v = &l->v;

	if (!vdpa_can(v, CAP_CTRL) || !(v->features & BIT_ULL(VIRTIO_NET_F_CTRL_VQ)))
		return true;
	l->cq.index = v->features & (BIT_ULL(VIRTIO_NET_F_MQ) | BIT_ULL(VIRTIO_NET_F_RSS)) ?
		      v->nvqs - 1 : 2;
	vq_set_start(&l->cq, rng(&l->commands));
	l->ctrl = did(l, "ctrl_setup", vq_setup(&l->cq, l->cq.avail_idx)) &&
		  did(l, "ctrl_enable", vq_enable(&l->cq, true));
	return l->ctrl;
}

/*
 * As far as the driver has to be for the device to run. VHOST_VDPA_SET_VRING_ENABLE does not tell
 * whether the device has taken the queue; that its state cannot be had while it runs does.
 */
static bool start(struct life *l)
{
	struct vhost_vring_state s = { };
	struct vdpa *v = &l->v;
	int i;

	l->suspended = false;
	l->ctrl = false;
	if (!did(l, "negotiate", vdpa_negotiate(v, l->packed ? ~0ULL : MUST_HAVE | rng(&l->rng))))
		return false;
	for (i = 0; i < 2; i++) {
		/* no state of a packed ring is just a number */
		vq_set_start(&l->vq[i], !l->packed && rng_below(&l->rng, 2) ? rng(&l->rng) : 0);
		if (!did(l, "vq_setup", vq_setup(&l->vq[i], l->vq[i].avail_idx)) ||
		    !did(l, "vq_enable", vq_enable(&l->vq[i], true)))
			return false;
	}
	if (!start_ctrl(l))
		return false;
	if (!did(l, "driver_ok", vdpa_set_status(v, CTRL_DRV_OK)) ||
	    !did(l, "get_status", vdpa_get_status(v)))
		return false;
	for (; s.index < 2; s.index++)
		l->runs[s.index] = vdpa_ioctl(v, VHOST_GET_VRING_BASE, &s) == -EBUSY;
	return true;
}

/*
 * Whatever the rings hold is the device's word, which is not what this is about. A packed ring
 * stays empty.
 */
static void traffic(struct life *l)
{
	int i, slot;

	if (l->packed)
		return;
	for (i = 0; i < 2; i++) {
		while (vq_reap(&l->vq[i], NULL) >= 0)
			;
		while ((slot = vq_free_slot(&l->vq[i])) >= 0)
			vq_post(&l->vq[i], slot, i ? FRAME_LEN : VQ_BUF_SIZE);
		vq_kick(&l->vq[i]);
	}
}

static int suspend(struct life *l)
{
	int ret = vdpa_ioctl(&l->v, VHOST_VDPA_SUSPEND, NULL);

	l->suspended |= !ret;
	return ret;
}

/*
 * What has not resumed in time may do so at any time: no ring state of it is for another device. A
 * queue that the device did not take has one all the same, which it was given.
 */
static int resume(struct life *l)
{
	int ret = vdpa_ioctl(&l->v, VHOST_VDPA_RESUME, NULL);
	struct vhost_vring_state s = { };

	l->suspended = false;
	/* it may not have resumed, and answers no command then */
	if (ret)
		l->ctrl = false;
	if (ret != -ETIMEDOUT)
		return ret;
	for (; s.index < 2; s.index++)
		if (l->runs[s.index] && !vdpa_ioctl(&l->v, VHOST_GET_VRING_BASE, &s))
			return -EBADE;
	return ret;
}

/*
 * As a VMM reads and restores it. What it gets is for another device to go on with, so the driver
 * must not pass on what is no position in a packed ring.
 */
static int ring_state(struct life *l, unsigned int vq)
{
	struct vhost_vring_state s = { .index = vq };
	int ret = vdpa_ioctl(&l->v, VHOST_GET_VRING_BASE, &s);

	if (ret)
		return ret;
	if (l->packed && ((s.num & 0x7fff) >= RING || (s.num >> 16 & 0x7fff) >= RING))
		return -EBADE;
	return vdpa_set_base(&l->v, s.index, s.num);
}

/*
 * A guest waits for the answer without end: whatever the device does, there is one, or the device
 * needs a reset.
 */
static int command(struct life *l)
{
	uint64_t *r = &l->commands;
	uint8_t class = rng_below(r, 6), cmd = rng_below(r, 5), data[8], i;
	int ret;

	for (i = 0; i < sizeof(data); i++)
		data[i] = rng_below(r, 4);
	ret = ctrl_run(&l->cq, class, cmd, data, rng_below(r, sizeof(data) + 1));
	if (ret == CTRL_NO_ACK)
		return -EBADMSG;
	return ret == -ETIMEDOUT && vdpa_get_status(&l->v) == CTRL_DRV_OK ? -EBADE : ret;
}

/* What there is no log of is none of the device's errors */
static int read_log(struct life *l)
{
	uint64_t words[MEM_SIZE / LOG_PAGE / 64];
	int ret = log_read_mem(&l->v, words);

	return ret == -ENODATA ? 0 : ret;
}

/* The log of all memory, or of one half of it */
static int start_log(struct life *l)
{
	struct vhost_vdpa_log_range r = { l->v.iova, l->v.mem_size };

	r.length >>= rng_below(&l->rng, 2);
	return log_start(&l->v, &r, 1);
}

/* One of what a VMM does with a device that it has started */
static void act(struct life *l)
{
	bool can_log = vdpa_can(&l->v, CAP_LOG);
	struct virtio_net_config config;
	struct vdpa_nl_info info;

	traffic(l);
	if (l->ctrl && !l->suspended && vdpa_get_status(&l->v) == CTRL_DRV_OK)
		did(l, "command", command(l));
	switch (rng_below(&l->rng, 12)) {
	case 0:
	case 1:
		did(l, "suspend", suspend(l));
		break;
	case 2:
		if (l->suspended)
			did(l, "resume", resume(l));
		break;
	case 3:
	case 4:
		if (l->suspended)
			did(l, "ring_state", ring_state(l, rng_below(&l->rng, 2)));
		break;
	case 5:
	case 6:
		if (can_log)
			did(l, "log_on", start_log(l));
		break;
	case 7:
		if (can_log)
			did(l, "log_off", log_stop(&l->v));
		break;
	case 8:
		if (can_log)
			did(l, "log_read", read_log(l));
		break;
	case 9:
		did(l, "get_config", vdpa_get_config(&l->v, 0, &config, sizeof(config)));
		did(l, "config_show", vdpa_nl_config_get(NAME, &info));
		break;
	case 10:
		did(l, "vstats_show", vdpa_nl_vstats_get(NAME, rng_below(&l->rng, 2), &info));
		break;
	case 11:
		if (did(l, "reset", vdpa_set_status(&l->v, 0)))
			start(l);
		break;
	}
}

/* The source's end of a migration: what the destination goes on with is read */
static void hand_over(struct life *l)
{
	int i;

	if (!l->suspended && !did(l, "suspend", suspend(l)))
		return;
	for (i = 0; i < 2; i++)
		did(l, "ring_state", ring_state(l, i));
	if (vdpa_can(&l->v, CAP_LOG)) {
		did(l, "log_read", read_log(l));
		did(l, "log_off", log_stop(&l->v));
	}
}

static void wait_for_go(const struct life *l)
{
	char line[LINE_LEN];

	printf("%llu up\n", (unsigned long long)l->seed);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		exit(KSFT_FAIL);
}

/* From open to close */
static void drive(struct life *l)
{
	unsigned int acts = rng_below(&l->rng, 12);
	int i;

	if (!did(l, "node", find_node()) || !did(l, "open", vdpa_open(&l->v)))
		return;
	if (!did(l, "map", vdpa_mem_init_size(&l->v, VDPA_IOVA, MEM_SIZE)))
		goto close;
	for (i = 0; i < 2; i++) {
		if (!did(l, "vq_init", vq_init(&l->vq[i], &l->v, i, RING, 1, VQ_BUF_SIZE, !i)))
			goto free;
	}
	if (!did(l, "ctrl_init", ctrl_init(&l->cq, &l->v, RING)))
		goto free;
	if (!start(l))
		goto free;
	if (l->late)
		wait_for_go(l);
	while (acts--)
		act(l);
	if (rng_below(&l->rng, 2))
		hand_over(l);
	for (i = 0; i < 2; i++)
		did(l, "take_call", vq_set_call(&l->vq[i], -1));
	/* as a VMM ends, or as one that is killed */
	if (rng_below(&l->rng, 2))
		did(l, "stop", vdpa_set_status(&l->v, 0));
free:
	for (i = 0; i < 2; i++) {
		if (l->vq[i].v)
			vq_free(&l->vq[i]);
	}
	if (l->cq.v)
		vq_free(&l->cq);
close:
	vdpa_close(&l->v);
}

static int driver_attr(const struct life *l, const char *attr)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s", l->driver, attr);
	return vdpa_write_file(path, l->pci);
}

static void live(struct life *l)
{
	if (!did(l, "bind", driver_attr(l, "bind")))
		return;
	if (did(l, "dev_add", add(l))) {
		drive(l);
		/* the unbind deletes it otherwise */
		if (rng_below(&l->rng, 2))
			did(l, "dev_del", vdpa_nl_dev_del(NAME));
	}
	/* the one step that may not fail: there would not be a next life */
	if (!did(l, "unbind", driver_attr(l, "unbind")))
		ksft_exit_fail_msg("seed %llu: cannot unbind %s: %s\n",
				   (unsigned long long)l->seed, l->pci, strerror(l->err));
}

/* The driver that the function is for: its driver_override */
static bool read_driver(const char *pci, char *driver, int size)
{
	char path[128];
	FILE *file;
	bool read;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", pci);
	file = fopen(path, "r");
	if (!file)
		return false;
	read = fgets(driver, size, file);
	fclose(file);
	driver[strcspn(driver, "\n")] = '\0';
	/* which is what the kernel says of none */
	return read && *driver && strcmp(driver, "(null)");
}

int main(int argc, char **argv)
{
	char line[LINE_LEN], driver[64] = "", *word;
	struct life l;

	if (argc != 2 || !read_driver(argv[1], driver, sizeof(driver))) {
		fprintf(stderr, "usage: vdpa_lifetime PCI <seeds\n"
			"PCI: the function's address; no driver is bound to it, and its driver_override names the one to test\n");
		return KSFT_SKIP;
	}
	while (fgets(line, sizeof(line), stdin)) {
		memset(&l, 0, sizeof(l));
		l.pci = argv[1];
		l.driver = driver;
		l.seed = strtoull(line, &word, 0);
		l.late = strstr(word, "late");
		rng_init(&l.rng, l.seed, "lifetime");
		rng_init(&l.commands, l.seed, "commands");
		live(&l);
		printf("%llu %u %d%s%s\n", (unsigned long long)l.seed, l.steps, l.err,
		       l.err ? " " : "", l.err ? l.step : "");
		fflush(stdout);
	}
	return KSFT_PASS;
}
