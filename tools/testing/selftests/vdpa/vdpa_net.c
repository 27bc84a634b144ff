// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtqueues of a vDPA net device, as a VMM that migrates uses them: frames go
 * out and come back, and at any moment the device is stopped, asked where it
 * stands, and goes on there or is started anew from there.
 */
#include <signal.h>
#include <sys/eventfd.h>

#include "kselftest_harness.h"
#include "net.h"
#include "vdpa_nl.h"

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
/* of a link: a machine that gets no time to run, on a busy host, does not see a shorter one */
#define OUTAGE_MS	5000
#define STILL_MS	60	/* how long a stopped device is watched */
#define STATS_MS	2000	/* how long statistics may be late */

/* For calls of net.h, which say what is wrong */
#define ASSERT_NET(n, call) do {							\
	ASSERT_EQ(0, call) {								\
		TH_LOG("%s; sent %u, back %u, lost %u, doubled %u, damaged %u",		\
		       (n)->error ? (n)->error : "an ioctl failed", (n)->sent,		\
		       (n)->got, (n)->lost, (n)->doubled, (n)->damaged);		\
	}										\
} while (0)

/* Suspends, and checks that what the device says is what it has done */
static void suspend(struct __test_metadata *_metadata, struct net *n)
{
	struct vq *queues[] = { &n->rx, &n->tx };
	size_t i;

	ASSERT_EQ(0, vdpa_ioctl(n->v, VHOST_VDPA_SUSPEND, NULL));
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		struct vq *q = queues[i];

		/* nothing is in flight: the one index stands for both */
		ASSERT_EQ(vq_device_used(q), vdpa_get_base(n->v, q->index)) {
			TH_LOG("queue %u", q->index);
		}
		/*
		 * A VMM takes its eventfds away now. An interrupt for what has
		 * been used and not been seen has come, or never will.
		 */
		if (vq_device_used(q) != q->used_idx)
			EXPECT_EQ(0, wait_readable(q->call, 0)) {
				TH_LOG("queue %u: the last interrupt is lost", q->index);
			}
	}
}

/* Checks that nothing the device does can be seen in memory, kicked or not */
static void expect_still(struct __test_metadata *_metadata, struct net *n)
{
	struct vdpa *v = n->v;
	uint8_t *before = malloc(v->mem_used);
	int rx = vdpa_get_base(v, 0), tx = vdpa_get_base(v, 1);

	ASSERT_NE(NULL, before);
	memcpy(before, v->mem, v->mem_used);
	sleep_ms(STILL_MS);
	EXPECT_EQ(0, memcmp(before, v->mem, v->mem_used)) {
		TH_LOG("the device wrote to memory while it was stopped");
	}
	vq_kick(&n->rx);
	vq_kick(&n->tx);
	sleep_ms(STILL_MS);
	EXPECT_EQ(0, memcmp(before, v->mem, v->mem_used)) {
		TH_LOG("the device was stopped, and a kick made it write to memory");
	}
	EXPECT_EQ(rx, vdpa_get_base(v, 0));
	EXPECT_EQ(tx, vdpa_get_base(v, 1));
	free(before);
}

/*
 * Every frame was sent once and came back once, but for those known to be lost.
 * One that came twice, or not whole, was an error when it came.
 */
static void expect_account(struct __test_metadata *_metadata, struct net *n)
{
	EXPECT_EQ(n->sent, n->got + n->lost);
	if (n->wire != WIRE_PEER)
		return;
	ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	EXPECT_EQ(n->sent, n->answer[0] + n->unsent) {
		TH_LOG("frames sent and frames on the wire differ");
	}
	EXPECT_EQ(0, n->answer[1]) {
		TH_LOG("frames were sent twice");
	}
	EXPECT_EQ(0, n->answer[2]) {
		TH_LOG("frames were damaged on their way out");
	}
}

/* Setup of the fixtures below: a running device with something on its wire */
struct shape {
	uint64_t iova;		/* of all memory; 0: VDPA_IOVA */
	uint64_t features;
	uint16_t size;
	uint16_t segs;
	uint32_t rx_buf;
	uint16_t index;		/* where both rings begin */
};

static const struct shape plain = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE };

static void start(struct __test_metadata *_metadata, struct vdpa *v, struct net *n,
		  const struct shape *shape)
{
	uint16_t size = shape->size < v->vq_max ? shape->size : v->vq_max;

	ASSERT_EQ(0, vdpa_mem_init(v, shape->iova ? shape->iova : VDPA_IOVA));
	ASSERT_NET(n, net_init(n, v, _metadata->name, size, shape->segs, shape->rx_buf));
	vq_set_start(&n->rx, shape->index);
	vq_set_start(&n->tx, shape->index);
	ASSERT_NET(n, net_start(n, shape->features, shape->index, shape->index));
	ASSERT_NET(n, net_probe(n));
}

/* Rings of every shape */
FIXTURE(ring) {
	struct vdpa v;
	struct net n;
};

FIXTURE_VARIANT(ring) {
	struct shape shape;
	bool high;		/* memory where the mappable addresses end */
	bool reset;		/* go on by a reset and a start, not by a resume */
	bool reopen;		/* and that by a new owner */
};

FIXTURE_VARIANT_ADD(ring, split) {
	.shape = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE },
};

FIXTURE_VARIANT_ADD(ring, split_small) {
	.shape = { .size = 8, .segs = 1, .rx_buf = VQ_BUF_SIZE },
};

FIXTURE_VARIANT_ADD(ring, chained) {
	.shape = { .size = 256, .segs = 3, .rx_buf = VQ_BUF_SIZE },
};

FIXTURE_VARIANT_ADD(ring, event_idx) {
	.shape = { .features = BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
		   .size = 64, .segs = 2, .rx_buf = VQ_BUF_SIZE },
};

FIXTURE_VARIANT_ADD(ring, mrg_rxbuf) {
	.shape = { .features = BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
		   .size = 256, .segs = 1, .rx_buf = 320 },
};

FIXTURE_VARIANT_ADD(ring, low_iova) {
	.shape = { .iova = 0x100000, .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE },
};

FIXTURE_VARIANT_ADD(ring, high_iova) {
	.shape = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE }, .high = true,
};

FIXTURE_VARIANT_ADD(ring, wrap) {
	.shape = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE, .index = 65535 - 300 },
};

FIXTURE_VARIANT_ADD(ring, reset) {
	.shape = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE }, .reset = true,
};

FIXTURE_VARIANT_ADD(ring, reset_wrap) {
	.shape = { .size = 32, .segs = 1, .rx_buf = VQ_BUF_SIZE, .index = 65535 - 300 },
	.reset = true,
};

FIXTURE_VARIANT_ADD(ring, reset_event_idx) {
	.shape = { .features = BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
		   .size = 256, .segs = 2, .rx_buf = VQ_BUF_SIZE }, .reset = true,
};

FIXTURE_VARIANT_ADD(ring, reset_mrg_rxbuf) {
	.shape = { .features = BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
		   .size = 256, .segs = 1, .rx_buf = 512 }, .reset = true,
};

FIXTURE_VARIANT_ADD(ring, reopen) {
	.shape = { .size = 256, .segs = 1, .rx_buf = VQ_BUF_SIZE }, .reset = true,
	.reopen = true,
};

FIXTURE_SETUP(ring)
{
	struct shape shape = variant->shape;
	struct vdpa *v = &self->v;

	OPEN_OR_SKIP(v);
	if (shape.features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX))
		NEED(v, CAP_EVENT_IDX);
	if (shape.features & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF))
		NEED(v, CAP_MRG_RXBUF);
	if (shape.index)
		NEED(v, CAP_RING_STATE);
	if (variant->high)
		shape.iova = v->range.last - VDPA_MEM_SIZE + 1;
	start(_metadata, v, &self->n, &shape);
	NEED(v, CAP_WIRE);
}

FIXTURE_TEARDOWN(ring)
{
	LOG_SEED_ON_FAILURE();
	net_free(&self->n);
	vdpa_close(&self->v);
}

/* Frames go out and come back, whole, once, by eventfd kicks and calls */
TEST_F_TIMEOUT(ring, traffic, TEST_SECONDS)
{
	struct net *n = &self->n;

	ASSERT_NET(n, net_traffic(n, 1000, 1000));
	expect_account(_metadata, n);
}

/*
 * One frame at a time, each side waited for by its own interrupt alone: under
 * load, one that got lost would be made up for by the next.
 */
