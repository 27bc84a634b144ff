// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log's ioctls, as Documentation/vhost-vdpa-log.rst promises them: what is refused, and
 * leaves a log alone; which bits a read gives, and when; what is a fault; what ends a log. That
 * every write has its bit is vdpa_log_oracle's.
 *
 * The only traffic is frames to nobody: for each the device writes its used ring. So there is no
 * need of anything on the wire.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "log.h"
#include "tx.h"

#define QUIET_MS	30	/* how long a device is watched that is to write nothing */
#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define RING		32
#define RX_BUF_SIZE	64
#define NOWHERE		((void *)LOG_PAGE)	/* where a process has no memory */
#define TIB		BIT_ULL(40)
#define RANGE		struct vhost_vdpa_log_range

/* Nothing is ever received. Each test is a process of its own */
static struct vq rx;

FIXTURE(log) {
	struct vdpa v;
	struct vq tx;
	RANGE all, far;		/* the tests' memory; where nothing is */
	uint64_t rng;
};

FIXTURE_SETUP(log)
{
	struct vdpa *v = &self->v;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_LOG);
	rng_init(&self->rng, test_seed(), _metadata->name);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true));
	/* a ring of several pages where there can be one */
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, v->vq_max, 1, 128, false));
	self->all = (RANGE){ v->iova, v->mem_size };
	self->far = (RANGE){ v->iova + BIT_ULL(30), BIT_ULL(30) };
}

FIXTURE_TEARDOWN(log)
{
	LOG_SEED_ON_FAILURE();
	if (rx.v)
		vq_free(&rx);
	if (self->tx.v)
		vq_free(&self->tx);
	vdpa_close(&self->v);
}

/* Has the used index a bit in @words, which are of all of the tests' memory? */
static bool has_used(struct vq *q, const uint64_t *words)
{
	return log_has(words, log_page(q->v, &q->used->idx));
}

/* Bits of what no frame has the device write; the wire may have it write rx's used flags */
static unsigned int others(struct vq *q, const uint64_t *words)
{
	uint64_t first = log_page(q->v, q->used);
	uint64_t last = log_page(q->v, (uint8_t *)&q->used->ring[q->size] + 1), page;
	unsigned int n = 0;

	for (page = 0; page < LOG_WORDS * 64; page++)
		if (log_has(words, page) && (page < first || page > last) &&
		    page != log_page(q->v, rx.used))
			n++;
	return n;
}

/* Frames have bits, and nothing else has; no fault */
static void expect_logged(struct __test_metadata *_metadata, struct vq *tx)
{
	uint64_t words[LOG_WORDS] = { 0 };

	ASSERT_LE(0, log_read_mem(tx->v, words));
	memset(words, 0, sizeof(words));
	ASSERT_EQ(0, tx_send(tx, 3));
	ASSERT_EQ(0, log_read_mem(tx->v, words));
	EXPECT_TRUE(has_used(tx, words)) {
		TH_LOG("the used index was written, and has no bit");
	}
	EXPECT_EQ(0, others(tx, words)) {
		TH_LOG("%u pages have a bit that were not written", others(tx, words));
	}
}

/* Frames have no bits, and are no fault */
static void expect_not_logged(struct __test_metadata *_metadata, struct vq *tx)
{
	uint64_t words[LOG_WORDS] = { 0 }, none[LOG_WORDS] = { 0 };

	ASSERT_LE(0, log_read_mem(tx->v, words));
	memset(words, 0, sizeof(words));
	ASSERT_EQ(0, tx_send(tx, 3));
	sleep_ms(QUIET_MS);
	EXPECT_EQ(0, log_read_mem(tx->v, words));
	EXPECT_EQ(0, memcmp(words, none, sizeof(words))) {
		TH_LOG("there are bits of what is not logged");
	}
}

/*
 * What was sent has a bit, though it is in no range, or is a fault, which is told once, and why. A
 * device that is done with a frame may still have to write that it wants to be notified.
 */
static void expect_missed(struct __test_metadata *_metadata, struct vq *tx)
{
	uint64_t words[LOG_WORDS] = { 0 };
	int tries = QUIET_MS, flags;

	sleep_ms(QUIET_MS);
	flags = log_read_mem(tx->v, words);
	EXPECT_TRUE(flags == (VHOST_VDPA_LOG_FAULT | VHOST_VDPA_LOG_FAULT_MISSED) ||
		    (!flags && has_used(tx, words))) {
		TH_LOG("neither a bit nor a fault: flags 0x%x", flags);
	}
	while ((flags = log_read_mem(tx->v, words)) > 0 && tries--)
		sleep_ms(1);
	EXPECT_EQ(0, flags);
}

/* Each used entry since @from has a bit */
static void expect_entries(struct __test_metadata *_metadata, struct vq *q, uint16_t from,
			   const uint64_t *words)
{
	for (; from != q->used_idx; from++) {
		ASSERT_TRUE(log_has(words, log_page(q->v, &q->used->ring[from % q->size]))) {
			TH_LOG("used entry %u was written, and has no bit", from);
		}
	}
	EXPECT_TRUE(has_used(q, words));
}

