// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A hostile VMM: several threads make calls on one device, most of them wrong, in
 * no order. They share one file, which any of them closes and opens again, and memory
 * whose rings they scribble over. Whatever comes back is right; what is asked for is that
 * the kernel has nothing to report, that no page stays pinned, and that the
 * device works for the next owner.
 *
 * Call n of thread t is drawn from VDPA_SEED and the two numbers alone, whatever came of the calls
 * before: with VDPA_FUZZ_THREADS=1 a run is repeated exactly, with more but for their order.
 */
#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "ctrl.h"
#include "log.h"
#include "tx.h"
#include "vring.h"

#define CALLS		20000	/* of all threads, unless VDPA_FUZZ_CALLS says otherwise */
#define THREADS		4	/* unless VDPA_FUZZ_THREADS does */
#define MAX_THREADS	64
#define TEST_SECONDS	(6 * 3600)
#define ARENA		(256UL << 10)	/* mapped for the device, here or there */
#define GUARD		(1024UL << 20)	/* on either side of it: nothing to be pinned there */
#define RING		8
#define FRAMES		32	/* sent when all is over */
#define DOORBELLS	4	/* of each thread, mapped at a time */
#define QUEUES		3	/* for receiving, for sending, for control */
#define CQ		(QUEUES - 1)

/* What a call's argument points to */
enum arg {
	ARG_NONE,
	ARG_STATUS,
	ARG_NUMBER,		/* whatever its size is */
	ARG_FEATURES,
	ARG_BACKEND,
	ARG_STATE,
	ARG_ADDR,
	ARG_FILE,
	ARG_CONFIG_CALL,
	ARG_CONFIG,
	ARG_LOG_START,
	ARG_LOG_READ,
	ARG_MEM,
};

static const struct {
	unsigned long cmd;
	enum arg arg;
} ioctls[] = {
	{ VHOST_VDPA_GET_DEVICE_ID, ARG_NUMBER },
	{ VHOST_VDPA_GET_STATUS, ARG_STATUS },
	{ VHOST_VDPA_SET_STATUS, ARG_STATUS },
	{ VHOST_VDPA_SET_STATUS, ARG_STATUS },
	{ VHOST_VDPA_GET_CONFIG, ARG_CONFIG },
	{ VHOST_VDPA_SET_CONFIG, ARG_CONFIG },
	{ VHOST_VDPA_SET_VRING_ENABLE, ARG_STATE },
	{ VHOST_VDPA_SET_VRING_ENABLE, ARG_STATE },
	{ VHOST_VDPA_GET_VRING_NUM, ARG_NUMBER },
	{ VHOST_VDPA_SET_CONFIG_CALL, ARG_CONFIG_CALL },
	{ VHOST_VDPA_GET_IOVA_RANGE, ARG_FEATURES },
	{ VHOST_VDPA_GET_CONFIG_SIZE, ARG_NUMBER },
	{ VHOST_VDPA_GET_VQS_COUNT, ARG_NUMBER },
	{ VHOST_VDPA_GET_GROUP_NUM, ARG_NUMBER },
	{ VHOST_VDPA_GET_AS_NUM, ARG_NUMBER },
	{ VHOST_VDPA_GET_VRING_GROUP, ARG_STATE },
	{ VHOST_VDPA_SET_GROUP_ASID, ARG_STATE },
	{ VHOST_VDPA_GET_VRING_DESC_GROUP, ARG_STATE },
	{ VHOST_VDPA_GET_VRING_SIZE, ARG_STATE },
	{ VHOST_VDPA_SUSPEND, ARG_NONE },
	{ VHOST_VDPA_SUSPEND, ARG_NONE },
	{ VHOST_VDPA_RESUME, ARG_NONE },
	{ VHOST_VDPA_LOG_START, ARG_LOG_START },
	{ VHOST_VDPA_LOG_START, ARG_LOG_START },
	{ VHOST_VDPA_LOG_READ, ARG_LOG_READ },
	{ VHOST_VDPA_LOG_READ, ARG_LOG_READ },
	{ VHOST_VDPA_LOG_STOP, ARG_NONE },
	{ VHOST_SET_OWNER, ARG_NONE },
	{ VHOST_RESET_OWNER, ARG_NONE },
	{ VHOST_GET_FEATURES, ARG_FEATURES },
	{ VHOST_SET_FEATURES, ARG_FEATURES },
	{ VHOST_GET_BACKEND_FEATURES, ARG_BACKEND },
	{ VHOST_SET_BACKEND_FEATURES, ARG_BACKEND },
	{ VHOST_SET_MEM_TABLE, ARG_MEM },
	{ VHOST_SET_LOG_BASE, ARG_FEATURES },
	{ VHOST_SET_LOG_FD, ARG_CONFIG_CALL },
	{ VHOST_SET_VRING_NUM, ARG_STATE },
	{ VHOST_SET_VRING_ADDR, ARG_ADDR },
	{ VHOST_SET_VRING_BASE, ARG_STATE },
	{ VHOST_GET_VRING_BASE, ARG_STATE },
	{ VHOST_SET_VRING_KICK, ARG_FILE },
	{ VHOST_SET_VRING_CALL, ARG_FILE },
	{ VHOST_SET_VRING_ERR, ARG_FILE },
	{ VHOST_SET_VRING_ENDIAN, ARG_STATE },
	{ VHOST_GET_VRING_ENDIAN, ARG_STATE },
	{ VHOST_SET_VRING_BUSYLOOP_TIMEOUT, ARG_STATE },
	{ VHOST_GET_VRING_BUSYLOOP_TIMEOUT, ARG_STATE },
};

