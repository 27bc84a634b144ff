// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log's two ioctls, as Documentation/vhost-vdpa-log.rst promises them:
 * what is refused, and leaves a log alone; what ends a log, and says so; what
 * can be done at any time. That every write has its bit is vdpa_log_oracle's.
 *
 * The only traffic is frames to nobody: for each the device writes its used
 * ring. So there is no need of anything on the wire.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "log.h"
#include "tx.h"

#define QUIET_MS	30	/* how long a log that is off is watched */
#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define RING		32
#define RX_BUF_SIZE	64
#define NO_PAGE		~0ULL
#define LAST_PAGE	(~0ULL - getpagesize() + 1)	/* of all addresses */

/* Nothing is ever received. Each test is a process of its own */
static struct vq rx;

FIXTURE(log) {
	struct vdpa v;
	struct vq tx;
	struct bitmap a, b;
	uint64_t page;		/* of this machine */
	uint64_t rng;
};

FIXTURE_SETUP(log)
{
	struct vdpa *v = &self->v;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_LOG);
	self->page = getpagesize();
	rng_init(&self->rng, test_seed(), _metadata->name);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, RING, 1, VQ_BUF_SIZE, false));
	/* with a gap between them that is as large as one */
	ASSERT_EQ(0, bitmap_init(&self->a, v, LOG_IOVA));
	ASSERT_EQ(0, bitmap_init(&self->b, v, LOG_IOVA + 2 * self->a.size));
	ASSERT_EQ(0, bitmap_map(&self->a));
	ASSERT_EQ(0, bitmap_map(&self->b));
}

FIXTURE_TEARDOWN(log)
{
	LOG_SEED_ON_FAILURE();
	if (rx.v)
		vq_free(&rx);
	if (self->tx.v)
		vq_free(&self->tx);
	vdpa_close(&self->v);
	bitmap_free(&self->a);
	bitmap_free(&self->b);
}

/* Maps @b page by page, but for the page @odd, which is mapped with @perm, or not at all */
static int map_pages(struct bitmap *b, uint64_t odd, uint8_t perm)
{
	uint64_t page = getpagesize(), i;
	int ret = 0;

	for (i = 0; i < b->size / page && !ret; i++)
		if (i != odd || perm)
			ret = vdpa_iotlb(b->v, VHOST_IOTLB_UPDATE, b->iova + i * page, page,
					 (uint8_t *)b->words + i * page,
					 i == odd ? perm : VHOST_ACCESS_RW);
	return ret;
}

struct seen {
	struct vdpa *v;
	size_t used, others;	/* bits of the ring's used part; of anything else */
	struct vq *tx;
};

/* Whatever is on the wire: it may have the device write the receive queue's used flags */
static bool is_rx(uint64_t page)
{
	return page == vdpa_iova(rx.v, rx.used) / LOG_PAGE;
}

static void see(void *arg, uint64_t page)
{
	struct seen *s = arg;
	uint64_t first = vdpa_iova(s->v, s->tx->used) / LOG_PAGE;
	uint64_t last = (vdpa_iova(s->v, &s->tx->used->ring[s->tx->size]) + 1) / LOG_PAGE;

	if (page >= first && page <= last)
		s->used++;
	else if (!is_rx(page))
		s->others++;
}

/* Takes all bits of @b, and tells whether they are those of frames sent, and no others */
static struct seen take(struct bitmap *b, struct vq *tx)
{
	struct seen s = { .v = b->v, .tx = tx };

	bitmap_take(b, see, &s);
	return s;
}

/* The log is in @b: frames have bits, once it is told to log there again, and no fault */
static void expect_logged(struct __test_metadata *_metadata, struct bitmap *b, struct vq *tx)
{
	struct seen s;

	take(b, tx);
	ASSERT_EQ(0, tx_send(tx, 3));
	ASSERT_EQ(0, bitmap_log(b));
	s = take(b, tx);
	EXPECT_NE(0, s.used) {
		TH_LOG("the used ring was written, and has no bit");
	}
	EXPECT_EQ(0, s.others) {
		TH_LOG("%zu pages have a bit that were not written", s.others);
	}
	EXPECT_EQ(0, log_status(b->v));
}

/* Nothing is logged in @b, frames or not */
static void expect_not_logged(struct __test_metadata *_metadata, struct bitmap *b, struct vq *tx)
{
	bitmap_take(b, NULL, NULL);
	ASSERT_EQ(0, tx_send(tx, 3));
	sleep_ms(QUIET_MS);
	EXPECT_EQ(0, bitmap_take(b, NULL, NULL)) {
		TH_LOG("a bitmap is written that is not in use");
	}
}

/* The fault is there, and reading it has cleared it */
/*
 * A device that has started, or is done with a packet, may still have to write that it wants to be
 * notified: what is read is gone, but there may be one more.
 */
static void expect_no_fault(struct __test_metadata *_metadata, struct vdpa *v)
{
	int tries = QUIET_MS, status;

	while ((status = log_status(v)) > 0 && tries--)
		sleep_ms(1);
	EXPECT_EQ(0, status);
}