static void post(struct vq *q, unsigned int frames)
{
	int slot;

	while (frames-- && (slot = vq_free_slot(q)) >= 0) {
		memset(vq_buf(q, slot), 0, TX_FRAME_LEN);
		vq_post(q, slot, TX_FRAME_LEN);
	}
	vq_kick(q);
}

/* Without the feature none of them does anything; while there is a log it is kept */
TEST_F_TIMEOUT(log, feature, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t without = v->backend & ~BIT_ULL(VHOST_BACKEND_F_LOG_RANGES);
	uint64_t words[LOG_WORDS] = { 0 };

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &without));
	EXPECT_EQ(-EOPNOTSUPP, log_mem(v));
	EXPECT_EQ(-EOPNOTSUPP, log_read_mem(v, words));
	EXPECT_EQ(-EOPNOTSUPP, log_stop(v));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &v->backend));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, log_mem(v));
	EXPECT_EQ(-EBUSY, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &without));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &v->backend));
	expect_logged(_metadata, &self->tx);
	ASSERT_EQ(0, log_stop(v));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &without));
}

/* Neither who inherited the file is the owner of the memory, nor who has not become it */
TEST_F_TIMEOUT(log, owner, TEST_SECONDS)
{
	uint64_t words[LOG_WORDS] = { 0 };
	struct vdpa *v = &self->v;
	uint64_t features = v->backend;
	int status;
	pid_t pid;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, log_mem(v));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(log_mem(v) != -EPERM || log_read_mem(v, words) != -EPERM ||
		      log_stop(v) != -EPERM);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* that the other one's copy of the file is closed does not end anything */
	expect_logged(_metadata, &self->tx);

	close(v->fd);
	v->fd = open(v->path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, v->fd);
	EXPECT_EQ(-EOPNOTSUPP, log_mem(v));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &features));
	EXPECT_EQ(-EPERM, log_mem(v));
	EXPECT_EQ(-EPERM, log_read_mem(v, words));
	EXPECT_EQ(-EPERM, log_stop(v));
}

/* A second open is refused, and the log goes on */
TEST_F_TIMEOUT(log, two_opens, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, log_mem(v));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(-1, open(v->path, O_RDWR | O_CLOEXEC));
		EXPECT_EQ(EBUSY, errno);
		expect_logged(_metadata, &self->tx);
	}
}

/* What cannot be logged; a log that is on does not notice */
TEST_F_TIMEOUT(log, start_arguments, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	const uint64_t iova = v->iova, last = ~0ULL - LOG_PAGE + 1;
	RANGE many[VHOST_VDPA_LOG_MAX_RANGES + 1];
	const struct {
		int error;
		RANGE r[3];
		const char *what;
	} wrong[] = {
		{ -EINVAL, { { iova, 0 } }, "nothing" },
		{ -EINVAL, { { iova + 1, LOG_PAGE } }, "an odd address" },
		{ -EINVAL, { { iova, LOG_PAGE / 2 } }, "half a page" },
		{ -EOVERFLOW, { { last, 2 * LOG_PAGE } }, "a wrap by a page" },
		{ -EOVERFLOW, { { 2 * LOG_PAGE, last } }, "a wrap to 0" },
		{ -EINVAL, { { iova, LOG_PAGE }, { iova, LOG_PAGE } }, "a range twice" },
		{ -EINVAL, { { iova, 3 * LOG_PAGE }, { iova + 4 * LOG_PAGE, LOG_PAGE },
			     { iova + 2 * LOG_PAGE, LOG_PAGE } }, "two that overlap" },
	};
	const struct vhost_vdpa_log_start good = {
		.argsz = sizeof(good),
		.page_size = LOG_PAGE,
		.nranges = 1,
		.ranges = (uintptr_t)&self->all,
	};
	struct vhost_vdpa_log_start s;
	uint32_t i, as;

#define REFUSED(error, field, value) do {					\
	s = good;								\
	s.field = (value);							\
	EXPECT_EQ(error, vdpa_ioctl(v, VHOST_VDPA_LOG_START, &s)) {		\
		TH_LOG(#field " " #value);					\
	}									\
} while (0)

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &as));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, log_mem(v));
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		EXPECT_EQ(wrong[i].error, log_start(v, wrong[i].r, wrong[i].r[2].length ? 3 :
						    wrong[i].r[1].length ? 2 : 1)) {
			TH_LOG("%s", wrong[i].what);
		}
	}
	for (i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (RANGE){ iova + i * 2 * LOG_PAGE, LOG_PAGE };
	EXPECT_EQ(-E2BIG, log_start(v, many, ARRAY_SIZE(many)));
	if (v->range.last != ~0ULL)
		EXPECT_EQ(-ERANGE, log_start(v, &(RANGE){ iova & ~(TIB - 1),
					     (v->range.last | (LOG_PAGE - 1)) + 1 + LOG_PAGE }, 1));
	REFUSED(-EINVAL, argsz, sizeof(good) - 1);
	REFUSED(-EINVAL, argsz, 0);
	REFUSED(-EINVAL, flags, 1);
	REFUSED(-EINVAL, page_size, 0);
	REFUSED(-EINVAL, page_size, LOG_PAGE / 2);
	REFUSED(-EINVAL, page_size, 3 * LOG_PAGE);
	REFUSED(-EINVAL, page_size, TIB);	/* the range is not a multiple of it */
	REFUSED(-EINVAL, flags, 0x80000000);
	REFUSED(-EINVAL, asid, ~0U);
	REFUSED(-EINVAL, asid, as);
	REFUSED(-EINVAL, nranges, 0);
	REFUSED(-EFAULT, ranges, 0);
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_LOG_START, NULL));
	expect_logged(_metadata, &self->tx);

	/* as many as there may be, in any order; and a structure of the future */
	for (i = 0; i < VHOST_VDPA_LOG_MAX_RANGES; i++)
		many[i] = (RANGE){ iova + ((i * 7 + 3) % VHOST_VDPA_LOG_MAX_RANGES) * 4 * LOG_PAGE,
				   4 * LOG_PAGE };
	ASSERT_EQ(0, log_start(v, many, VHOST_VDPA_LOG_MAX_RANGES));
	expect_logged(_metadata, &self->tx);
	s = good;
	s.argsz = 4096;
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_LOG_START, &s));
}