TEST_F_TIMEOUT(ring, interrupts, TEST_SECONDS)
{
	struct net *n = &self->n;
	eventfd_t count;
	uint64_t end;
	int i;

	for (i = 0; i < 500; i++) {
		ASSERT_EQ(0, net_send_data(n));
		vq_kick(&n->tx);
		end = deadline(NET_WAIT_MS);
		while (n->tx.posted) {
			ASSERT_EQ(0, wait_readable(n->tx.call, end)) {
				TH_LOG("frame %d is %s, but there was no interrupt", i,
				       vq_device_used(&n->tx) == n->tx.used_idx ? "not sent" :
				       "sent");
			}
			ASSERT_EQ(0, eventfd_read(n->tx.call, &count));
			ASSERT_NET(n, net_poll_tx(n));
		}
		while (n->got < n->sent) {
			ASSERT_EQ(0, wait_readable(n->rx.call, end)) {
				TH_LOG("frame %d is %s, but there was no interrupt", i,
				       vq_device_used(&n->rx) == n->rx.used_idx ? "not back" :
				       "back");
			}
			ASSERT_EQ(0, eventfd_read(n->rx.call, &count));
			ASSERT_NET(n, net_poll(n));
		}
	}
	expect_account(_metadata, n);
}

/* From a suspended device to a running one, the way that the variant says */
static void go_on(struct __test_metadata *_metadata, struct net *n,
		  const struct _fixture_variant_ring *variant)
{
	struct vdpa *v = n->v;
	int rx = vdpa_get_base(v, 0), tx = vdpa_get_base(v, 1);

	if (!variant->reset) {
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	} else {
		/* the same rings in the same memory, as on a destination */
		ASSERT_EQ(0, variant->reopen ? vdpa_reopen(v) : vdpa_reset(v));
		ASSERT_NET(n, net_start(n, variant->shape.features, rx, tx));
	}
	ASSERT_NET(n, net_poll(n));
}

/* The same with the device stopped again and again, anywhere */
TEST_F_TIMEOUT(ring, stop_mid_traffic, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	const uint32_t rounds = 12;
	uint32_t round, more, in_flight, unsent;

	NEED(v, CAP_SUSPEND);
	if (!variant->reset)
		NEED(v, CAP_RESUME);

	for (round = 0; round < rounds; round++) {
		/* up to a ring full of frames has been sent and may be anywhere */
		more = rng_below(&n->rng, net_room(n) + 100);
		ASSERT_NET(n, net_traffic(n, n->sent + more, n->got));
		suspend(_metadata, n);
		in_flight = n->sent - n->got - n->lost;
		unsent = vq_unused(&n->tx);
		expect_still(_metadata, n);
		go_on(_metadata, n, variant);
		if (n->wire == WIRE_PEER) {
			ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
			/*
			 * Frames that came while there was no receive queue may be lost, and no
			 * others: those still to be sent then have come back since.
			 */
			if (variant->reset) {
				EXPECT_LE(n->sent - n->got - n->lost + unsent, in_flight) {
					TH_LOG("%u were in flight, %u of them not sent yet",
					       in_flight, unsent);
				}
				n->lost = n->sent - n->got;
			}
		}
		ASSERT_NET(n, net_traffic(n, n->sent, n->sent - n->lost));
	}
	expect_account(_metadata, n);
}

/*
 * Frames that come in while the device is suspended wait outside. After a
 * resume every one is received, after a reset none is received twice.
 */
TEST_F_TIMEOUT(ring, stop_mid_receive, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	/* a millisecond apart; a reset may lose any number of them */
	const uint32_t frames = 600, stops = variant->reset ? 1 : 3;
	uint32_t i, enough;

	NEED(v, CAP_PEER);
	NEED(v, CAP_SUSPEND);
	if (!variant->reset)
		NEED(v, CAP_RESUME);

	ASSERT_NET(n, net_request(n, WIRE_SEND, WIRE_BURST_SEQ, frames, 1000));
	for (i = 0; i < stops; i++) {
		enough = n->burst + 1 + rng_below(&n->rng, 30);
		while (n->burst < enough && n->burst < frames)
			ASSERT_NET(n, net_wait(n, deadline(NET_WAIT_MS)));
		suspend(_metadata, n);
		expect_still(_metadata, n);
		go_on(_metadata, n, variant);
	}
	do {
		ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	} while (n->answer[3]);
	if (!variant->reset)
		EXPECT_EQ(frames, n->burst);
}