static void expect_fault(struct __test_metadata *_metadata, struct vdpa *v)
{
	EXPECT_EQ(VHOST_VDPA_LOG_F_FAULT, log_status(v));
	expect_no_fault(_metadata, v);
}

/* Without the feature neither ioctl does anything; nor is it remembered */
TEST_F_TIMEOUT(log, feature_not_acked, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t without = v->backend & ~BIT_ULL(VHOST_BACKEND_F_DIRTY_LOG);

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &without));
	EXPECT_EQ(-EOPNOTSUPP, bitmap_log(&self->a));
	EXPECT_EQ(-EOPNOTSUPP, log_set(v, 0, 0));
	EXPECT_EQ(-EOPNOTSUPP, log_status(v));
	expect_not_logged(_metadata, &self->a, &self->tx);

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &v->backend));
	expect_not_logged(_metadata, &self->a, &self->tx);
	ASSERT_EQ(0, bitmap_log(&self->a));
	expect_logged(_metadata, &self->a, &self->tx);
}

/* The owner alone decides: neither who has not become it nor who inherited the file does */
TEST_F_TIMEOUT(log, owner, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t features = v->backend;
	pid_t pid;
	int status;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(&self->a));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(bitmap_log(&self->b) != -EPERM || log_set(v, 0, 0) != -EPERM);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* that the other one's copy of the file is closed does not end anything */
	expect_logged(_metadata, &self->a, &self->tx);

	close(v->fd);
	v->fd = open(v->path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, v->fd);
	EXPECT_EQ(-EOPNOTSUPP, bitmap_log(&self->a));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &features));
	EXPECT_EQ(-EPERM, bitmap_log(&self->a));
	EXPECT_EQ(-EPERM, log_set(v, 0, 0));
}

/* A second open is refused, and the log goes on */
TEST_F_TIMEOUT(log, two_opens, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(&self->a));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(-1, open(v->path, O_RDWR | O_CLOEXEC));
		EXPECT_EQ(EBUSY, errno);
		expect_logged(_metadata, &self->a, &self->tx);
	}
}

/* Arguments that are wrong whatever is mapped; a log that is on does not notice */
TEST_F_TIMEOUT(log, arguments, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	const uint64_t page = self->page, iova = self->b.iova, size = self->b.size;
	const struct {
		struct vhost_vdpa_log log;
		const char *what;
	} wrong[] = {
		{ { iova, size, 0, 1 }, "a flag" },
		{ { iova, size, 0, 0x80000000 }, "the last flag" },
		{ { 0, 0, 0, 1 }, "a flag on a stop" },
		{ { iova + 1, size }, "an odd address" },
		{ { iova + page / 2, size }, "an address in mid-page" },
		{ { iova, size - 1 }, "an odd size" },
		{ { iova, 1 }, "a size of 1" },
		{ { iova, page / 2 }, "half a page" },
		{ { iova, ~0ULL }, "the largest size" },
		{ { LAST_PAGE, 2 * page }, "a wrap by a page" },
		{ { iova, LAST_PAGE }, "a wrap by almost all" },
		{ { 2 * page, LAST_PAGE }, "a wrap to 0" },
		{ { LAST_PAGE, LAST_PAGE }, "a wrap by two large numbers" },
		{ { iova, size, ~0U }, "no address space" },
		{ { iova, size, 1 << 20 }, "an address space beyond the last" },
	};
	uint32_t as;
	size_t i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(&self->a));
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct vhost_vdpa_log log = wrong[i].log;

		EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_VDPA_SET_LOG, &log)) {
			TH_LOG("%s", wrong[i].what);
		}
	}
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &as));
	EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_VDPA_SET_LOG,
				      &((struct vhost_vdpa_log){ iova, size, as })));
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_SET_LOG, NULL));
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_GET_LOG_STATUS, NULL));
	expect_logged(_metadata, &self->a, &self->tx);

	/* a stop does not look at the rest */
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_LOG, &((struct vhost_vdpa_log){ 1, 0, ~0U })));
	expect_not_logged(_metadata, &self->a, &self->tx);
	EXPECT_EQ(0, log_status(v));
}

/* That there is nothing to stop is no error, and no fault */
TEST_F_TIMEOUT(log, stop_when_off, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int i;

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, log_set(v, 0, 0));
		EXPECT_EQ(0, log_set(v, 0, 0));
		EXPECT_EQ(0, log_status(v));
		if (!i)
			ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	}
	ASSERT_EQ(0, bitmap_log(&self->a));
	expect_logged(_metadata, &self->a, &self->tx);
	EXPECT_EQ(0, log_set(v, 0, 0));
	EXPECT_EQ(0, log_set(v, 0, 0));
	EXPECT_EQ(0, log_status(v));
	expect_not_logged(_metadata, &self->a, &self->tx);
}