/* What cannot be read; and of what is refused nothing is lost */
TEST_F_TIMEOUT(log, read_arguments, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t words[LOG_WORDS] = { 0 };
	const struct vhost_vdpa_log_read good = {
		.argsz = sizeof(good),
		.iova = v->iova,
		.length = v->mem_size,
		.page_size = LOG_PAGE,
		.bitmap = (uintptr_t)words,
	};
	struct vhost_vdpa_log_read r;

#define NOT_READ(error, field, value) do {					\
	r = good;								\
	r.field = (value);							\
	EXPECT_EQ(error, vdpa_ioctl(v, VHOST_VDPA_LOG_READ, &r)) {		\
		TH_LOG(#field " " #value);					\
	}									\
} while (0)

	/* there is no log: not one in which nothing is dirty */
	EXPECT_EQ(-ENODATA, log_read_mem(v, words));
	EXPECT_EQ(0, log_stop(v));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, log_mem(v));
	ASSERT_EQ(0, tx_send(&self->tx, 3));
	NOT_READ(-EINVAL, argsz, sizeof(good) - 1);
	NOT_READ(-EINVAL, flags, VHOST_VDPA_LOG_FAULT);
	NOT_READ(-EINVAL, length, 0);
	NOT_READ(-EINVAL, length, LOG_PAGE + 1);
	NOT_READ(-EINVAL, iova, v->iova + 8);
	NOT_READ(-EINVAL, page_size, 0);
	NOT_READ(-EINVAL, page_size, LOG_PAGE / 2);
	NOT_READ(-EINVAL, page_size, 3 * LOG_PAGE);
	NOT_READ(-EINVAL, bitmap, (uintptr_t)words + 4);
	NOT_READ(-EOVERFLOW, iova, ~0ULL - LOG_PAGE + 1);
	NOT_READ(-EFAULT, bitmap, (uintptr_t)NOWHERE);
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_LOG_READ, NULL));
	ASSERT_EQ(0, log_read_mem(v, words));
	EXPECT_TRUE(has_used(&self->tx, words)) {
		TH_LOG("a read that was refused has taken bits");
	}

	EXPECT_EQ(0, log_stop(v));
	EXPECT_EQ(0, log_stop(v));
	EXPECT_EQ(-ENODATA, log_read_mem(v, words));
}

/* Bits are added to those that are there, in what is read and nowhere else, and then forgotten */
TEST_F_TIMEOUT(log, read_adds_and_forgets, TEST_SECONDS)
{
	uint64_t words[LOG_WORDS + 2], page, i;
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int tries = QUIET_MS;
	struct vhost_vdpa_log_read big = {
		.argsz = sizeof(big),
		.iova = v->iova,
		.length = v->mem_size,
		.page_size = v->mem_size,
		.bitmap = (uintptr_t)words,
	};

	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_mem(v));
	ASSERT_EQ(0, tx_send(tx, 3));
	page = log_page(v, &tx->used->idx);
	memset(words, 0, sizeof(words));
	/* the pages beside that one, and then itself; what is beside the bits of a read stays */
	if (page)
		ASSERT_EQ(0, log_read(v, v->iova, page * LOG_PAGE, words + 1));
	EXPECT_FALSE(has_used(tx, words + 1));
	for (i = 0; i < 3; i++)
		words[i] = 0x5555555555555554ULL;
	ASSERT_EQ(0, log_read(v, v->iova + page * LOG_PAGE, LOG_PAGE, words + 1));
	EXPECT_EQ(0x5555555555555554ULL, words[0]);
	EXPECT_EQ(0x5555555555555555ULL, words[1]);
	EXPECT_EQ(0x5555555555555554ULL, words[2]);

	/* a device that is done may still have to write that it wants to be notified */
	do {
		sleep_ms(1);
		memset(words, 0, sizeof(words));
		ASSERT_EQ(0, log_read_mem(v, words + 1));
		for (i = 0; i < ARRAY_SIZE(words) && !words[i]; i++)
			;
	} while (i < ARRAY_SIZE(words) && tries--);
	EXPECT_EQ(ARRAY_SIZE(words), i) {
		TH_LOG("bits that were read are still there");
	}

	/* a bit may stand for more than a page */
	ASSERT_EQ(0, tx_send(tx, 3));
	memset(words, 0, sizeof(words));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_LOG_READ, &big));
	EXPECT_EQ(1, words[0]);
	EXPECT_EQ(0, words[1]);
}