/* Rings that begin anywhere, most of all where the index is about to wrap */
FIXTURE(start_index) {
	struct vdpa v;
	struct net n;
};

FIXTURE_VARIANT(start_index) {
	uint16_t index;
};

FIXTURE_VARIANT_ADD(start_index, one) { .index = 1, };
FIXTURE_VARIANT_ADD(start_index, ring_size) { .index = 256, };
FIXTURE_VARIANT_ADD(start_index, below_sign_bit) { .index = 0x7fff, };
FIXTURE_VARIANT_ADD(start_index, odd) { .index = 0xa5c3, };
FIXTURE_VARIANT_ADD(start_index, near_wrap) { .index = 65535 - 20, };
FIXTURE_VARIANT_ADD(start_index, at_wrap) { .index = 65535, };

FIXTURE_SETUP(start_index)
{
	struct shape shape = plain;

	OPEN_OR_SKIP(&self->v);
	NEED(&self->v, CAP_RING_STATE);
	shape.index = variant->index;
	start(_metadata, &self->v, &self->n, &shape);
	NEED(&self->v, CAP_WIRE);
}

FIXTURE_TEARDOWN(start_index)
{
	LOG_SEED_ON_FAILURE();
	net_free(&self->n);
	vdpa_close(&self->v);
}

TEST_F_TIMEOUT(start_index, traffic, TEST_SECONDS)
{
	struct net *n = &self->n;

	ASSERT_NET(n, net_traffic(n, 600, 600));
	expect_account(_metadata, n);
	EXPECT_LE(600, (uint16_t)(vq_device_used(&n->rx) - variant->index));
}

TEST_F_TIMEOUT(start_index, state_after_traffic, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;

	NEED(v, CAP_SUSPEND);
	ASSERT_NET(n, net_traffic(n, 100, 100));
	/* a completion without an effect on the account may still be under way */
	while (n->tx.posted)
		ASSERT_NET(n, net_wait(n, deadline(NET_WAIT_MS)));
	suspend(_metadata, n);
	EXPECT_EQ(n->tx.avail_idx, vdpa_get_base(v, 1));
	EXPECT_LE(100, (uint16_t)(vdpa_get_base(v, 0) - variant->index));

	/* and a start from the state, twice over the same point */
	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_NET(n, net_start(n, 0, vq_device_used(&n->rx), vq_device_used(&n->tx)));
	ASSERT_NET(n, net_traffic(n, n->sent + 300, n->sent + 300));
	expect_account(_metadata, n);
}

/* One running device */
FIXTURE(running) {
	struct vdpa v;
	struct net n;
};

FIXTURE_SETUP(running)
{
	OPEN_OR_SKIP(&self->v);
	start(_metadata, &self->v, &self->n, &plain);
	NEED(&self->v, CAP_WIRE);
}

FIXTURE_TEARDOWN(running)
{
	LOG_SEED_ON_FAILURE();
	net_free(&self->n);
	vdpa_close(&self->v);
}

/* Neither a second suspend nor a second resume changes anything */
TEST_F_TIMEOUT(running, suspend_and_resume_twice, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int rx, tx;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 50, 50));
	suspend(_metadata, n);
	rx = vdpa_get_base(v, 0);
	tx = vdpa_get_base(v, 1);
	suspend(_metadata, n);
	EXPECT_EQ(rx, vdpa_get_base(v, 0));
	EXPECT_EQ(tx, vdpa_get_base(v, 1));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 100, 100));
	expect_account(_metadata, n);
}

/* Buffers made available and kicked while stopped are served after the resume */
TEST_F_TIMEOUT(running, kick_while_suspended, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int i, tx;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_NET(n, net_traffic(n, 50, 50));
	suspend(_metadata, n);
	tx = vdpa_get_base(v, 1);
	for (i = 0; i < 20; i++)
		ASSERT_EQ(0, net_send_data(n));
	expect_still(_metadata, n);	/* kicks */
	EXPECT_EQ(tx, vdpa_get_base(v, 1));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 70, 70));
	expect_account(_metadata, n);
}

/* A resume counts as a kick: the one for these buffers may have come too early */
TEST_F_TIMEOUT(running, resume_is_a_kick, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int i;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	NEED(v, CAP_START_KICKS);
	ASSERT_NET(n, net_traffic(n, 50, 50));
	suspend(_metadata, n);
	for (i = 0; i < 20; i++)
		ASSERT_EQ(0, net_send_data(n));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 70, 70));
	expect_account(_metadata, n);
}