FIXTURE(fuzz) {
	struct vdpa v;
	struct vq tx;
	int pinned;		/* pages, when the test began */
};

/* What the threads share */
struct shared {
	struct vdpa *v;
	struct vq queues[QUEUES];	/* where a start puts them, whatever is done to them */
	uint8_t *guard;		/* around @arena */
	uint8_t *arena;
	uint8_t *read_only;	/* a page */
	uint8_t *edge;		/* the end of a page, with none behind it */
	uint64_t seed;
	uint32_t calls;		/* of each thread */
	int fd;			/* of the device, or -1 */
	uint32_t step;		/* of the next start */
};

struct doorbell {
	void *page;
	bool writable;
};

struct fuzzer {
	struct shared *s;
	pthread_t thread;
	unsigned int number;
	uint64_t rng;		/* of this call */
	struct doorbell doorbell[DOORBELLS];
	uint64_t good;		/* calls that succeeded */
	uint64_t acks;		/* commands whose ack was seen */
};

static uint32_t below(struct fuzzer *f, uint32_t n)
{
	return rng_below(&f->rng, n);
}

static bool one_in(struct fuzzer *f, uint32_t n)
{
	return !below(f, n);
}

static uint64_t rng64(struct fuzzer *f)
{
	return (uint64_t)rng(&f->rng) << 32 | rng(&f->rng);
}

/* An index or a count: most of the time one that there is */
static uint32_t number(struct fuzzer *f)
{
	static const uint32_t odd[] = {
		4, 7, 255, 256, 1023, 1024, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, ~0U,
	};

	if (one_in(f, 4))
		return odd[below(f, ARRAY_SIZE(odd))];
	return one_in(f, 32) ? rng(&f->rng) : below(f, 4);
}

static uint32_t ring_size(struct fuzzer *f)
{
	return one_in(f, 4) ? number(f) : 1U << below(f, 9);
}

