// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vdpa-migrate: what a VMM asks of vhost-vdpa to migrate a guest on the dirty log of its device
 *
 *	vdpa-migrate /dev/vhost-vdpa-0 /dev/vhost-vdpa-1
 *
 * The guest is a piece of memory, and a driver in it that sends frames to nobody. It runs on the
 * first device, and continues on the second one, in a copy of that memory. There is no QEMU here,
 * and no library. Documentation/vhost-vdpa-log.rst explains the ioctls of the log.
 *
 *	cc -o vdpa-migrate vdpa-migrate.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

/* For the headers of a kernel without the log */
#ifndef VHOST_VDPA_LOG_START
#define VHOST_BACKEND_F_LOG_RANGES 0x9
#define VHOST_VDPA_LOG_FAULT 0x1
struct vhost_vdpa_log_range {
	__u64 iova;
	__u64 length;
};

struct vhost_vdpa_log_start {
	__u32 argsz;
	__u32 flags;
	__u64 page_size;
	__u32 asid;
	__u32 nranges;
	__u64 ranges;
};

struct vhost_vdpa_log_read {
	__u32 argsz;
	__u32 flags;
	__u64 iova;
	__u64 length;
	__u64 page_size;
	__u64 bitmap;
};

#define VHOST_VDPA_LOG_START	_IOWR(VHOST_VIRTIO, 0x86, struct vhost_vdpa_log_start)
#define VHOST_VDPA_LOG_READ	_IOWR(VHOST_VIRTIO, 0x87, struct vhost_vdpa_log_read)
#define VHOST_VDPA_LOG_STOP	_IO(VHOST_VIRTIO, 0x88)
#endif

#define PAGE		4096UL
#define MEM_SIZE	(64 * PAGE)
#define MEM_IOVA	0x100000UL	/* where the guest has its memory, and so the device */
#define RING		64
#define QUEUES		2		/* receive, which stays empty, and transmit */
#define TX		1
#define FRAME_LEN	76		/* a virtio-net header, and the shortest frame, of zeroes */
#define PASSES		5
#define SECONDS		10

/* Each virtqueue has four pages of the guest's memory, and the frame has the last one */
#define DESC(q)		((q) * 4 * PAGE)
#define AVAIL(q)	(DESC(q) + PAGE)
#define USED(q)		(DESC(q) + 2 * PAGE)
#define FRAME		(MEM_SIZE - PAGE)

struct device {
	const char *path;
	int fd;
	int kick[QUEUES];
	__u8 *mem;
};

/* The guest's driver. It moves along */
struct driver {
	__u16 avail;		/* frames that it has made available */
};

static void die(const char *who, const char *what)
{
	fprintf(stderr, "vdpa-migrate: %s: %s: %s\n", who, what, strerror(errno));
	exit(1);
}

static void call(struct device *d, unsigned long cmd, void *arg, const char *what)
{
	if (ioctl(d->fd, cmd, arg) < 0)
		die(d->path, what);
}

static void set_status(struct device *d, __u8 status)
{
	__u8 now;

	call(d, VHOST_VDPA_SET_STATUS, &status, "VHOST_VDPA_SET_STATUS");
	call(d, VHOST_VDPA_GET_STATUS, &now, "VHOST_VDPA_GET_STATUS");
	if (now != status) {
		errno = EPROTO;
		die(d->path, "the device does not take a status");
	}
}