/* So does a start: a destination's guest has kicked long ago, at the source */
TEST_F_TIMEOUT(running, start_is_a_kick, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	uint8_t ok = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
	int i;

	NEED(v, CAP_START_KICKS);
	NEED(v, CAP_RING_STATE);
	ASSERT_EQ(0, vdpa_reset(v));
	vq_set_start(&n->rx, 7);
	vq_set_start(&n->tx, 9);
	ASSERT_NET(n, net_setup(n, 0, 7, 9));
	net_fill_rx(n);
	for (i = 0; i < 20; i++)
		ASSERT_EQ(0, net_send_data(n));
	ASSERT_EQ(0, vdpa_set_status(v, ok));
	ASSERT_NET(n, net_traffic(n, 20, 20));
	expect_account(_metadata, n);
}

/* The state may be read and written while the device is stopped */
TEST_F_TIMEOUT(running, state_while_suspended, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	static const uint16_t values[] = { 0, 1, 0x7fff, 0x8000, 0xffff };
	int base[2];
	uint32_t q;
	size_t i;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_NET(n, net_traffic(n, 50, 50));
	suspend(_metadata, n);
	for (q = 0; q < 2; q++) {
		base[q] = vdpa_get_base(v, q);
		for (i = 0; i < ARRAY_SIZE(values); i++) {
			ASSERT_EQ(0, vdpa_set_base(v, q, values[i]));
			EXPECT_EQ(values[i], vdpa_get_base(v, q));
		}
		ASSERT_EQ(0, vdpa_set_base(v, q, base[q]));
	}
	EXPECT_EQ(base[0], vdpa_get_base(v, 0));
	EXPECT_EQ(base[1], vdpa_get_base(v, 1));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 100, 100));
	expect_account(_metadata, n);
}

/*
 * From a device that was reset, on empty rings. What was in flight may be lost, at most a ring of
 * it; a frame whose buffer was used is on the wire.
 */
static void start_anew(struct __test_metadata *_metadata, struct net *n)
{
	uint32_t in_flight, unsent, gone;

	/* what the device has used is there, reset or not */
	ASSERT_NET(n, net_poll(n));
	in_flight = n->sent - n->got - n->lost;
	unsent = n->tx.posted;
	EXPECT_LE(in_flight, net_room(n));
	vq_set_start(&n->rx, 0);
	vq_set_start(&n->tx, 0);
	ASSERT_NET(n, net_start(n, 0, 0, 0));
	if (n->wire == WIRE_PEER) {
		ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
		gone = n->sent - n->unsent - n->answer[0];
		EXPECT_LE(gone, unsent) {
			TH_LOG("%u frames are not on the wire, %u buffers were not used", gone,
			       unsent);
		}
		n->unsent += gone;
	}
	EXPECT_LE(n->sent - n->got - n->lost, in_flight);
	n->lost = n->sent - n->got;
}

/* What a parent can tell of its rings is what a new one would */
static void expect_no_index(struct __test_metadata *_metadata, struct vdpa *v)
{
	if (!vdpa_can(v, CAP_RING_STATE))
		return;
	EXPECT_EQ(0, vdpa_get_base(v, 0));
	EXPECT_EQ(0, vdpa_get_base(v, 1));
}

/* A reset device forgets its indices and leaves memory alone, suspended before or not */
TEST_F_TIMEOUT(running, reset, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int i;

	for (i = 0; i < 2; i++) {
		uint32_t was = n->sent;

		ASSERT_NET(n, net_traffic(n, was + 90, n->got));
		if (i && vdpa_can(v, CAP_SUSPEND))
			suspend(_metadata, n);
		ASSERT_EQ(0, vdpa_reset(v));
		expect_no_index(_metadata, v);
		expect_still(_metadata, n);

		start_anew(_metadata, n);
		was = n->sent;
		ASSERT_NET(n, net_traffic(n, was + 200, n->got + 200));
		expect_account(_metadata, n);
	}
}