/* An IOVA: where memory may be mapped, or far from it */
static uint64_t iova(struct fuzzer *f)
{
	struct shared *s = f->s;

	switch (below(f, 16)) {
	case 0: return 0;
	case 1: return ~0ULL - below(f, 8192);
	case 2: return s->v->range.last - below(f, 8192);
	case 3: return 0xfee00000 + below(f, 0x2000);	/* interrupts, on this machine */
	case 4: return rng64(f);
	case 5: return s->v->iova + below(f, 2 * ARENA);
	/* the bits of the arena's pages, in an array above what may be mapped */
	case 6: return s->v->range.last + 1 + s->v->iova / LOG_PAGE / 8;
	default: return s->v->iova + below(f, 2 * ARENA / 4096) * 4096ULL;
	}
}

static uint64_t size(struct fuzzer *f)
{
	switch (below(f, 16)) {
	case 0: return 0;
	case 1: return below(f, 8192);
	case 2: return 1ULL << below(f, 64);
	case 3: return rng64(f);
	case 4: return ~0ULL;
	default: return (below(f, 16) + 1) * 4096ULL;
	}
}

/* Memory of this process: none that it needs itself, the device may write to it */
static uint64_t user_address(struct fuzzer *f)
{
	struct shared *s = f->s;

	switch (below(f, 16)) {
	case 0: return 0;
	case 1: return (uintptr_t)s->guard + below(f, GUARD / 4096) * 4096ULL;
	case 2: return (uintptr_t)s->read_only;
	case 3: return (uintptr_t)f->doorbell[below(f, DOORBELLS)].page;
	case 4: return 1ULL << 63 | rng64(f);
	case 5: return (uintptr_t)s->arena + below(f, ARENA);
	default: return (uintptr_t)s->arena + below(f, ARENA / 4096) * 4096ULL;
	}
}

/* The data queues are in the first space; the control virtqueue may be in the second */
static uint32_t asid(struct fuzzer *f)
{
	return one_in(f, 64) ? number(f) : one_in(f, 4);
}

static uint8_t status(struct fuzzer *f)
{
	static const uint8_t usual[] = {
		0, 1, 3, 11, 11, 15, 15, 15, 15, 7, 4, 8, 0x4f, 0x8f, 0x80,
	};

	return one_in(f, 8) ? rng(&f->rng) : usual[below(f, ARRAY_SIZE(usual))];
}

static uint64_t features(struct fuzzer *f)
{
	uint64_t offered = f->s->v->offered;

	switch (below(f, 8)) {
	case 0: return rng64(f);
	case 1: return 0;
	case 2: return offered | rng64(f);
	case 3: return MUST_HAVE;
	case 4: case 5: return offered | MUST_HAVE;
	default: return (offered & rng64(f)) | MUST_HAVE;
	}
}

/*
 * An eventfd of the queue @index, or none. They are open as long as the threads run: vhost drops
 * its reference to one that is replaced before the parent has been told of the new one
 * (vhost_vring_ioctl(), and vhost_vdpa_set_config_call() until Linux 7), and an interrupt in
 * between uses it. No two queues have one in common: of two producers with the same token,
 * irq_bypass_unregister_producer() of Linux 6.12 takes the wrong one off its list.
 */
static int event_fd(struct fuzzer *f, uint32_t index)
{
	struct vq *q;

	if (index >= QUEUES)
		return -1;
	q = &f->s->queues[index];
	switch (below(f, 3)) {
	case 0: return q->kick;
	case 1: return q->call;
	default: return -1;
	}
}

/* No eventfd: nothing, stdin, what is not open */
static int odd_fd(struct fuzzer *f)
{
	static const int fds[] = { -2, 0, 1 << 20 };

	return fds[below(f, ARRAY_SIZE(fds))];
}

union arg_buf {
	uint8_t bytes[256];
	uint8_t status;
	uint32_t number;
	int32_t fd;
	uint64_t features;
	struct vhost_vring_state state;
	struct vhost_vring_addr addr;
	struct vhost_vring_file file;
	struct vhost_vdpa_config config;
	struct {
		struct vhost_vdpa_log_start start;
		struct vhost_vdpa_log_range ranges[8];
	};
	struct vhost_vdpa_log_read read;
	struct vhost_memory mem;
};