/* All of the range is mapped, or it is refused; a log that is on does not notice */
TEST_F_TIMEOUT(log, range_not_mapped, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *a = &self->a, *b = &self->b;
	const uint64_t page = self->page;
	uint64_t last;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(a));
	EXPECT_EQ(-EFAULT, log_set(v, 0, page));
	EXPECT_EQ(-EFAULT, log_set(v, LAST_PAGE, page));
	EXPECT_EQ(-EFAULT, log_set(v, b->iova - page, page));
	EXPECT_EQ(-EFAULT, log_set(v, b->iova - page, b->size));
	EXPECT_EQ(-EFAULT, log_set(v, b->iova - page, 2 * page));
	EXPECT_EQ(-EFAULT, log_set(v, b->iova, b->size + page));
	EXPECT_EQ(-EFAULT, log_set(v, b->iova + b->size, page));
	/* from one bitmap to the other, over the gap between them */
	EXPECT_EQ(-EFAULT, log_set(v, a->iova, b->iova + b->size - a->iova));
	/* all addresses up to the last, but for the first page */
	EXPECT_EQ(-EFAULT, log_set(v, page, LAST_PAGE));
	expect_logged(_metadata, a, &self->tx);

	/* and each single page of it */
	ASSERT_EQ(0, bitmap_unmap(b));
	ASSERT_EQ(0, map_pages(b, NO_PAGE, 0));
	for (last = b->iova + b->size; last > b->iova; last -= page) {
		EXPECT_EQ(0, log_set(v, last - page, page));
		EXPECT_EQ(0, bitmap_log(a));
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, last - page, page, NULL, 0));
		EXPECT_EQ(-EFAULT, log_set(v, last - page, page));
		EXPECT_EQ(-EFAULT, log_set(v, b->iova, b->size));
	}
	expect_logged(_metadata, a, &self->tx);
}

/* A run of mappings does, as long as there is no hole in it */
TEST_F_TIMEOUT(log, hole, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *b = &self->b;
	const uint64_t page = self->page, pages = b->size / page;
	uint64_t hole;

	ASSERT_LE(3, pages);
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_unmap(b));
	for (hole = 0; hole < pages; hole++) {
		ASSERT_EQ(0, map_pages(b, hole, 0));
		EXPECT_EQ(-EFAULT, bitmap_log(b)) {
			TH_LOG("a hole at page %llu of %llu", (unsigned long long)hole,
			       (unsigned long long)pages);
		}
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, b->iova + hole * page, page,
					(uint8_t *)b->words + hole * page, VHOST_ACCESS_RW));
		ASSERT_EQ(0, bitmap_log(b));
		expect_logged(_metadata, b, &self->tx);
		ASSERT_EQ(0, log_set(v, 0, 0));
		ASSERT_EQ(0, bitmap_unmap(b));
	}
	EXPECT_EQ(0, log_status(v));
}

/* Memory that the device may only read is no place for a log; one page of it is enough */
TEST_F_TIMEOUT(log, read_only, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *b = &self->b;
	const uint64_t page = self->page, pages = b->size / page;
	uint64_t at;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	for (at = 0; at < pages; at++) {
		ASSERT_EQ(0, bitmap_unmap(b));
		ASSERT_EQ(0, map_pages(b, at, VHOST_ACCESS_RO));
		EXPECT_EQ(-EFAULT, bitmap_log(b)) {
			TH_LOG("page %llu of %llu is read-only", (unsigned long long)at,
			       (unsigned long long)pages);
		}
		EXPECT_EQ(-EFAULT, log_set(v, b->iova + at * page, page));
	}

	/* writable is enough: the device does not read what it has logged */
	ASSERT_EQ(0, bitmap_unmap(b));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, b->iova, b->size, b->words,
				VHOST_ACCESS_WO));
	ASSERT_EQ(0, bitmap_log(b));
	expect_logged(_metadata, b, &self->tx);
}

static int iotlb_batch(struct vdpa *v, uint32_t asid, uint8_t type)
{
	struct vhost_msg_v2 msg = {
		.type = VHOST_IOTLB_MSG_V2,
		.asid = asid,
		.iotlb = { .type = type },
	};

	return write(v->fd, &msg, sizeof(msg)) == sizeof(msg) ? 0 : -errno;
}

/* While a batch is open nothing new can be logged to, and all the rest goes on */
TEST_F_TIMEOUT(log, in_a_batch, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(&self->a));
	ASSERT_EQ(0, bitmap_unmap(&self->b));

	ASSERT_EQ(0, iotlb_batch(v, 0, VHOST_IOTLB_BATCH_BEGIN));
	ASSERT_EQ(0, bitmap_map(&self->b));
	EXPECT_EQ(-EBUSY, bitmap_log(&self->b));
	EXPECT_EQ(-EBUSY, bitmap_log(&self->a));
	EXPECT_EQ(0, log_status(v));
	ASSERT_EQ(0, tx_send(&self->tx, 3));
	ASSERT_EQ(0, log_set(v, 0, 0));
	EXPECT_NE(0, take(&self->a, &self->tx).used);
	EXPECT_EQ(-EBUSY, bitmap_log(&self->b));
	ASSERT_EQ(0, iotlb_batch(v, 0, VHOST_IOTLB_BATCH_END));

	ASSERT_EQ(0, bitmap_log(&self->b));
	expect_logged(_metadata, &self->b, &self->tx);
}