/* A device closed in the middle of everything is as good as new when opened again */
TEST_F_TIMEOUT(running, close_mid_traffic, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;

	ASSERT_NET(n, net_traffic(n, 90, 0));
	ASSERT_EQ(0, vdpa_reopen(v));
	EXPECT_EQ(0, vdpa_get_status(v));
	expect_no_index(_metadata, v);
	start_anew(_metadata, n);
	ASSERT_NET(n, net_traffic(n, n->sent + 200, n->got + 200));
	expect_account(_metadata, n);
}

/* So is one whose owner was killed */
TEST_F_TIMEOUT(running, owner_killed, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int status;
	pid_t pid;

	vdpa_close(v);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct vdpa child;
		struct net cn;

		if (vdpa_open(&child) || vdpa_mem_init(&child, VDPA_IOVA) ||
		    net_init(&cn, &child, "killed", 256, 1, VQ_BUF_SIZE) ||
		    net_start(&cn, 0, 0, 0) || net_probe(&cn) || net_traffic(&cn, 150, 100))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));

	net_free(n);
	ASSERT_EQ(0, vdpa_open(v));
	EXPECT_EQ(0, vdpa_get_status(v));
	start(_metadata, v, n, &plain);
	ASSERT_NET(n, net_traffic(n, 200, 200));
	expect_account(_metadata, n);
}

/* Once DRIVER_OK is set the rings stay where they are, and nothing is disturbed by trying */
TEST_F_TIMEOUT(running, no_changes_while_running, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	struct vhost_vring_addr addr = {
		.index = 1,
		.desc_user_addr = vdpa_iova(v, n->tx.desc),
		.avail_user_addr = vdpa_iova(v, n->tx.avail),
		.used_user_addr = vdpa_iova(v, n->tx.used),
	};
	uint64_t features = v->offered;
	uint32_t q;

	for (q = 0; q < 2; q++) {
		EXPECT_EQ(-EINVAL, vdpa_set_base(v, q, 0));
		addr.index = q;
		EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &addr));
	}
	EXPECT_EQ(-EBUSY, vdpa_ioctl(v, VHOST_SET_FEATURES, &features));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE |
					   VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK));
	ASSERT_NET(n, net_traffic(n, 200, 200));
	expect_account(_metadata, n);
}

/* A queue may be enabled after DRIVER_OK, where the parent says so */
TEST_F_TIMEOUT(running, enable_after_driver_ok, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

	NEED(v, CAP_LATE_ENABLE);
	NEED(v, CAP_RING_STATE);
	ASSERT_EQ(0, vdpa_reset(v));
	vq_set_start(&n->rx, 300);
	vq_set_start(&n->tx, 400);
	ASSERT_EQ(0, vdpa_negotiate(v, BIT_ULL(VIRTIO_F_VERSION_1) |
				    BIT_ULL(VIRTIO_F_ACCESS_PLATFORM)));
	ASSERT_EQ(0, vq_setup(&n->rx, 300));
	ASSERT_EQ(0, vq_setup(&n->tx, 400));
	ASSERT_EQ(0, vdpa_set_status(v, status));
	ASSERT_EQ(0, vq_enable(&n->rx, true));
	ASSERT_EQ(0, vq_enable(&n->tx, true));
	net_fill_rx(n);
	vq_kick(&n->rx);
	ASSERT_NET(n, net_traffic(n, 200, 200));
	expect_account(_metadata, n);
}

/* A call eventfd can be taken away and another one given, at any time */
TEST_F_TIMEOUT(running, call_eventfd_is_replaced, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vq *queues[] = { &n->rx, &n->tx };
	uint64_t end;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(queues); i++)
		ASSERT_EQ(0, vq_set_call(queues[i], -1));
	for (i = 0; i < 20; i++)
		ASSERT_EQ(0, net_send_data(n));
	vq_kick(&n->tx);
	/* nobody calls: the ring itself tells */
	end = deadline(NET_WAIT_MS);
	while (n->got < 20) {
		ASSERT_FALSE(expired(end));
		sleep_ms(1);
		ASSERT_NET(n, net_poll(n));
	}

	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		close(queues[i]->call);
		queues[i]->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, queues[i]->call);
		ASSERT_EQ(0, vq_set_call(queues[i], queues[i]->call));
	}
	ASSERT_NET(n, net_traffic(n, 200, 200));
	expect_account(_metadata, n);
}