static void make_arg(struct fuzzer *f, enum arg what, union arg_buf *b)
{
	uint32_t i;

	memset(b, rng(&f->rng), sizeof(*b));
	switch (what) {
	case ARG_NONE:
		break;
	case ARG_STATUS:
		b->status = status(f);
		break;
	case ARG_NUMBER:
		b->number = number(f);
		break;
	case ARG_FEATURES:
		b->features = features(f);
		break;
	case ARG_BACKEND:
		b->features = one_in(f, 4) ? rng64(f) : f->s->v->backend & (rng64(f) | rng64(f));
		break;
	case ARG_STATE:
		b->state.index = number(f);
		b->state.num = one_in(f, 2) ? ring_size(f) : number(f);
		break;
	case ARG_ADDR:
		b->addr.index = number(f);
		b->addr.flags = one_in(f, 8) ? rng(&f->rng) : 0;
		b->addr.desc_user_addr = iova(f);
		b->addr.avail_user_addr = iova(f);
		b->addr.used_user_addr = iova(f);
		b->addr.log_guest_addr = iova(f);
		break;
	case ARG_FILE:
		b->file.index = number(f);
		b->file.fd = one_in(f, 16) ? odd_fd(f) : event_fd(f, b->file.index);
		break;
	case ARG_CONFIG_CALL:
		/*
		 * None that is no eventfd: until Linux 7, vhost_vdpa_set_config_call() has the
		 * error for a moment where an interrupt looks for the eventfd.
		 */
		b->fd = event_fd(f, below(f, 2));
		break;
	case ARG_CONFIG:
		b->config.off = one_in(f, 2) ? number(f) : below(f, 64);
		b->config.len = one_in(f, 4) ? number(f) : below(f, 64);
		break;
	case ARG_LOG_START:
		b->start.argsz = one_in(f, 16) ? number(f) : sizeof(b->start);
		b->start.flags = one_in(f, 16) ? number(f) : 0;
		b->start.page_size = one_in(f, 8) ? number(f) : LOG_PAGE;
		b->start.asid = one_in(f, 16) ? number(f) : 0;
		b->start.nranges = one_in(f, 16) ? number(f) : 1 + below(f, 4);
		b->start.ranges = one_in(f, 16) ? user_address(f) : (uintptr_t)b->ranges;
		for (i = 0; i < ARRAY_SIZE(b->ranges); i++) {
			b->ranges[i].iova = one_in(f, 4) ? iova(f) : 2 * i * f->s->v->iova;
			b->ranges[i].length = one_in(f, 4) ? size(f) : 2 * f->s->v->iova;
		}
		break;
	case ARG_LOG_READ:
		b->read.argsz = one_in(f, 16) ? number(f) : sizeof(b->read);
		b->read.flags = one_in(f, 16) ? number(f) : 0;
		/* not from below what may be written: its bits are not to be past the bitmap */
		b->read.iova = f->s->v->iova | (one_in(f, 4) ? iova(f) : 0);
		b->read.length = size(f);
		b->read.page_size = one_in(f, 8) ? number(f) : LOG_PAGE;
		b->read.bitmap = one_in(f, 8) ? 0 : (uintptr_t)f->s->arena + below(f, 64) * 8;
		break;
	case ARG_MEM:
		b->mem.nregions = one_in(f, 8) ? number(f) : below(f, 4);
		b->mem.padding = one_in(f, 8);
		for (i = 0; i < 4; i++) {
			b->mem.regions[i].guest_phys_addr = iova(f);
			b->mem.regions[i].memory_size = size(f);
			b->mem.regions[i].userspace_addr = user_address(f);
			b->mem.regions[i].flags_padding = 0;
		}
		break;
	}
}