/* Other ranges while frames are under way: each used entry has its bit, whatever the order */
TEST_F_TIMEOUT(log, more_ranges_lose_no_bit, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	const uint64_t far = v->iova + v->mem_size + BIT_ULL(30);
	const RANGE sets[][3] = {
		{ self->all },
		{ self->all, { far, TIB >> 8 } },
		{ { v->iova, v->mem_size / 2 }, { v->iova + v->mem_size / 2, v->mem_size / 2 },
		  { 0, v->iova } },
	};
	int round, i, n, ret;

	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_start(v, sets[0], 1));
	for (round = 0; round < 200; round++) {
		uint64_t words[LOG_WORDS] = { 0 }, end = deadline(TX_MS);
		uint16_t from = tx->used_idx;

		post(tx, 1 + rng_below(&self->rng, tx->size));
		for (i = rng_below(&self->rng, 5); i; i--) {
			n = rng_below(&self->rng, ARRAY_SIZE(sets));
			ASSERT_EQ(0, log_start(v, sets[n], n + 1));
			if (rng_below(&self->rng, 2))
				ASSERT_EQ(0, log_read_mem(v, words));
		}
		while (tx->posted) {
			ret = vq_reap(tx, NULL);
			ASSERT_TRUE(ret >= 0 || ret == -EAGAIN);
			ASSERT_FALSE(expired(end));
		}
		ASSERT_EQ(0, log_read_mem(v, words));
		expect_entries(_metadata, tx, from, words);
		EXPECT_EQ(0, others(tx, words));
	}
}

/* What is in no range has its bit all the same, or is a fault, which is told once, and why */
TEST_F_TIMEOUT(log, holes, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	const uint64_t used = v->iova + log_page(v, tx->used) * LOG_PAGE, near = 256ULL << 20;
	const RANGE sets[][2] = {
		{ { used - near, near }, { used + near, near } },
		{ { 0, LOG_PAGE }, self->far },
	};
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, tx));
	for (i = 0; i < ARRAY_SIZE(sets); i++) {
		ASSERT_EQ(0, log_start(v, sets[i], 2));
		ASSERT_EQ(0, tx_send(tx, 3));
		expect_missed(_metadata, tx);

		/* with the hole closed there is no more fault */
		ASSERT_EQ(0, log_start(v, (RANGE[]){ sets[0][1], { used, near }, sets[0][0] }, 3));
		expect_logged(_metadata, tx);
		ASSERT_EQ(0, log_stop(v));
	}
}

/* A fault is told by the read that comes next, whatever is before it, and by that one alone */
TEST_F_TIMEOUT(log, fault, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	uint64_t words[LOG_WORDS] = { 0 };
	struct vhost_vdpa_log_read *read;

	read = mmap(NULL, LOG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, read);
	*read = (struct vhost_vdpa_log_read) {
		.argsz = sizeof(*read),
		.iova = v->iova,
		.length = v->mem_size,
		.page_size = LOG_PAGE,
		.bitmap = (uintptr_t)words,
	};

	/* the log goes on after it, and so does what it cannot log */
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_start(v, &self->far, 1));
	ASSERT_EQ(0, tx_send(tx, 1));
	expect_missed(_metadata, tx);
	ASSERT_EQ(0, tx_send(tx, 1));
	expect_missed(_metadata, tx);

	/* a read that could not tell of it */
	ASSERT_EQ(0, tx_send(tx, 1));
	sleep_ms(QUIET_MS);
	ASSERT_EQ(0, mprotect(read, LOG_PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, vdpa_ioctl(v, VHOST_VDPA_LOG_READ, read));
	if (!has_used(tx, words))
		expect_missed(_metadata, tx);
	munmap(read, LOG_PAGE);

	/* other ranges, in which there is room for what comes then */
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_mem(v));
	expect_missed(_metadata, tx);
	expect_logged(_metadata, tx);

	/* but not the next log */
	ASSERT_EQ(0, log_stop(v));
	ASSERT_EQ(0, log_start(v, &self->far, 1));
	ASSERT_EQ(0, tx_send(tx, 1));
	ASSERT_EQ(0, log_stop(v));
	sleep_ms(QUIET_MS);
	ASSERT_EQ(0, log_mem(v));
	EXPECT_EQ(0, log_read_mem(v, words));
	expect_logged(_metadata, tx);
}