/* So can a kick eventfd */
TEST_F_TIMEOUT(running, kick_eventfd_is_replaced, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vq *queues[] = { &n->rx, &n->tx };
	int old[ARRAY_SIZE(queues)];
	size_t i;

	ASSERT_NET(n, net_traffic(n, 50, 50));
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		old[i] = queues[i]->kick;
		ASSERT_EQ(0, vq_set_kick(queues[i], -1));
		queues[i]->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, queues[i]->kick);
		ASSERT_EQ(0, vq_set_kick(queues[i], queues[i]->kick));
	}
	ASSERT_NET(n, net_traffic(n, 100, 100));
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		eventfd_write(old[i], 1);
		close(old[i]);
	}
	ASSERT_NET(n, net_traffic(n, 200, 200));
	expect_account(_metadata, n);
}

/* The doorbell page kicks without any system call */
TEST_F_TIMEOUT(running, doorbell, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	struct vq *queues[] = { &n->rx, &n->tx };
	long page = getpagesize();
	size_t i;

	NEED(v, CAP_DOORBELL);
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		void *p = mmap(NULL, page, PROT_WRITE, MAP_SHARED, v->fd, i * page);

		ASSERT_NE(MAP_FAILED, p);
		ASSERT_EQ(0, vq_set_kick(queues[i], -1));
		queues[i]->doorbell = p;
	}
	ASSERT_NET(n, net_traffic(n, 500, 500));
	expect_account(_metadata, n);
}

/* What this side has seen of a queue, and what the statistics say of it, while it is suspended */
struct count {
	uint64_t kicks, calls;
	uint16_t used;
	struct vdpa_nl_info info;
};

static void count(struct __test_metadata *_metadata, struct net *n, struct count *c, uint32_t q)
{
	struct vq *vq = q ? &n->tx : &n->rx;
	uint64_t end = deadline(NET_WAIT_MS);

	/*
	 * An interrupt from before the suspend may be handled after the calls were read, and before
	 * the statistics are: then both are read again.
	 */
	vq_take_calls(vq);
	do {
		ASSERT_FALSE(expired(end));
		c->kicks = vq->kicks;
		c->calls = vq->calls;
		c->used = vq_device_used(vq);
		ASSERT_EQ(0, vdpa_nl_vstats_get(n->v->name, q, &c->info)) {
			TH_LOG("queue %u", q);
		}
		vq_take_calls(vq);
	} while (c->calls != vq->calls);
	ASSERT_NE(0, c->info.nstats);
}

/*
 * How many of the statistics of a queue have a meaning that is known (vdpa_parents.c), and are
 * right: of those that count, what they have counted from @from to @to.
 */
static unsigned int right_stats(const struct vdpa_parent *parent, const struct count *from,
				const struct count *to, char *wrong, size_t size)
{
	unsigned int i, right = 0;

	*wrong = '\0';
	for (i = 0; i < to->info.nstats && i < VDPA_NL_STATS; i++) {
		const char *name = to->info.stats[i].name;
		uint64_t now = to->info.stats[i].value, want;
		uint64_t more = now - from->info.stats[i].value;

		switch (vdpa_stat_kind(parent, name)) {
		case STAT_KICKS:
			want = to->kicks - from->kicks;
			break;
		case STAT_CALLS:
			want = to->calls - from->calls;
			break;
		case STAT_PACKETS:
			want = (uint16_t)(to->used - from->used);
			break;
		case STAT_INDEX:
			want = more - now + to->used;
			break;
		default:
			continue;
		}
		if (to->info.stats[i].has_value && more == want)
			right++;
		else
			snprintf(wrong, size, "%s: want %llu more, have %llu", name,
				 (unsigned long long)want, (unsigned long long)more);
	}
	return right;
}

/*
 * Vendor statistics of every queue, and of none beyond the last. Each that has a meaning known here
 * is what was done.
 */