static int call_ioctl(struct fuzzer *f, int fd)
{
	uint32_t which = below(f, ARRAY_SIZE(ioctls));
	unsigned long cmd = ioctls[which].cmd;
	union arg_buf b;

	make_arg(f, ioctls[which].arg, &b);
	switch (below(f, 64)) {
	case 0: return ioctl(fd, cmd, NULL);
	case 1: return ioctl(fd, cmd, f->s->edge - below(f, 16));
	case 2: return ioctl(fd, cmd, f->s->read_only);
	case 3: return ioctl(fd, _IOC(below(f, 4), VHOST_VIRTIO, below(f, 256), below(f, 64)), &b);
	default: return ioctl(fd, cmd, &b);
	}
}

/*
 * Permissions are those that there are, if any memory may be mapped with them: the kernel warns
 * of others (perm_to_iommu_flags()), as if a VMM could not ask for them.
 */
static int call_iotlb(struct fuzzer *f, int fd)
{
	static const uint8_t types[] = {
		VHOST_IOTLB_UPDATE, VHOST_IOTLB_UPDATE, VHOST_IOTLB_UPDATE, VHOST_IOTLB_UPDATE,
		VHOST_IOTLB_INVALIDATE, VHOST_IOTLB_INVALIDATE, VHOST_IOTLB_BATCH_BEGIN,
		VHOST_IOTLB_BATCH_END, VHOST_IOTLB_BATCH_END, VHOST_IOTLB_MISS,
		VHOST_IOTLB_ACCESS_FAIL,
	};
	struct vhost_msg_v2 msg = {
		.type = one_in(f, 32) ? number(f) : VHOST_IOTLB_MSG_V2,
		.asid = asid(f),
		.iotlb = {
			.iova = iova(f),
			.size = size(f),
			.uaddr = user_address(f),
			.perm = 1 + below(f, 3),
			.type = one_in(f, 32) ? rng(&f->rng) : types[below(f, ARRAY_SIZE(types))],
		},
	};

	if (one_in(f, 32))
		return write(fd, &msg, below(f, sizeof(msg) + 1));
	return write(fd, &msg, sizeof(msg));
}

static int call_mmap(struct fuzzer *f, int fd)
{
	struct doorbell *d = &f->doorbell[below(f, DOORBELLS)];
	int prot = one_in(f, 8) ? (int)below(f, 8) : PROT_WRITE;
	int flags = one_in(f, 8) ? MAP_PRIVATE : MAP_SHARED;
	size_t len = one_in(f, 8) ? (1 + below(f, 4)) * 4096UL : 4096;
	uint32_t n = number(f), what = below(f, 8);
	void *page;

	if (!d->page) {
		page = mmap(NULL, len, prot, flags, fd, n * 4096ULL);
		if (page == MAP_FAILED)
			return -1;
		d->page = page;
		d->writable = prot & PROT_WRITE;
		return 0;
	}
	if (what < 2) {
		munmap(d->page, 4096);
		d->page = NULL;
	} else if (what == 2) {
		if (mprotect(d->page, 4096, prot))
			return -1;
		d->writable = prot & PROT_WRITE;
	} else if (d->writable) {
		*(volatile uint16_t *)d->page = n;
	}
	return 0;
}

/* A buffer that may be anywhere */
static void fill_buffer(struct fuzzer *f, struct vq *q, uint16_t slot)
{
	struct vring_desc *d = &q->desc[slot];

	d->addr = htole64(one_in(f, 4) ? iova(f) : vdpa_iova(f->s->v, vq_buf(q, slot)));
	d->len = htole32(one_in(f, 4) ? number(f) : VQ_BUF_SIZE);
	d->flags = htole16(q->device_writes ? VRING_DESC_F_WRITE : 0);
	d->next = htole16(below(f, RING));
}

/*
 * A command of a class that there is, or of any, with data or without. Another thread may fill the
 * same slot, and the device may read it.
 */