/* A range of 1 TiB, or as much as there can be, with hardly anything in it, and that mapped late */
TEST_F_TIMEOUT(log, sparse, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	const uint64_t end = v->range.last < TIB ? v->range.last + 1 : TIB;
	const uint64_t size = end & ~(LOG_PAGE * 128 - 1);
	const uint64_t high = size / 2, first = high / LOG_PAGE / 64;
	uint64_t *words, i, n = size / LOG_PAGE / 64, found = 0;

	words = mmap(NULL, n * sizeof(*words), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, words);
	ASSERT_EQ(0, log_start(v, &(RANGE){ 0, size }, 1));
	ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, high, v->mem_size, v->mem, VHOST_ACCESS_RW));
	v->iova = high;
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, tx_send(tx, 3));
	ASSERT_EQ(0, log_read(v, 0, size, words));
	EXPECT_TRUE(has_used(tx, words + first));
	EXPECT_EQ(0, others(tx, words + first));
	for (i = 0; i < n; i++)
		if (i < first || i >= first + LOG_WORDS)
			found += !!words[i];
	EXPECT_EQ(0, found);
	munmap(words, n * sizeof(*words));
}

/*
 * The used entries that were seen before the last read, and that the device cannot have written
 * again since: how many of them has a copy of memory, made after that read, not as they are?
 */
static unsigned int stale_entries(const struct vq *q, const uint8_t *copy)
{
	unsigned int n = 0, stable = q->size - q->posted;
	const struct vring_used_elem *entry;
	uint16_t idx = q->used_idx;

	while (stable--) {
		entry = &q->used->ring[--idx % q->size];
		n += !!memcmp(copy + ((uint8_t *)entry - q->v->mem), entry, sizeof(*entry));
	}
	return n;
}

/* A bit is there when what it stands for has been written, never before: the copy is complete */
TEST_F_TIMEOUT(log, data_before_bits, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	uint64_t end = deadline(TX_MS), page;
	uint8_t *copy = calloc(1, v->mem_size);
	int i, ret;

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_mem(v));
	memcpy(copy, v->mem, v->mem_size);
	for (i = 0; i < 2000 || tx->posted; i++) {
		uint64_t words[LOG_WORDS] = { 0 };

		if (i < 2000)
			post(tx, rng_below(&self->rng, 8));
		while ((ret = vq_reap(tx, NULL)) >= 0)
			;
		ASSERT_EQ(-EAGAIN, ret);
		ASSERT_FALSE(expired(end) && i >= 2000);
		ASSERT_EQ(0, log_read_mem(v, words));
		for (page = 0; page < v->mem_size / LOG_PAGE; page++)
			if (log_has(words, page))
				memcpy(copy + page * LOG_PAGE, v->mem + page * LOG_PAGE, LOG_PAGE);
		ASSERT_EQ(0, stale_entries(tx, copy)) {
			TH_LOG("read %d: a bit came before what it stands for was written", i);
		}
	}
	free(copy);
}

/* When a suspend returns, the next read has all there is; what starts and ends then does so */
TEST_F_TIMEOUT(log, suspend, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int i;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_mem(v));
	for (i = 0; i < 10; i++) {
		uint64_t words[LOG_WORDS] = { 0 }, none[LOG_WORDS] = { 0 };
		uint16_t from = tx->used_idx;

		post(tx, tx->size);
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_EQ(0, log_read_mem(v, words));
		while (vq_reap(tx, NULL) >= 0)
			;
		if (from != tx->used_idx)
			expect_entries(_metadata, tx, from, words);
		sleep_ms(QUIET_MS);
		memset(words, 0, sizeof(words));
		ASSERT_EQ(0, log_read_mem(v, words));
		EXPECT_EQ(0, memcmp(words, none, sizeof(words))) {
			TH_LOG("a bit came after the suspend and the read behind it");
		}
		if (i % 2) {
			ASSERT_EQ(0, log_stop(v));
			ASSERT_EQ(0, log_mem(v));
		}
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
		ASSERT_EQ(0, tx_send(tx, 0));
		expect_logged(_metadata, tx);
	}

	/* with a fault it suspends all the same, and the fault can be read then */
	ASSERT_EQ(0, log_stop(v));
	ASSERT_EQ(0, log_start(v, &self->far, 1));
	ASSERT_EQ(0, tx_send(tx, 3));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	expect_missed(_metadata, tx);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, tx_send(tx, 3));
}