/* The bitmap is in the address space that is named, and only what is mapped there counts */
TEST_F_TIMEOUT(log, other_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *b = &self->b;
	const uint64_t page = self->page;
	struct bitmap c = *b;

	NEED(v, CAP_LOG_ASID);
	c.asid = 1;
	EXPECT_EQ(-EFAULT, bitmap_log(&c));
	ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, c.iova + page, c.size - page,
				     (uint8_t *)c.words + page, VHOST_ACCESS_RW));
	EXPECT_EQ(-EFAULT, bitmap_log(&c));

	/* the first page of it in one, the rest in the other */
	ASSERT_EQ(0, bitmap_unmap(b));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, b->iova, page, b->words, VHOST_ACCESS_RW));
	EXPECT_EQ(-EFAULT, bitmap_log(&c));
	EXPECT_EQ(-EFAULT, bitmap_log(b));
	ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, c.iova, page, c.words,
				     VHOST_ACCESS_RW));
	EXPECT_EQ(0, bitmap_log(&c));
	EXPECT_EQ(-EFAULT, bitmap_log(b));
	EXPECT_EQ(0, log_status(v));

	/* what is unmapped at the same IOVA elsewhere has nothing to do with it */
	ASSERT_EQ(0, bitmap_unmap(b));
	EXPECT_EQ(0, log_status(v));
	ASSERT_EQ(0, bitmap_unmap(&c));
	expect_fault(_metadata, v);
	EXPECT_EQ(-EFAULT, bitmap_log(&c));
}

/* It is of the writes to its address space: those to another are neither logged nor a fault */
TEST_F_TIMEOUT(log, writes_to_another_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap c = self->b;

	NEED(v, CAP_LOG_ASID);
	c.asid = 1;
	ASSERT_EQ(0, bitmap_map(&c));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(&c));
	expect_not_logged(_metadata, &c, &self->tx);
	EXPECT_EQ(0, log_status(v));

	/* nor if there were no room for them */
	c.size = self->page;
	ASSERT_EQ(0, bitmap_log(&c));
	expect_not_logged(_metadata, &c, &self->tx);
	EXPECT_EQ(0, log_status(v));

	/* over from one address space to the other, and back */
	ASSERT_EQ(0, bitmap_log(&self->a));
	expect_logged(_metadata, &self->a, &self->tx);
	ASSERT_EQ(0, bitmap_log(&c));
	expect_not_logged(_metadata, &self->a, &self->tx);
	EXPECT_EQ(0, bitmap_take(&c, NULL, NULL));
	EXPECT_EQ(0, log_status(v));
}

static int set_group_asid(struct vdpa *v, uint32_t group, uint32_t asid)
{
	struct vhost_vring_state s = { .index = group, .num = asid };

	return vdpa_ioctl(v, VHOST_VDPA_SET_GROUP_ASID, &s);
}

/* Another address space for a group ends the log; what is refused does not */
TEST_F_TIMEOUT(log, group_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	ASSERT_EQ(0, bitmap_log(&self->a));
	EXPECT_GT(0, set_group_asid(v, 1 << 20, 0));
	EXPECT_GT(0, set_group_asid(v, 0, 1 << 20));
	if (!vdpa_can(v, CAP_ASID))
		EXPECT_GT(0, set_group_asid(v, 0, 1));
	EXPECT_EQ(0, log_status(v));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	expect_logged(_metadata, &self->a, &self->tx);
}

/*
 * A group that was given another address space writes there, and the log that ended
 * is to be started in the one or the other. The queues are in group 0, as they are
 * with each parent that has more.
 */
TEST_F_TIMEOUT(log, group_in_another_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap c = self->b;
	uint32_t asid;

	NEED(v, CAP_LOG_ASID);
	c.asid = 1;
	ASSERT_EQ(0, bitmap_map(&c));
	ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem,
				     VHOST_ACCESS_RW));
	/* to where it is, elsewhere, and back */
	for (asid = 0; asid < 3; asid++) {
		struct bitmap *in = asid == 1 ? &c : &self->a, *out = asid == 1 ? &self->a : &c;

		/* a log of either ends: who is in it, the parent alone could tell */
		ASSERT_EQ(0, bitmap_log(&self->a));
		ASSERT_EQ(0, set_group_asid(v, 0, asid % 2));
		expect_fault(_metadata, v);
		ASSERT_EQ(0, bitmap_log(&c));
		ASSERT_EQ(0, set_group_asid(v, 0, asid % 2));
		expect_fault(_metadata, v);

		ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		expect_not_logged(_metadata, in, &self->tx);
		ASSERT_EQ(0, bitmap_log(in));
		expect_logged(_metadata, in, &self->tx);
		ASSERT_EQ(0, bitmap_log(out));
		bitmap_take(in, NULL, NULL);
		expect_not_logged(_metadata, out, &self->tx);
		EXPECT_EQ(0, bitmap_take(in, NULL, NULL));
		ASSERT_EQ(0, log_set(v, 0, 0));
		EXPECT_EQ(0, log_status(v));
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/* Whatever is done to mappings that the bitmap is not in, the log goes on */
TEST_F_TIMEOUT(log, others_are_unmapped, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *a = &self->a, *b = &self->b;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_log(a));
	ASSERT_EQ(0, bitmap_unmap(b));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, a->iova + a->size, self->page, NULL,
				0));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, a->iova - self->page, self->page, NULL,
				0));
	ASSERT_EQ(0, bitmap_map(b));
	/* the one that was in use before is a mapping like any other */
	expect_logged(_metadata, a, &self->tx);
	ASSERT_EQ(0, bitmap_log(b));
	ASSERT_EQ(0, bitmap_unmap(a));
	expect_logged(_metadata, b, &self->tx);
	/* refused, as there is a mapping: nothing is unmapped */
	EXPECT_NE(0, bitmap_map(b));
	expect_logged(_metadata, b, &self->tx);
}