static void fill_command(struct fuzzer *f, struct vq *q, uint16_t slot)
{
	uint8_t data[CTRL_BUF_SIZE / 2], ack;
	uint32_t i;

	ack = *(volatile uint8_t *)ctrl_ack(q, slot);
	f->acks += ack == VIRTIO_NET_OK || ack == VIRTIO_NET_ERR;
	for (i = 0; i < sizeof(data); i++)
		data[i] = one_in(f, 2) ? below(f, 4) : rng(&f->rng);
	ctrl_fill(q, slot, one_in(f, 8) ? rng(&f->rng) : below(f, 8),
		  one_in(f, 8) ? rng(&f->rng) : below(f, 6), data, below(f, sizeof(data) + 1));
}

/* Anything at all, in a descriptor of that chain */
static void spoil_chain(struct fuzzer *f, struct vq *q, uint16_t slot)
{
	struct vring_desc *d = &q->desc[slot * q->segs + below(f, q->segs)];

	switch (below(f, 4)) {
	case 0:
		d->addr = htole64(iova(f));
		break;
	case 1:
		d->len = htole32(number(f));
		break;
	case 2:
		d->flags = rng(&f->rng);
		break;
	default:
		d->next = htole16(number(f));
	}
}

/* What a guest does to its rings, good or bad. Then it kicks the device. */
static int call_ring(struct fuzzer *f)
{
	struct vq *q = &f->s->queues[below(f, QUEUES)];
	uint16_t slot = below(f, q->slots), idx;
	uint64_t one = 1;

	switch (below(f, 8)) {
	case 0:
		((uint8_t *)q->desc)[below(f, 3 * 4096)] = rng(&f->rng);
		break;
	case 1:
		q->avail->idx = htole16(number(f));
		break;
	default:
		if (q->index == CQ)
			fill_command(f, q, slot);
		else
			fill_buffer(f, q, slot);
		if (one_in(f, 8))
			spoil_chain(f, q, slot);
		idx = le16toh(q->avail->idx);
		q->avail->ring[idx % RING] = htole16(one_in(f, 16) ? number(f) : slot * q->segs);
		__atomic_store_n(&q->avail->idx, htole16(idx + 1), __ATOMIC_RELEASE);
	}
	return write(q->kick, &one, sizeof(one));
}

/*
 * The next thing that a VMM does to start the device and to move it, so that what comes in
 * between finds it in every state.
 */
static int call_step(struct fuzzer *f, int fd)
{
	struct shared *s = f->s;
	struct vdpa *v = s->v;
	struct vdpa mine = { .fd = fd, .mem = v->mem, .iova = v->iova, .mem_size = ARENA,
			     .offered = v->offered };
	uint64_t backend = v->backend, wanted = features(f);
	struct vhost_vring_state group = { .index = 1, .num = one_in(f, 2) };
	struct vq q[QUEUES];
	uint32_t i, step;
	uint8_t st;

	memcpy(q, s->queues, sizeof(q));
	for (i = 0; i < QUEUES; i++)
		q[i].v = &mine;
	step = __atomic_fetch_add(&s->step, 1, __ATOMIC_RELAXED) % 24;
	switch (step) {
	case 0:
		st = 0;
		return vdpa_ioctl(&mine, VHOST_VDPA_SET_STATUS, &st);
	case 1: return vdpa_ioctl(&mine, VHOST_SET_OWNER, NULL);
	case 2: return vdpa_ioctl(&mine, VHOST_SET_BACKEND_FEATURES, &backend);
	case 3: return vdpa_iotlb(&mine, VHOST_IOTLB_BATCH_END, 0, 0, NULL, 0);
	case 4: return vdpa_iotlb(&mine, VHOST_IOTLB_INVALIDATE, mine.iova, ARENA, NULL, 0);
	case 5:
		return vdpa_iotlb(&mine, VHOST_IOTLB_UPDATE, mine.iova, ARENA, s->arena,
				  VHOST_ACCESS_RW);
	case 6:
		return vdpa_iotlb_asid(&mine, 1, VHOST_IOTLB_UPDATE, mine.iova, ARENA, s->arena,
				       VHOST_ACCESS_RW);
	case 7: return vdpa_ioctl(&mine, VHOST_VDPA_SET_GROUP_ASID, &group);
	case 8: return vdpa_set_status(&mine, 1);
	case 9: return vdpa_set_status(&mine, 3);
	case 10: return vdpa_ioctl(&mine, VHOST_SET_FEATURES, &wanted);
	case 11: return vdpa_set_status(&mine, 11);
	case 12: case 13: case 14:
		return vq_setup(&q[step - 12], 0);
	case 15: case 16: case 17:
		return vq_enable(&q[step - 15], true);
	case 18: return vdpa_set_status(&mine, DRV_OK);
	case 19: return log_mem(&mine);
	case 20: return vdpa_ioctl(&mine, VHOST_VDPA_SUSPEND, NULL);
	case 21: return vdpa_get_base(&mine, 0);
	case 22: return log_stop(&mine);
	default: return vdpa_ioctl(&mine, VHOST_VDPA_RESUME, NULL);
	}
}