/* The memory is mapped before anything can be told about it */
static void open_device(struct device *d, const char *path)
{
	const __u64 needed = 1ULL << VHOST_BACKEND_F_IOTLB_MSG_V2 |
				1ULL << VHOST_BACKEND_F_SUSPEND |
				1ULL << VHOST_BACKEND_F_LOG_RANGES;
	struct vhost_msg_v2 map = {
		.type = VHOST_IOTLB_MSG_V2,
		.iotlb = {
			.type = VHOST_IOTLB_UPDATE,
			.iova = MEM_IOVA,
			.size = MEM_SIZE,
			.perm = VHOST_ACCESS_RW,
		},
	};
	__u64 features;

	d->path = path;
	d->fd = open(path, O_RDWR);
	if (d->fd < 0)
		die(path, "open");
	d->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (d->mem == MAP_FAILED)
		die(path, "mmap");

	call(d, VHOST_SET_OWNER, NULL, "VHOST_SET_OWNER");
	call(d, VHOST_GET_BACKEND_FEATURES, &features, "VHOST_GET_BACKEND_FEATURES");
	if ((features & needed) != needed) {
		errno = EOPNOTSUPP;
		die(path, "the device cannot log what it writes, or cannot be suspended");
	}
	features = needed;
	call(d, VHOST_SET_BACKEND_FEATURES, &features, "VHOST_SET_BACKEND_FEATURES");

	map.iotlb.uaddr = (uintptr_t)d->mem;
	if (write(d->fd, &map, sizeof(map)) != sizeof(map))
		die(path, "VHOST_IOTLB_UPDATE (is RLIMIT_MEMLOCK too low?)");
}

/* From scratch, or where another device has left off */
static void start_device(struct device *d, const unsigned int *base)
{
	__u64 features;
	unsigned int q;

	set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	call(d, VHOST_GET_FEATURES, &features, "VHOST_GET_FEATURES");
	features &= 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_ACCESS_PLATFORM;
	call(d, VHOST_SET_FEATURES, &features, "VHOST_SET_FEATURES");
	set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		      VIRTIO_CONFIG_S_FEATURES_OK);

	for (q = 0; q < QUEUES; q++) {
		struct vhost_vring_state num = { q, RING }, from = { q, base[q] }, on = { q, 1 };
		struct vhost_vring_file kick = { .index = q, .fd = eventfd(0, EFD_NONBLOCK) };
		struct vhost_vring_addr addr = {
			.index = q,
			.desc_user_addr = MEM_IOVA + DESC(q),
			.avail_user_addr = MEM_IOVA + AVAIL(q),
			.used_user_addr = MEM_IOVA + USED(q),
		};

		d->kick[q] = kick.fd;
		call(d, VHOST_SET_VRING_NUM, &num, "VHOST_SET_VRING_NUM");
		call(d, VHOST_SET_VRING_BASE, &from, "VHOST_SET_VRING_BASE");
		call(d, VHOST_SET_VRING_ADDR, &addr, "VHOST_SET_VRING_ADDR");
		call(d, VHOST_SET_VRING_KICK, &kick, "VHOST_SET_VRING_KICK");
		call(d, VHOST_VDPA_SET_VRING_ENABLE, &on, "VHOST_VDPA_SET_VRING_ENABLE");
	}
	set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		      VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* The guest's driver: frames are made available, and the device is told */
static void post(struct device *d, struct driver *drv, unsigned int frames)
{
	struct vring_desc *desc = (void *)(d->mem + DESC(TX));
	struct vring_avail *avail = (void *)(d->mem + AVAIL(TX));

	while (frames--) {
		unsigned int slot = drv->avail++ % RING;

		desc[slot] = (struct vring_desc){ .addr = MEM_IOVA + FRAME, .len = FRAME_LEN };
		avail->ring[slot] = slot;
	}
	__atomic_store_n(&avail->idx, drv->avail, __ATOMIC_RELEASE);
	if (eventfd_write(d->kick[TX], 1))
		die(d->path, "kick");
}

/* The guest's driver: the device has sent all of them */
static void wait_used(struct device *d, const struct driver *drv)
{
	struct vring_used *used = (void *)(d->mem + USED(TX));
	time_t end = time(NULL) + SECONDS;

	while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != drv->avail) {
		if (time(NULL) > end) {
			errno = ETIMEDOUT;
			die(d->path, "the device has not sent the frames");
		}
		usleep(1000);
	}
}