/* One page of the bitmap, first, last or between, ends the log; nothing writes there any more */
TEST_F_TIMEOUT(log, unmapped_in_use, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *a = &self->a;
	const uint64_t page = self->page, pages = a->size / page;
	const struct {
		uint64_t from, count;
	} part[] = {
		{ 0, pages }, { 0, 1 }, { pages / 2, 1 }, { pages - 1, 1 }, { pages - 1, 3 },
	};
	size_t i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	/*
	 * Each page is a mapping of its own. In one piece, unmapping any would unmap
	 * the page with the bits, and the device would find out by itself.
	 */
	ASSERT_EQ(0, bitmap_unmap(a));
	ASSERT_EQ(0, map_pages(a, NO_PAGE, 0));
	for (i = 0; i < ARRAY_SIZE(part); i++) {
		ASSERT_EQ(0, bitmap_log(a));
		expect_logged(_metadata, a, &self->tx);
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, a->iova + part[i].from * page,
					part[i].count * page, NULL, 0));
		expect_not_logged(_metadata, a, &self->tx);
		expect_fault(_metadata, v);
		EXPECT_EQ(-EFAULT, bitmap_log(a));
		EXPECT_EQ(0, log_set(v, 0, 0));
		EXPECT_EQ(0, log_status(v));
		ASSERT_EQ(0, bitmap_unmap(a));
		ASSERT_EQ(0, map_pages(a, NO_PAGE, 0));
	}
	ASSERT_EQ(0, bitmap_log(a));
	expect_logged(_metadata, a, &self->tx);
}

/* Other memory where the bitmap was: that is where the bits are, and no longer in the old one */
TEST_F_TIMEOUT(log, remapped, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *a = &self->a, *b = &self->b;
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, bitmap_unmap(b));
	b->iova = a->iova;
	for (i = 0; i < 10; i++) {
		struct bitmap *now = i % 2 ? b : a, *before = i % 2 ? a : b;

		ASSERT_EQ(0, bitmap_log(now));
		expect_logged(_metadata, now, &self->tx);
		EXPECT_EQ(0, bitmap_take(before, NULL, NULL)) {
			TH_LOG("the device writes to memory that is unmapped");
		}
		if (i % 4 < 2)	/* else the log ends by the unmap */
			ASSERT_EQ(0, log_set(v, 0, 0));
		ASSERT_EQ(0, bitmap_unmap(now));
		ASSERT_EQ(0, bitmap_map(before));
		if (i % 4 >= 2)
			expect_fault(_metadata, v);
	}
}

/* Maps @size bytes, with @b at their beginning; returns where their memory is, twice as much */
static uint8_t *map_huge(struct bitmap *b, uint64_t size, int flags)
{
	uint8_t *mem, *huge;

	mem = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return mem;
	huge = (uint8_t *)(((uintptr_t)mem + size - 1) & ~(size - 1));
	/* contiguous if the kernel has it so; in any case most of it is in some runs of pages */
	madvise(huge, size, MADV_HUGEPAGE);
	memset(huge, 0, size);
	b->words = (uint64_t *)huge;
	if (vdpa_iotlb(b->v, VHOST_IOTLB_UPDATE, b->iova, size, huge, VHOST_ACCESS_RW)) {
		munmap(mem, 2 * size);
		return MAP_FAILED;
	}
	return mem;
}

/*
 * Mappings are removed as a whole, contiguous memory being one. So a page that
 * the bitmap is not in may take the bitmap away. Whether it does, the log tells.
 */
TEST_F_TIMEOUT(log, unmapped_with_its_neighbour, TEST_SECONDS)
{
	const uint64_t iova = 2 * LOG_IOVA, size = 2UL << 20, page = self->page;
	struct vdpa *v = &self->v;
	struct bitmap c = { .v = v, .iova = iova, .size = self->a.size };
	uint8_t *mem;
	uint64_t last;
	int fault;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	mem = map_huge(&c, size, MAP_PRIVATE);
	ASSERT_NE(MAP_FAILED, mem);
	if (bitmap_log(&c)) {
		/* a parent on virtual addresses has mapped nothing: it takes no other than this */
		munmap(mem, 2 * size);
		mem = map_huge(&c, size, MAP_SHARED);
		ASSERT_NE(MAP_FAILED, mem);
	}
	ASSERT_EQ(0, bitmap_log(&c));
	for (last = iova + size - page; last >= iova; last -= page) {
		expect_logged(_metadata, &c, &self->tx);
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, last, page, NULL, 0));
		fault = log_status(v);
		if (fault)
			break;
		/* it is all there still: it can be set anew */
		ASSERT_EQ(0, bitmap_log(&c));
	}
	EXPECT_EQ(VHOST_VDPA_LOG_F_FAULT, fault);
	EXPECT_EQ(-EFAULT, bitmap_log(&c));
	expect_not_logged(_metadata, &c, &self->tx);
	EXPECT_EQ(0, log_status(v));
	munmap(mem, 2 * size);
}