static int call_close(struct fuzzer *f)
{
	int fd = __atomic_exchange_n(&f->s->fd, -1, __ATOMIC_SEQ_CST);

	return fd >= 0 ? close(fd) : -1;
}

static void unmap_doorbells(struct fuzzer *f)
{
	struct doorbell *d;

	for (d = f->doorbell; d < f->doorbell + DOORBELLS; d++) {
		if (d->page)
			munmap(d->page, 4096);
		d->page = NULL;
	}
}

/*
 * Who comes second is told -EBUSY; there is one file at a time, for all. A doorbell that is
 * mapped keeps the file that it is of.
 */
static int call_open(struct fuzzer *f)
{
	int mode = one_in(f, 8) ? (int)below(f, 3) : O_RDWR, none = -1;
	int fd = open(f->s->v->path, mode | O_CLOEXEC);

	if (fd < 0) {
		if (__atomic_load_n(&f->s->fd, __ATOMIC_SEQ_CST) < 0)
			unmap_doorbells(f);
		return -1;
	}
	if (!__atomic_compare_exchange_n(&f->s->fd, &none, fd, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		close(fd);
	return 0;
}

static void one_call(struct fuzzer *f)
{
	int fd = __atomic_load_n(&f->s->fd, __ATOMIC_SEQ_CST);
	uint32_t what = below(f, 256);
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
	uint8_t byte;
	int ret;

	if (fd < 0 || what < 2)
		ret = call_open(f);
	else if (what < 4)
		ret = call_close(f);
	else if (what < 100)
		ret = call_step(f, fd);
	else if (what < 180)
		ret = call_ioctl(f, fd);
	else if (what < 220)
		ret = call_iotlb(f, fd);
	else if (what < 240)
		ret = call_ring(f);
	else if (what < 252)
		ret = call_mmap(f, fd);
	else if (what < 254)
		ret = read(fd, &byte, 1);
	else
		ret = poll(&p, 1, 0);
	f->good += ret >= 0;
}

static void *fuzz(void *arg)
{
	struct fuzzer *f = arg;
	uint32_t i;

	for (i = 0; i < f->s->calls; i++) {
		f->rng = f->s->seed + ((uint64_t)f->number << 48) + ((uint64_t)i << 16);
		rng(&f->rng);
		one_call(f);
	}
	unmap_doorbells(f);
	return NULL;
}

/* An address space of the tests' own: what the device may write to, amid what it may not */
static int make_arena(struct shared *s)
{
	struct vdpa *v = s->v;

	s->guard = mmap(NULL, 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
	if (s->guard == MAP_FAILED)
		return -errno;
	s->arena = mmap(s->guard + GUARD, ARENA, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_FIXED | MAP_POPULATE, v->memfd, 0);
	s->read_only = mmap(s->guard + GUARD + 2 * ARENA, 4096, PROT_READ,
			    MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	s->edge = s->read_only + 4096;
	return s->arena == MAP_FAILED || s->read_only == MAP_FAILED ? -errno : 0;
}

static uint32_t setting(const char *name, uint32_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

FIXTURE_SETUP(fuzz)
{
	struct vdpa *v = &self->v;

	OPEN_OR_SKIP(v);
	self->pinned = vdpa_pinned_pages();
	ASSERT_LE(0, self->pinned);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
}

FIXTURE_TEARDOWN(fuzz)
{
	LOG_SEED_ON_FAILURE();
	if (self->tx.v)
		vq_free(&self->tx);
	vdpa_close(&self->v);
	EXPECT_EQ(0, vdpa_unpinned(self->pinned)) {
		TH_LOG("pages of a closed device are still pinned");
	}
}

/* For the next owner it is a device like any other */
static int works(struct vdpa *v, struct vq *tx)
{
	int ret;

	ret = vdpa_reopen(v);
	if (!ret)
		ret = tx_start(v, NULL, tx);
	return ret ? ret : tx_send(tx, FRAMES);
}

TEST_F_TIMEOUT(fuzz, any_call_at_any_time, TEST_SECONDS)
{
	uint32_t calls = setting("VDPA_FUZZ_CALLS", CALLS);
	uint32_t threads = setting("VDPA_FUZZ_THREADS", THREADS);
	static struct fuzzer fuzzers[MAX_THREADS];
	struct vdpa *v = &self->v;
	struct shared s = { .v = v, .seed = test_seed(), .fd = v->fd };
	uint64_t good = 0, acks = 0, begin;
	uint32_t i;

	ASSERT_LT(0, threads);
	ASSERT_GE(MAX_THREADS, threads);
	s.calls = (calls + threads - 1) / threads;
	ASSERT_EQ(0, vq_init(&s.queues[0], v, 0, RING, 1, VQ_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(&s.queues[1], v, 1, RING, 1, VQ_BUF_SIZE, false));
	ASSERT_EQ(0, ctrl_init(&s.queues[CQ], v, RING));
	memset(s.queues[CQ].bufs, CTRL_NO_ACK, s.queues[CQ].slots * CTRL_BUF_SIZE);
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, RING, 1, VQ_BUF_SIZE, false));
	ASSERT_GE(ARENA, v->mem_used);
	ASSERT_EQ(0, make_arena(&s));

	begin = deadline(0);
	for (i = 0; i < threads; i++) {
		fuzzers[i].s = &s;
		fuzzers[i].number = i;
		ASSERT_EQ(0, pthread_create(&fuzzers[i].thread, NULL, fuzz, &fuzzers[i]));
	}
	for (i = 0; i < threads; i++) {
		pthread_join(fuzzers[i].thread, NULL);
		good += fuzzers[i].good;
		acks += fuzzers[i].acks;
	}
	TH_LOG("fuzz: %u calls, seed %llu; %u threads, %llu calls succeeded, %llu acks, %llu s",
	       s.calls * threads, (unsigned long long)s.seed, threads, (unsigned long long)good,
	       (unsigned long long)acks, (unsigned long long)(deadline(0) - begin) / 1000);
	if (vdpa_can(v, CAP_CTRL) && calls >= CALLS)
		EXPECT_LT(0, acks);
	/* whoever was last has closed it, or left it */
	v->fd = s.fd;
	ASSERT_EQ(0, works(v, &self->tx));
	for (i = 0; i < QUEUES; i++)
		vq_free(&s.queues[i]);
	munmap(s.guard, 2 * GUARD);
}

TEST_HARNESS_MAIN