TEST_F_TIMEOUT(running, vendor_statistics, TEST_SECONDS)
{
	const struct vdpa_parent *parent = vdpa_parent(self->v.parent);
	struct count from[2], to[2];
	unsigned int right;
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	char wrong[128];
	uint64_t end;
	uint32_t q;

	NEED(v, CAP_VSTATS);
	NEED(v, CAP_KNOWN_STATS);
	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_NET(n, net_traffic(n, 50, 50));
	for (q = 2; q < v->nvqs; q++)
		EXPECT_EQ(0, vdpa_nl_vstats_get(v->name, q, &info));
	EXPECT_NE(0, vdpa_nl_vstats_get(v->name, v->nvqs, &info));
	EXPECT_NE(0, vdpa_nl_vstats_get(v->name, 65535, &info));

	suspend(_metadata, n);
	for (q = 0; q < 2; q++)
		count(_metadata, n, &from[q], q);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_traffic(n, 150, 150));
	suspend(_metadata, n);
	for (q = 0; q < 2; q++) {
		/* the simulator counts a packet after it has given it back */
		end = deadline(STATS_MS);
		do {
			count(_metadata, n, &to[q], q);
			right = right_stats(parent, &from[q], &to[q], wrong, sizeof(wrong));
		} while (*wrong && !expired(end));
		EXPECT_EQ('\0', *wrong) {
			TH_LOG("queue %u: %s", q, wrong);
		}
		EXPECT_LE(parent->data_stats, right) {
			TH_LOG("queue %u: %u statistics have a meaning", q, right);
		}
		EXPECT_LE(100, (uint16_t)(to[q].used - from[q].used));
	}
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	expect_account(_metadata, n);
}

static uint16_t link_status(struct __test_metadata *_metadata, struct vdpa *v)
{
	uint16_t status;

	ASSERT_EQ(0, vdpa_get_config(v, offsetof(struct virtio_net_config, status), &status,
				     sizeof(status)));
	return le16toh(status) & VIRTIO_NET_S_LINK_UP;
}

/* The link goes down and up again, and the config interrupt says so each time */
TEST_F_TIMEOUT(running, config_interrupt, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), i;
	uint64_t end;
	eventfd_t count;

	NEED(v, CAP_LINK);
	ASSERT_LE(0, fd);
	ASSERT_EQ(VIRTIO_NET_S_LINK_UP, link_status(_metadata, v));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &fd));
	ASSERT_NET(n, net_traffic(n, 50, 50));

	ASSERT_NET(n, net_request(n, WIRE_LINK, OUTAGE_MS, 0, 0));
	end = deadline(NET_WAIT_MS);
	for (i = 0; i < 2; i++) {
		uint16_t wanted = i ? VIRTIO_NET_S_LINK_UP : 0;

		do {
			ASSERT_EQ(0, wait_readable(fd, end)) {
				TH_LOG("no interrupt for a link that went %s", i ? "up" : "down");
			}
			ASSERT_EQ(0, eventfd_read(fd, &count));
		} while (link_status(_metadata, v) != wanted);
	}
	/* the answer comes when the hook is through with the link */
	ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	EXPECT_EQ(1, n->answer[4]) {
		TH_LOG("the link hook has failed");
	}
	ASSERT_NET(n, net_traffic(n, 100, 100));
	expect_account(_metadata, n);
	close(fd);
}

/* Only the configuration tells, suspended or not */
static void wait_for_link(struct __test_metadata *_metadata, struct vdpa *v, uint16_t wanted)
{
	uint64_t end = deadline(NET_WAIT_MS);

	while (link_status(_metadata, v) != wanted) {
		ASSERT_FALSE(expired(end)) {
			TH_LOG("the link is not seen %s", wanted ? "up" : "down");
		}
		sleep_ms(1);
	}
}

/* A link that goes down and up behind a stopped device's back does not set it going */
TEST_F_TIMEOUT(running, link_while_suspended, TEST_SECONDS)
{
	struct net *n = &self->n;
	struct vdpa *v = &self->v;
	int i;

	NEED(v, CAP_LINK);
	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	ASSERT_NET(n, net_traffic(n, 50, 50));
	ASSERT_NET(n, net_request(n, WIRE_LINK, OUTAGE_MS, 0, 0));
	suspend(_metadata, n);
	for (i = 0; i < 20; i++)
		ASSERT_EQ(0, net_send_data(n));
	wait_for_link(_metadata, v, 0);
	for (i = 0; i < 3; i++)
		expect_still(_metadata, n);
	wait_for_link(_metadata, v, VIRTIO_NET_S_LINK_UP);
	expect_still(_metadata, n);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	EXPECT_EQ(1, n->answer[4]) {
		TH_LOG("the link hook has failed");
	}
	/* the link is up when they are sent: none is lost */
	ASSERT_NET(n, net_traffic(n, n->sent + 100, n->sent + 100));
	expect_account(_metadata, n);
}

TEST_HARNESS_MAIN