struct flip {
	struct bitmap *b;
	bool stop;
	uint32_t logged, refused;
	int error;
};

/* Sets the log again and again, whatever becomes of its mapping */
static void *keep_logging(void *arg)
{
	struct flip *f = arg;
	int ret;

	while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE)) {
		ret = bitmap_log(f->b);
		if (!ret)
			f->logged++;
		else if (ret == -EFAULT)
			f->refused++;
		else
			f->error = ret;
		bitmap_take(f->b, NULL, NULL);
	}
	return NULL;
}

/* The same with mapping, logging and sending at once */
TEST_F_TIMEOUT(log, unmapped_under_load, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct flip f = { .b = &self->a };
	pthread_t thread;
	int i, status;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, pthread_create(&thread, NULL, keep_logging, &f));
	for (i = 0; i < 200; i++) {
		EXPECT_EQ(0, bitmap_unmap(&self->a));
		EXPECT_EQ(0, tx_send(&self->tx, rng_below(&self->rng, 4)));
		EXPECT_EQ(0, bitmap_map(&self->a));
		EXPECT_EQ(0, tx_send(&self->tx, rng_below(&self->rng, 4)));
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, f.error);
	EXPECT_NE(0, f.logged);

	ASSERT_EQ(0, bitmap_log(&self->a));
	status = log_status(v);
	EXPECT_TRUE(status == 0 || status == VHOST_VDPA_LOG_F_FAULT);
	expect_logged(_metadata, &self->a, &self->tx);
}

/* All pages of the used ring that have been written since the last time */
static void expect_used_pages(struct __test_metadata *_metadata, struct vq *q, uint16_t from,
			      const uint8_t *bits)
{
	uint64_t first = vdpa_iova(q->v, q->used) / LOG_PAGE;
	uint16_t i;

	EXPECT_TRUE(bits[0]) {
		TH_LOG("the used index was written, and has no bit");
	}
	for (i = from; i != q->used_idx; i++) {
		uint64_t at = vdpa_iova(q->v, &q->used->ring[i % q->size]);

		ASSERT_TRUE(bits[at / LOG_PAGE - first]) {
			TH_LOG("used entry %u was written, and has no bit", i);
		}
	}
}

struct pages {
	uint64_t first;
	uint8_t bits[16];
	size_t others;
};

static void mark(void *arg, uint64_t page)
{
	struct pages *p = arg;

	if (page - p->first < ARRAY_SIZE(p->bits))
		p->bits[page - p->first] = 1;
	else if (!is_rx(page))
		p->others++;
}

/*
 * Over to the other bitmap while the device is at work: each write has its bit
 * in the one or the other, and the one that was left is complete and still.
 */
TEST_F_TIMEOUT(log, switched_under_load, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct bitmap *map[2] = { &self->a, &self->b };
	struct vq q;
	int round, i, on = 0;

	/* a ring of several pages where there can be one */
	ASSERT_EQ(0, vq_init(&q, v, 1, v->vq_max, 1, 128, false));
	ASSERT_EQ(0, tx_start(v, &rx, &q));
	ASSERT_EQ(0, bitmap_log(map[on]));
	for (round = 0; round < 300; round++) {
		struct pages p = { .first = vdpa_iova(v, q.used) / LOG_PAGE };
		uint16_t from = q.used_idx;
		int slot, n = 1 + rng_below(&self->rng, q.size);
		uint64_t end = deadline(TX_MS);

		for (i = 0; i < n && (slot = vq_free_slot(&q)) >= 0; i++) {
			memset(vq_buf(&q, slot), 0, TX_FRAME_LEN);
			vq_post(&q, slot, TX_FRAME_LEN);
		}
		vq_kick(&q);
		for (i = rng_below(&self->rng, 4); i; i--) {
			on = !on;
			ASSERT_EQ(0, bitmap_log(map[on]));
			bitmap_take(map[!on], mark, &p);
			/* a VMM unmaps it now */
			EXPECT_EQ(0, bitmap_take(map[!on], mark, &p)) {
				TH_LOG("a bitmap is written after the switch to another");
			}
		}
		while (q.posted) {
			int ret = vq_reap(&q, NULL);

			ASSERT_TRUE(ret >= 0 || ret == -EAGAIN);
			ASSERT_FALSE(expired(end));
		}
		on = !on;
		ASSERT_EQ(0, bitmap_log(map[on]));
		bitmap_take(map[!on], mark, &p);
		expect_used_pages(_metadata, &q, from, p.bits);
		EXPECT_EQ(0, p.others);
	}
	EXPECT_EQ(0, log_status(v));
	vq_free(&q);
}