/* What was unmapped has its bits in the next read, and is logged again where it is mapped again */
TEST_F_TIMEOUT(log, unmapped, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int i;

	ASSERT_EQ(0, log_mem(v));
	for (i = 0; i < 20; i++) {
		uint64_t words[LOG_WORDS] = { 0 };
		uint16_t from;

		ASSERT_EQ(0, tx_start(v, &rx, tx));
		from = tx->used_idx;
		ASSERT_EQ(0, tx_send(tx, 1 + rng_below(&self->rng, tx->size)));
		if (vdpa_can(v, CAP_SUSPEND))
			ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, v->iova, v->mem_size, NULL, 0));
		ASSERT_LE(0, log_read_mem(v, words));
		expect_entries(_metadata, tx, from, words);
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem,
					VHOST_ACCESS_RW));
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, log_mem(v));
	}
}

/* The same while frames are under way: what the device had written by then has a bit */
TEST_F_TIMEOUT(log, unmapped_under_way, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	unsigned int seen = 0;
	uint64_t end;
	int i;

	for (i = 0; i < 20; i++) {
		uint64_t words[LOG_WORDS] = { 0 };
		uint16_t from;

		ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, tx_start(v, &rx, tx));
		from = tx->used_idx;
		post(tx, tx->size);
		/* until the device is at it */
		for (end = deadline(TX_MS); vq_device_used(tx) == from && !expired(end);)
			;
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, v->iova, v->mem_size, NULL, 0));
		ASSERT_LE(0, log_read_mem(v, words));
		while (vq_reap(tx, NULL) >= 0)
			;
		if (from != tx->used_idx) {
			expect_entries(_metadata, tx, from, words);
			seen++;
		}
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem,
					VHOST_ACCESS_RW));
	}
	EXPECT_LT(0, seen);
}

static int iotlb_batch(struct vdpa *v, uint8_t type)
{
	return vdpa_iotlb(v, type, 0, 0, NULL, 0);
}

/* While a batch is open the log begins, goes on, and ends as ever */
TEST_F_TIMEOUT(log, in_a_batch, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	const RANGE both[] = { self->all, { v->iova + 2 * v->mem_size, getpagesize() } };
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	for (i = 0; i < 4; i++) {
		if (i % 2)
			ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, iotlb_batch(v, VHOST_IOTLB_BATCH_BEGIN));
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, both[1].iova, both[1].length, v->mem,
					VHOST_ACCESS_RW));
		ASSERT_EQ(0, log_start(v, both, 2));
		expect_logged(_metadata, &self->tx);
		if (i >= 2)
			ASSERT_EQ(0, log_stop(v));
		ASSERT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, both[1].iova, both[1].length,
					NULL, 0));
		ASSERT_EQ(0, iotlb_batch(v, VHOST_IOTLB_BATCH_END));
		ASSERT_EQ(0, log_mem(v));
		expect_logged(_metadata, &self->tx);
		ASSERT_EQ(0, log_stop(v));
	}
}

struct reader {
	struct vdpa *v;
	uint64_t words[LOG_WORDS];
	uint32_t reads;
	bool stop;
	int error;
};

/* Starts and reads again and again, whatever is mapped */
static void *keep_reading(void *arg)
{
	struct reader *r = arg;
	int ret;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		ret = log_mem(r->v);
		if (!ret)
			ret = log_read_mem(r->v, r->words);
		if (ret)
			r->error = ret;
		r->reads++;
	}
	return NULL;
}

/* Memory beside it comes and goes while frames are under way, and each has its bit */
TEST_F_TIMEOUT(log, others_are_unmapped, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	struct reader r = { .v = v };
	const uint64_t beside = v->iova + v->mem_size, page = getpagesize();
	pthread_t thread;
	int i;

	ASSERT_EQ(0, tx_start(v, &rx, tx));
	ASSERT_EQ(0, log_mem(v));
	for (i = 0; i < 10; i++) {
		uint16_t from = tx->used_idx;
		int n;

		r.stop = false;
		memset(r.words, 0, sizeof(r.words));
		ASSERT_EQ(0, pthread_create(&thread, NULL, keep_reading, &r));
		for (n = 0; n < 10; n++) {
			EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, beside, page, v->mem,
						VHOST_ACCESS_RW));
			EXPECT_EQ(0, tx_send(tx, rng_below(&self->rng, 4)));
			EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, beside, page, NULL, 0));
			EXPECT_EQ(0, tx_send(tx, 1 + rng_below(&self->rng, 4)));
		}
		__atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, log_read_mem(v, r.words));
		expect_entries(_metadata, tx, from, r.words);
		EXPECT_EQ(0, others(tx, r.words));
	}
	EXPECT_EQ(0, r.error);
	EXPECT_NE(0, r.reads);
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
			ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
		if (step == 1)
			ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, vq_setup(&rx, 0));
		ASSERT_EQ(0, vq_setup(tx, 0));
		if (step == 2)
			ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, vq_enable(&rx, true));
		ASSERT_EQ(0, vq_enable(tx, true));
		if (step == 3)
			ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
		if (step == 4)
			ASSERT_EQ(0, log_mem(v));
		expect_logged(_metadata, tx);
		ASSERT_EQ(0, log_stop(v));
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/*
 * A reset ends it, and a close, with a fault that nobody has asked for, and suspended. Nothing of
 * it is there in the next one, nor of the last VMM.
 */