static void start_log(struct device *d)
{
	struct vhost_vdpa_log_range range = { MEM_IOVA, MEM_SIZE };
	struct vhost_vdpa_log_start start = {
		.argsz = sizeof(start),
		.page_size = PAGE,
		.nranges = 1,
		.ranges = (uintptr_t)&range,
	};

	call(d, VHOST_VDPA_LOG_START, &start, "VHOST_VDPA_LOG_START");
}

/* Copies what the device has written since the last time; how many pages that were */
static unsigned int copy_dirty(struct device *from, struct device *to)
{
	__u64 bitmap[(MEM_SIZE / PAGE + 63) / 64] = { 0 };
	struct vhost_vdpa_log_read read = {
		.argsz = sizeof(read),
		.iova = MEM_IOVA,
		.length = MEM_SIZE,
		.page_size = PAGE,
		.bitmap = (uintptr_t)bitmap,
	};
	unsigned int page, pages = 0;

	call(from, VHOST_VDPA_LOG_READ, &read, "VHOST_VDPA_LOG_READ");
	/* there are writes without a bit: nobody knows which, so it is all of memory */
	if (read.flags & VHOST_VDPA_LOG_FAULT)
		memset(bitmap, 0xff, sizeof(bitmap));
	for (page = 0; page < MEM_SIZE / PAGE; page++)
		if (bitmap[page / 64] >> page % 64 & 1) {
			memcpy(&to->mem[page * PAGE], &from->mem[page * PAGE], PAGE);
			pages++;
		}
	return pages;
}

/* What the guest's CPUs write, KVM tells a VMM. Here it is known: descriptors, available ring */
static void copy_what_the_driver_wrote(struct device *from, struct device *to)
{
	memcpy(to->mem + DESC(TX), from->mem + DESC(TX), 2 * PAGE);
}

int main(int argc, char **argv)
{
	unsigned int base[QUEUES] = { 0 }, pass, q;
	struct device from, to;
	struct driver drv = { 0 };

	if (argc != 3) {
		fprintf(stderr, "usage: vdpa-migrate /dev/vhost-vdpa-0 /dev/vhost-vdpa-1\n");
		return 2;
	}
	open_device(&from, argv[1]);
	open_device(&to, argv[2]);
	start_device(&from, base);
	post(&from, &drv, RING);
	wait_used(&from, &drv);

	/* Nothing was logged before the start, so all of memory is dirty once */
	start_log(&from);
	memcpy(to.mem, from.mem, MEM_SIZE);
	for (pass = 1; pass <= PASSES; pass++) {
		post(&from, &drv, RING);
		wait_used(&from, &drv);
		copy_what_the_driver_wrote(&from, &to);
		printf("pass %u: %u pages\n", pass, copy_dirty(&from, &to));
	}

	/* Some frames are under way. From the suspend on the device writes nothing */
	post(&from, &drv, RING);
	call(&from, VHOST_VDPA_SUSPEND, NULL, "VHOST_VDPA_SUSPEND");
	copy_what_the_driver_wrote(&from, &to);
	printf("suspended: %u pages\n", copy_dirty(&from, &to));
	for (q = 0; q < QUEUES; q++) {
		struct vhost_vring_state state = { .index = q };

		call(&from, VHOST_GET_VRING_BASE, &state, "VHOST_GET_VRING_BASE");
		base[q] = state.num;
	}
	call(&from, VHOST_VDPA_LOG_STOP, NULL, "VHOST_VDPA_LOG_STOP");
	if (memcmp(to.mem, from.mem, MEM_SIZE)) {
		fprintf(stderr, "vdpa-migrate: %s: has written what it has not logged\n",
			from.path);
		return 1;
	}

	/* The rings are where they were, so a kick is all that the rest of the frames needs */
	start_device(&to, base);
	post(&to, &drv, 0);
	wait_used(&to, &drv);
	post(&to, &drv, RING);
	wait_used(&to, &drv);
	printf("migrated at frame %u of %u\n", base[TX], drv.avail);
	return 0;
}