/* A close ends the log; the next one has neither it nor its fault, and its memory is let be */
TEST_F_TIMEOUT(log, closed_in_use, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		ASSERT_EQ(0, bitmap_log(&self->a));
		if (i == 1)	/* with a fault that nobody has asked for */
			ASSERT_EQ(0, log_set(v, LOG_IOVA, self->page));
		ASSERT_EQ(0, tx_send(&self->tx, 3));
		if (i == 2 && vdpa_can(v, CAP_SUSPEND))
			ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_EQ(0, vdpa_reopen(v));
		EXPECT_EQ(0, log_status(v));
		EXPECT_EQ(-EFAULT, bitmap_log(&self->a));
		ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		expect_not_logged(_metadata, &self->a, &self->tx);
		/* not even where the old one was */
		ASSERT_EQ(0, bitmap_map(&self->a));
		expect_not_logged(_metadata, &self->a, &self->tx);
		EXPECT_EQ(0, log_status(v));
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/* So does the end of the process, killed in the middle of it */
TEST_F_TIMEOUT(log, killed_in_use, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	pid_t pid;
	int status;

	vdpa_close(v);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct vq tx;

		if (vdpa_open(v) || vdpa_mem_init(v, VDPA_IOVA) || bitmap_map(&self->a) ||
		    vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true) ||
		    vq_init(&tx, v, 1, RING, 1, VQ_BUF_SIZE, false) ||
		    bitmap_log(&self->a) || tx_start(v, &rx, &tx) || tx_send(&tx, 3) ||
		    bitmap_log(&self->a) || !take(&self->a, &tx).used)
			_exit(1);
		while (vq_free_slot(&tx) >= 0)
			vq_post(&tx, vq_free_slot(&tx), TX_FRAME_LEN);
		vq_kick(&tx);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status)) {
		TH_LOG("exit status %d", WEXITSTATUS(status));
	}

	vq_free(&rx);
	vq_free(&self->tx);
	ASSERT_EQ(0, vdpa_open(v));
	EXPECT_EQ(0, log_status(v));
	EXPECT_EQ(0, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, RING, 1, VQ_BUF_SIZE, false));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	expect_not_logged(_metadata, &self->a, &self->tx);
	ASSERT_EQ(0, bitmap_map(&self->a));
	ASSERT_EQ(0, bitmap_log(&self->a));
	expect_logged(_metadata, &self->a, &self->tx);
}

/* At any time: before there is a driver, at each step of its start, while it runs */
TEST_F_TIMEOUT(log, before_driver_ok, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int step;

	for (step = 0; step < 5; step++) {
		vq_set_start(&rx, 0);
		vq_set_start(tx, 0);
		if (step == 0)
			ASSERT_EQ(0, bitmap_log(&self->a));
		ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
		if (step == 1)
			ASSERT_EQ(0, bitmap_log(&self->a));
		ASSERT_EQ(0, vq_setup(&rx, 0));
		ASSERT_EQ(0, vq_setup(tx, 0));
		if (step == 2)
			ASSERT_EQ(0, bitmap_log(&self->a));
		ASSERT_EQ(0, vq_enable(&rx, true));
		ASSERT_EQ(0, vq_enable(tx, true));
		if (step == 3)
			ASSERT_EQ(0, bitmap_log(&self->a));
		ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
		if (step == 4)
			ASSERT_EQ(0, bitmap_log(&self->a));
		expect_logged(_metadata, &self->a, tx);
		ASSERT_EQ(0, log_set(v, 0, 0));
		expect_not_logged(_metadata, &self->a, tx);
		ASSERT_EQ(0, vdpa_reset(v));
		EXPECT_EQ(0, log_status(v));
	}
}

/* A reset ends a log, and says so; one that is off has nothing to say */
TEST_F_TIMEOUT(log, reset, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	bool persist = v->backend & BIT_ULL(VHOST_BACKEND_F_IOTLB_PERSIST);
	int i;

	for (i = 0; i < 3; i++) {
		if (i)	/* first without a driver */
			ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		ASSERT_EQ(0, bitmap_log(&self->a));
		if (i == 2 && vdpa_can(v, CAP_SUSPEND))
			ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_EQ(0, vdpa_reset(v));
		if (!persist)
			ASSERT_EQ(0, bitmap_map(&self->a));
		ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		expect_not_logged(_metadata, &self->a, &self->tx);
		expect_fault(_metadata, v);
		ASSERT_EQ(0, bitmap_log(&self->a));
		expect_logged(_metadata, &self->a, &self->tx);
		ASSERT_EQ(0, log_set(v, 0, 0));
		ASSERT_EQ(0, vdpa_reset(v));
		EXPECT_EQ(0, log_status(v));
	}
}