TEST_F_TIMEOUT(log, reset_and_close, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int i;

	for (i = 0; i < 6; i++) {
		uint64_t words[LOG_WORDS] = { 0 };

		ASSERT_EQ(0, tx_start(v, &rx, tx));
		ASSERT_EQ(0, log_start(v, i / 2 == 1 ? &self->far : &self->all, 1));
		ASSERT_EQ(0, tx_send(tx, 3));
		if (i / 2 == 2 && vdpa_can(v, CAP_SUSPEND))
			ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		ASSERT_EQ(0, i % 2 ? vdpa_reopen(v) : vdpa_reset(v));
		EXPECT_EQ(-ENODATA, log_read_mem(v, words));
		EXPECT_EQ(0, log_stop(v));
		ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, log_read_mem(v, words));
		EXPECT_FALSE(has_used(tx, words));
		ASSERT_EQ(0, tx_start(v, &rx, tx));
		expect_logged(_metadata, tx);
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/* So does the end of the process, killed in the middle of it */
TEST_F_TIMEOUT(log, killed_in_use, TEST_SECONDS)
{
	uint64_t words[LOG_WORDS] = { 0 };
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	int status;
	pid_t pid;

	vdpa_close(v);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (vdpa_open(v) || vdpa_mem_init(v, VDPA_IOVA) ||
		    vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true) ||
		    vq_init(tx, v, 1, RING, 1, 128, false) || log_mem(v) ||
		    tx_start(v, &rx, tx) || tx_send(tx, 3) || log_read_mem(v, words) ||
		    !has_used(tx, words))
			_exit(1);
		post(tx, tx->size);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status)) {
		TH_LOG("exit status %d", WEXITSTATUS(status));
	}

	vq_free(&rx);
	vq_free(tx);
	ASSERT_EQ(0, vdpa_open(v));
	EXPECT_EQ(0, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	EXPECT_EQ(-ENODATA, log_read_mem(v, words));
	ASSERT_EQ(0, vq_init(&rx, v, 0, RING, 1, RX_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(tx, v, 1, RING, 1, 128, false));
	ASSERT_EQ(0, log_mem(v));
	ASSERT_EQ(0, log_read_mem(v, words));
	EXPECT_FALSE(has_used(tx, words));
	ASSERT_EQ(0, tx_start(v, &rx, tx));
	expect_logged(_metadata, tx);
}

static int set_group_asid(struct vdpa *v, uint32_t group, uint32_t asid)
{
	struct vhost_vring_state s = { .index = group, .num = asid };

	return vdpa_ioctl(v, VHOST_VDPA_SET_GROUP_ASID, &s);
}

/* While it is on no group is moved away from what is logged */
TEST_F_TIMEOUT(log, group_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	ASSERT_EQ(0, log_mem(v));
	EXPECT_GT(0, set_group_asid(v, 1 << 20, 0));
	EXPECT_GT(0, set_group_asid(v, 0, 1 << 20));
	EXPECT_EQ(-EBUSY, set_group_asid(v, 0, 0));
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	expect_logged(_metadata, &self->tx);
}

/* An address space that the device does not write to cannot be logged, or has no bits */
TEST_F_TIMEOUT(log, other_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int ret;

	NEED(v, CAP_ASID);
	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ret = log_start_asid(v, 1, &self->all, 1);
	EXPECT_TRUE(!ret || (ret == -EINVAL && !vdpa_can(v, CAP_LOG_ASID)));
	if (!ret) {
		expect_not_logged(_metadata, &self->tx);
		/* nor is it a fault if they were in no range */
		ASSERT_EQ(0, log_start_asid(v, 1, &self->far, 1));
		expect_not_logged(_metadata, &self->tx);
		EXPECT_EQ(-EBUSY, log_mem(v));
		ASSERT_EQ(0, log_stop(v));
	}
	ASSERT_EQ(0, log_mem(v));
	expect_logged(_metadata, &self->tx);
	EXPECT_GT(0, log_start_asid(v, 1, &self->all, 1));
	expect_logged(_metadata, &self->tx);
}

/* Where a group has been moved to, its writes are logged; the queues are in group 0 */
TEST_F_TIMEOUT(log, group_in_another_asid, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint32_t asid;

	NEED(v, CAP_LOG_ASID);
	ASSERT_EQ(0, vdpa_iotlb_asid(v, 1, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem,
				     VHOST_ACCESS_RW));
	/* to where it is, elsewhere, and back */
	for (asid = 0; asid < 3; asid++) {
		ASSERT_EQ(0, set_group_asid(v, 0, asid % 2));
		ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
		ASSERT_EQ(0, log_start_asid(v, asid % 2, &self->all, 1));
		expect_logged(_metadata, &self->tx);
		ASSERT_EQ(0, log_stop(v));
		ASSERT_EQ(0, log_start_asid(v, !(asid % 2), &self->all, 1));
		expect_not_logged(_metadata, &self->tx);
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/*
 * A guest that makes a ring of where nothing can be mapped reaches the bits of its own log at most.
 * With one of 4 KiB for each page, as a device that writes an array of them has it, those of the
 * tests' memory are where the used ring is.
 */
TEST_F_TIMEOUT(log, ring_out_of_reach, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq *tx = &self->tx;
	uint64_t words[LOG_WORDS] = { 0 };
	uint64_t end = v->range.last == ~0ULL ? BIT_ULL(46) : v->range.last + 1;
	struct vhost_vring_addr addr = {
		.index = tx->index,
		.desc_user_addr = vdpa_iova(v, tx->desc),
		.avail_user_addr = vdpa_iova(v, tx->avail),
		.used_user_addr = end + v->iova / LOG_PAGE / 8,
	};
	int i;

	for (i = 0; i < 2; i++) {
		vq_set_start(tx, 0);
		ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
		ASSERT_EQ(0, vq_setup(tx, 0));
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &addr));
		ASSERT_EQ(0, vq_enable(tx, true));
		ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
		post(tx, tx->size);
		sleep_ms(QUIET_MS);
		EXPECT_LE(0, log_read_mem(v, words));

		/* and the next one has none of that */
		ASSERT_EQ(0, vdpa_reset(v));
		ASSERT_EQ(0, log_mem(v));
		ASSERT_EQ(0, tx_start(v, &rx, tx));
		expect_logged(_metadata, tx);
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

#define CGROUP		"/tmp/vdpa-log"
#define SPREAD		600	/* mappings, each of which needs other memory for its bits */
#define APART		(128ULL << 20)

/*
 * To be charged in a group of its own, which may use @limit bytes. A limit that is written to a
 * group which uses more already has its processes killed: it is written before there is one. A
 * process that opens a file when the group has nothing left is killed, too: the file that
 * unlimit_memory() writes to is opened before, and returned.
 */
static int limit_memory(const char *limit)
{
	int out, ret;

	mkdir(CGROUP, 0700);
	if (access(CGROUP "/cgroup.procs", F_OK) && mount("none", CGROUP, "cgroup2", 0, NULL))
		return -errno;
	vdpa_write_file(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP "/vdpa-log", 0700);
	out = open(CGROUP "/cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (out < 0)
		return -errno;
	ret = vdpa_write_file(CGROUP "/vdpa-log/memory.max", limit) ?:
	      vdpa_write_file(CGROUP "/vdpa-log/cgroup.procs", "0");
	if (ret) {
		close(out);
		return ret;
	}
	return out;
}

static int unlimit_memory(int out)
{
	int ret = write(out, "0", 1) == 1 ? 0 : -errno;

	close(out);
	/* what it is still charged with goes on without its folder */
	return ret ?: rmdir(CGROUP "/vdpa-log") ? -errno : 0;
}

static void unmount_groups(void)
{
	rmdir(CGROUP "/vdpa-log");
	umount(CGROUP);
	rmdir(CGROUP);
}

static int map_spread(struct vdpa *v, uint64_t iova)
{
	int i, ret = 0;

	for (i = 0; i < SPREAD && !ret; i++)
		ret = vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova + i * APART, LOG_PAGE, v->mem,
				 VHOST_ACCESS_RW);
	return ret;
}

/* A start that lacks memory for bits is an error, and leaves the log as it was, on or off */
TEST_F_TIMEOUT(log, memory_limit, TEST_SECONDS)
{
	const RANGE some = { 0, BIT_ULL(38) };
	uint64_t words[LOG_WORDS] = { 0 };
	struct vdpa *v = &self->v;
	int on, out, ret;

	ASSERT_EQ(0, tx_start(v, &rx, &self->tx));
	ASSERT_EQ(0, map_spread(v, BIT_ULL(36)));
	for (on = 0; on < 2; on++) {
		if (on)
			ASSERT_EQ(0, log_mem(v));
		out = limit_memory("1M");
		if (out < 0) {
			unmount_groups();
			SKIP(return, "the kernel lacks: a memory cgroup to limit");
		}
		ret = log_start(v, &some, 1);
		ASSERT_EQ(0, unlimit_memory(out));
		/* a parent may need it when the device writes, and not before */
		EXPECT_TRUE(!ret || ret == -ENOMEM) {
			TH_LOG("the start fails with %d", ret);
		}
		TH_LOG("limit: %s", ret ? "the start has failed" : "the start has succeeded");
		if (!ret || on)
			expect_logged(_metadata, &self->tx);
		else
			EXPECT_EQ(-ENODATA, log_read_mem(v, words));
		ASSERT_EQ(0, log_stop(v));
	}
	ASSERT_EQ(0, log_start(v, &some, 1));
	expect_logged(_metadata, &self->tx);
	unmount_groups();
}

TEST_HARNESS_MAIN