/* Suspended or not, it is started, switched, stopped; and nothing about it stops a suspend */
TEST_F_TIMEOUT(log, suspend, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	size_t used;
	int i;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, bitmap_log(&self->a));
	for (i = 0; i < 10; i++) {
		/* with frames under way: when it returns, their bits are there, and all of them */
		while (vq_free_slot(tx) >= 0)
			vq_post(tx, vq_free_slot(tx), TX_FRAME_LEN);
		vq_kick(tx);
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		used = take(&self->a, tx).used;
		EXPECT_TRUE(used || vq_device_used(tx) == tx->used_idx) {
			TH_LOG("used entries were written before the suspend, and have no bit");
		}
		sleep_ms(QUIET_MS);
		EXPECT_EQ(0, bitmap_take(&self->a, NULL, NULL));
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
		ASSERT_EQ(0, tx_send(tx, 0));
		expect_logged(_metadata, &self->a, tx);
	}

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	ASSERT_EQ(0, bitmap_log(&self->b));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	bitmap_take(&self->a, NULL, NULL);
	expect_logged(_metadata, &self->b, tx);
	EXPECT_EQ(0, bitmap_take(&self->a, NULL, NULL));

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	ASSERT_EQ(0, log_set(v, 0, 0));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	expect_not_logged(_metadata, &self->b, tx);

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	ASSERT_EQ(0, bitmap_log(&self->a));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	expect_logged(_metadata, &self->a, tx);

	/* a log that has ended, and one with a fault: it suspends all the same */
	ASSERT_EQ(0, bitmap_unmap(&self->a));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	expect_fault(_metadata, v);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, log_set(v, self->b.iova, self->page));
	ASSERT_EQ(0, tx_send(tx, 3));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	expect_fault(_metadata, v);
	/* and can be unmapped while it is suspended */
	ASSERT_EQ(0, bitmap_unmap(&self->b));
	expect_fault(_metadata, v);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, tx_send(tx, 3));
}

/* A page past the end of the bitmap is a fault, that stays until it is read, and only so long */
TEST_F_TIMEOUT(log, fault, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	const uint64_t page = self->page;

	/* one page of bits ends far below the tests' memory */
	ASSERT_LT(page * 8 * LOG_PAGE, VDPA_IOVA);
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	expect_no_fault(_metadata, v);
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	expect_fault(_metadata, v);
	EXPECT_EQ(0, bitmap_take(&self->a, NULL, NULL));

	/* the log goes on, and so does what it cannot log */
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	expect_fault(_metadata, v);

	/* it outlives a switch to a bitmap that has room, a stop and a start */
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, bitmap_log(&self->b));
	ASSERT_EQ(0, bitmap_log(&self->a));
	ASSERT_EQ(0, log_set(v, 0, 0));
	ASSERT_EQ(0, bitmap_log(&self->b));
	ASSERT_EQ(0, tx_send(tx, 1));
	expect_fault(_metadata, v);
	expect_logged(_metadata, &self->b, tx);

	/* a reset, also when the log was off by then */
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_set(v, 0, 0));
	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, tx_send(tx, 1));
	expect_fault(_metadata, v);

	/* and the feature that is taken back and acked again */
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_set(v, 0, 0));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &(uint64_t){ 0 }));
	EXPECT_EQ(-EOPNOTSUPP, log_status(v));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &v->backend));
	expect_fault(_metadata, v);

	/* a read that went wrong has not taken it */
	ASSERT_EQ(0, log_set(v, LOG_IOVA, page));
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_set(v, 0, 0));
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_GET_LOG_STATUS, NULL));
	expect_fault(_metadata, v);
}

/* A guest that makes the bitmap a ring writes bits, and that is all it does */
TEST_F_TIMEOUT(log, ring_in_the_bitmap, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	uint64_t bytes = (v->iova + v->mem_size) / LOG_PAGE / 8, i;
	uint64_t size = (bytes + self->page) / self->page * self->page, ring;
	uint8_t *bits;

	/* the ring is at the start of the tests' memory, which is now the bitmap */
	ASSERT_LE(size, v->mem_size);
	bits = v->mem + v->iova / LOG_PAGE / 8;
	ASSERT_LT(vq_buf(tx, tx->slots), bits);
	ASSERT_EQ(0, tx_start(v, &rx, tx));

	/* no fault either where the bitmap has no bits for the pages that it is in */
	ring = (vq_buf(tx, 0) - v->mem + self->page - 1) / self->page * self->page;
	ASSERT_LT(ring * 8 * LOG_PAGE, v->iova);
	ASSERT_EQ(0, log_set(v, v->iova, ring));
	ASSERT_EQ(0, tx_send(tx, 100));
	ASSERT_EQ(0, log_set(v, 0, 0));
	EXPECT_EQ(0, log_status(v));

	ASSERT_EQ(0, log_set(v, v->iova, size));
	ASSERT_EQ(0, tx_send(tx, 100));
	ASSERT_EQ(0, log_set(v, 0, 0));
	EXPECT_EQ(0, log_status(v));
	for (i = size / LOG_PAGE; i < v->mem_size / LOG_PAGE; i++)
		EXPECT_FALSE(bits[i / 8] & 1 << i % 8) {
			TH_LOG("page %llu has a bit", (unsigned long long)i);
		}
}

TEST_HARNESS_MAIN
