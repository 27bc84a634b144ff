// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The order in which a VMM calls: each VMM has its own, and a parent has to serve
 * all of them. A VMM also stops a queue without suspending the device, asks where it
 * stands, and starts it there again.
 *
 * No call has to succeed here. What may not be is a device that has taken all of them, has
 * DRIVER_OK set, and does not move data.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "kselftest_harness.h"
#include "net.h"

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */
#define STILL_MS	60	/* how long a stopped queue is watched */
#define ROUNDS		40	/* of the random order */
#define MAX_SLOTS	256	/* of the largest ring: not every kernel maps any number of pages */
#define ORDER_STEPS	64
#define QUEUES		2	/* of the pair that the frames go through */

#define ACK	VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	(ACK | VIRTIO_CONFIG_S_DRIVER)
#define FEAT_OK	(DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define DRV_OK	(FEAT_OK | VIRTIO_CONFIG_S_DRIVER_OK)
#define WANTED	(BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | \
		 BIT_ULL(VIRTIO_NET_F_MAC) | BIT_ULL(VIRTIO_NET_F_STATUS))

#define ASSERT_NET(n, call) do {							\
	ASSERT_EQ(0, call) {								\
		TH_LOG("%s; sent %u, back %u, lost %u, doubled %u, damaged %u",		\
		       (n)->error ? (n)->error : "an ioctl failed", (n)->sent,		\
		       (n)->got, (n)->lost, (n)->doubled, (n)->damaged);		\
	}										\
} while (0)

enum call {
	STATUS,
	FEATURES,
	BACKEND,
	NUM,
	ADDR,
	BASE,
	CALL,
	KICK,
	ENABLE,
	CALLS
};

static const char * const call_names[CALLS] = {
	"status", "features", "backend", "num", "addr", "base", "call", "kick", "enable",
};

/* One call; of a status its value, of a virtqueue its index */
struct step {
	enum call call;
	uint8_t arg;
};

/* What is done for each virtqueue in turn, up to the first that is not in there */
struct order {
	uint8_t before[4];	/* statuses, each by itself */
	bool features_first;	/* at status 0, or right before FEATURES_OK */
	enum call setup[6];
	unsigned int setups;
	bool enable_in_setup;	/* enabled with the rest of the same queue */
	bool enable_late;	/* enabled after DRIVER_OK */
	bool kick_late;		/* there is no kick before DRIVER_OK */
};

FIXTURE(order) {
	struct vdpa v;
	struct net n;
	struct step steps[ORDER_STEPS];
	unsigned int count;
};

FIXTURE_VARIANT(order) {
	struct order order;
};

/* QEMU 10.2, hw/virtio/vhost.c and vhost-vdpa.c */
FIXTURE_VARIANT_ADD(order, qemu) {
	.order = {
		.before = { ACK, DRIVER, FEAT_OK },
		.setup = { NUM, BASE, ADDR, KICK, CALL },
		.setups = 5,
		.enable_late = true,
	},
};

/* cloud-hypervisor 48, virtio-devices/src/vdpa.rs */
FIXTURE_VARIANT_ADD(order, cloud_hypervisor) {
	.order = {
		.features_first = true,
		.setup = { NUM, ADDR, BASE, CALL, KICK },
		.setups = 5,
		.enable_in_setup = true,
	},
};

/* DPDK 24.11, drivers/net/virtio/virtio_user */
FIXTURE_VARIANT_ADD(order, dpdk_virtio_user) {
	.order = {
		.before = { ACK, DRIVER, FEAT_OK },
		.setup = { CALL, NUM, BASE, ADDR, KICK },
		.setups = 5,
	},
};

/* libblkio 1.5, by the virtio-driver crate */
FIXTURE_VARIANT_ADD(order, libblkio) {
	.order = {
		.before = { ACK, DRIVER, FEAT_OK },
		.setup = { NUM, ADDR, BASE, KICK, CALL },
		.setups = 5,
		.enable_in_setup = true,
	},
};

/* Linux 6.12, drivers/virtio/virtio_vdpa.c, as far as it can be done from here */
FIXTURE_VARIANT_ADD(order, virtio_vdpa) {
	.order = {
		.before = { ACK, DRIVER, FEAT_OK },
		.setup = { CALL, NUM, ADDR, BASE },
		.setups = 4,
		.enable_in_setup = true,
		.kick_late = true,
	},
};

/* All that can be said is said before the first status, which is the last */
FIXTURE_VARIANT_ADD(order, all_at_once) {
	.order = {
		.features_first = true,
		.setup = { ENABLE, CALL, KICK, BASE, ADDR, NUM },
		.setups = 6,
	},
};

static void add(struct _test_data_order *self, enum call call, uint8_t arg)
{
	if (self->count < ORDER_STEPS)
		self->steps[self->count++] = (struct step){ call, arg };
}

static void add_each(struct _test_data_order *self, enum call call)
{
	int q;

	for (q = 0; q < QUEUES; q++)
		add(self, call, q);
}

static bool in_setup(const struct order *o, enum call call)
{
	unsigned int i;

	for (i = 0; i < o->setups; i++)
		if (o->setup[i] == call)
			return true;
	return false;
}

static void lay_out(struct _test_data_order *self, const struct order *o)
{
	unsigned int i, q;

	self->count = 0;
	if (o->features_first) {
		add(self, FEATURES, 0);
		add(self, BACKEND, 0);
	}
	for (i = 0; o->before[i]; i++) {
		if (!o->features_first && o->before[i] == FEAT_OK)
			add(self, FEATURES, 0);
		add(self, STATUS, o->before[i]);
	}
	for (q = 0; q < QUEUES; q++) {
		for (i = 0; i < o->setups; i++)
			add(self, o->setup[i], q);
		if (o->enable_in_setup)
			add(self, ENABLE, q);
	}
	if (!o->enable_in_setup && !o->enable_late && !in_setup(o, ENABLE))
		add_each(self, ENABLE);
	add(self, STATUS, DRV_OK);
	if (o->enable_late)
		add_each(self, ENABLE);
	if (o->kick_late)
		add_each(self, KICK);
}

static struct vq *queue(struct net *n, unsigned int q)
{
	return q ? &n->tx : &n->rx;
}

static int do_step(struct net *n, const struct step *s, const uint16_t base[QUEUES])
{
	struct vq *q = queue(n, s->arg);
	struct vhost_vring_state num = { .index = q->index, .num = q->size };
	struct vhost_vring_addr addr = {
		.index = q->index,
		.desc_user_addr = vdpa_iova(n->v, q->desc),
		.avail_user_addr = vdpa_iova(n->v, q->avail),
		.used_user_addr = vdpa_iova(n->v, q->used),
	};
	uint64_t features = WANTED & n->v->offered;
	int ret;

	switch (s->call) {
	case STATUS:
		return vdpa_set_status(n->v, s->arg);
	case FEATURES:
		ret = vdpa_ioctl(n->v, VHOST_SET_FEATURES, &features);
		if (!ret)
			n->v->features = features;
		return ret;
	case BACKEND:
		return vdpa_ioctl(n->v, VHOST_SET_BACKEND_FEATURES, &n->v->backend);
	case NUM:
		return vdpa_ioctl(n->v, VHOST_SET_VRING_NUM, &num);
	case ADDR:
		return vdpa_ioctl(n->v, VHOST_SET_VRING_ADDR, &addr);
	case BASE:
		return vdpa_set_base(n->v, q->index, base[s->arg]);
	case CALL:
		return vq_set_call(q, q->call);
	case KICK:
		return vq_set_kick(q, q->kick);
	case ENABLE:
		return vq_enable(q, true);
	default:
		return -EINVAL;
	}
}

/* All calls, up to the first that is refused */
static int start(struct _test_data_order *self, const uint16_t base[QUEUES])
{
	struct net *n = &self->n;
	unsigned int i;
	int ret;

	for (i = 0; i < self->count; i++) {
		ret = do_step(n, &self->steps[i], base);
		if (ret) {
			n->error = call_names[self->steps[i].call];
			return ret;
		}
	}
	return vdpa_get_status(n->v) == DRV_OK ? 0 : -EPROTO;
}

static const uint16_t zero[QUEUES];

FIXTURE_SETUP(order)
{
	struct vdpa *v = &self->v;
	struct net *n = &self->n;
	uint16_t size;

	OPEN_OR_SKIP(v);
	size = v->vq_max < 256 ? v->vq_max : 256;
	if (variant->order.enable_late)
		NEED(v, CAP_LATE_ENABLE);
	if (variant->order.features_first)
		NEED(v, CAP_RING_STATE);
	if (in_setup(&variant->order, ENABLE))
		NEED(v, CAP_ANY_ORDER);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_NET(n, net_init(n, v, _metadata->name, size, 1, VQ_BUF_SIZE));
	lay_out(self, &variant->order);
	ASSERT_NET(n, start(self, zero));
	net_fill_rx(n);
	vq_kick(&n->rx);
	ASSERT_NET(n, net_probe(n));
	NEED(v, CAP_WIRE);
}

FIXTURE_TEARDOWN(order)
{
	LOG_SEED_ON_FAILURE();
	net_free(&self->n);
	vdpa_close(&self->v);
}

/* Every frame was sent once and came back once, but for those known to be lost */
static void expect_account(struct __test_metadata *_metadata, struct net *n)
{
	EXPECT_EQ(n->sent, n->got + n->lost);
	if (n->wire != WIRE_PEER)
		return;
	ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	EXPECT_EQ(n->sent, n->answer[0]) {
		TH_LOG("frames sent and frames on the wire differ");
	}
	EXPECT_EQ(0, n->answer[1]) {
		TH_LOG("frames were sent twice");
	}
}

/* A device that has taken all calls moves data */
TEST_F_TIMEOUT(order, serves, TEST_SECONDS)
{
	struct net *n = &self->n;

	ASSERT_NET(n, net_traffic(n, 300, 300));
	expect_account(_metadata, n);
}

/* As DPDK stops: no queue is ready, and each says where it stands, without a suspend */
static void stop(struct __test_metadata *_metadata, struct net *n, uint16_t base[QUEUES])
{
	eventfd_t count;
	unsigned int q;
	int ret;

	for (q = 0; q < QUEUES; q++)
		ASSERT_EQ(0, vq_enable(queue(n, q), false));
	for (q = 0; q < QUEUES; q++) {
		struct vq *vq = queue(n, q);

		ret = vdpa_get_base(n->v, vq->index);
		ASSERT_LE(0, ret) {
			TH_LOG("queue %u does not say where it stands: %s", q, strerror(-ret));
		}
		/* nothing is in flight: the one index stands for both */
		EXPECT_EQ(vq_device_used(vq), ret) {
			TH_LOG("queue %u", q);
		}
		/* an interrupt for what was used and not seen has come, or never will */
		if (vq_device_used(vq) != vq->used_idx)
			EXPECT_EQ(0, wait_readable(vq->call, 0)) {
				TH_LOG("queue %u: the last interrupt is lost", q);
			}
		base[q] = ret;
		eventfd_read(vq->call, &count);
	}
}

/* Neither DMA nor a call comes from queues that are not ready, kicked or not */
static void expect_quiet(struct __test_metadata *_metadata, struct net *n)
{
	struct vdpa *v = n->v;
	uint8_t *before;
	unsigned int q;
	int i;

	/* with something to do, if they did anything */
	for (i = 0; i < 8; i++)
		if (net_send_data(n))
			break;
	before = malloc(v->mem_used);
	ASSERT_NE(NULL, before);
	memcpy(before, v->mem, v->mem_used);
	for (i = 0; i < 2; i++) {
		sleep_ms(STILL_MS);
		EXPECT_EQ(0, memcmp(before, v->mem, v->mem_used)) {
			TH_LOG("a queue that is not ready wrote to memory%s", i ? ", kicked" : "");
		}
		for (q = 0; q < QUEUES; q++)
			EXPECT_EQ(-ETIMEDOUT, wait_readable(queue(n, q)->call, 0)) {
				TH_LOG("queue %u is not ready and calls", q);
			}
		vq_kick(&n->rx);
		vq_kick(&n->tx);
	}
	free(before);
}

/*
 * What has been sent comes back, but for what came in while there was no receive queue. Of what was
 * @in_flight then, that is none of the @unsent.
 */
static void settle(struct __test_metadata *_metadata, struct net *n, uint32_t in_flight,
		   uint32_t unsent)
{
	ASSERT_NET(n, net_poll(n));
	if (n->wire == WIRE_PEER) {
		ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
		EXPECT_LE(n->sent - n->got - n->lost + unsent, in_flight) {
			TH_LOG("%u were in flight, %u of them not sent yet", in_flight, unsent);
		}
		n->lost = n->sent - n->got;
	}
	ASSERT_NET(n, net_traffic(n, n->sent, n->sent - n->lost));
}

/* Queues that are stopped anywhere are quiet, and go on where they stood: ready again */
TEST_F_TIMEOUT(order, stop_and_enable, TEST_SECONDS)
{
	struct net *n = &self->n;
	uint32_t in_flight, unsent;
	uint16_t base[QUEUES];
	unsigned int round, q;

	NEED(&self->v, CAP_LATE_ENABLE);
	for (round = 0; round < 8; round++) {
		ASSERT_NET(n, net_traffic(n, n->sent + rng_below(&n->rng, net_room(n)), n->got));
		stop(_metadata, n, base);
		expect_quiet(_metadata, n);
		in_flight = n->sent - n->got - n->lost;
		unsent = vq_unused(&n->tx);
		for (q = 0; q < QUEUES; q++)
			EXPECT_EQ(base[q], vdpa_get_base(&self->v, q));
		for (q = 0; q < QUEUES; q++)
			ASSERT_EQ(0, vq_enable(queue(n, q), true));
		vq_kick(&n->tx);
		settle(_metadata, n, in_flight, unsent);
	}
	expect_account(_metadata, n);
}

/* Or from a reset on, in the same order as the first time */
TEST_F_TIMEOUT(order, stop_and_start, TEST_SECONDS)
{
	struct net *n = &self->n;
	uint32_t in_flight, unsent;
	uint16_t base[QUEUES];
	unsigned int round;

	NEED(&self->v, CAP_RING_STATE);
	for (round = 0; round < 8; round++) {
		ASSERT_NET(n, net_traffic(n, n->sent + rng_below(&n->rng, net_room(n)), n->got));
		stop(_metadata, n, base);
		expect_quiet(_metadata, n);
		in_flight = n->sent - n->got - n->lost;
		unsent = vq_unused(&n->tx);
		ASSERT_EQ(0, vdpa_reset(&self->v));
		ASSERT_NET(n, start(self, base));
		vq_kick(&n->rx);
		vq_kick(&n->tx);
		settle(_metadata, n, in_flight, unsent);
	}
	expect_account(_metadata, n);
}

/* A queue that is stopped costs the others nothing but time */
TEST_F_TIMEOUT(order, stop_one, TEST_SECONDS)
{
	struct net *n = &self->n;
	const uint32_t frames = 600;
	int i;

	NEED(&self->v, CAP_PEER);
	NEED(&self->v, CAP_LATE_ENABLE);
	ASSERT_NET(n, net_request(n, WIRE_SEND, WIRE_BURST_SEQ, frames, 1000));
	for (i = 0; i < 6; i++) {
		uint32_t enough = n->burst + 1 + rng_below(&n->rng, 30);

		while (n->burst < enough && n->burst < frames)
			ASSERT_NET(n, net_wait(n, deadline(NET_WAIT_MS)));
		ASSERT_EQ(0, vq_enable(&n->tx, i & 1));
	}
	do {
		ASSERT_NET(n, net_request(n, WIRE_REPORT, 0, 0, 0));
	} while (n->answer[3]);
	EXPECT_EQ(frames, n->burst);
	ASSERT_NET(n, net_traffic(n, 100, 100));
	expect_account(_metadata, n);
}

/* A reset forgets what was asked for: nothing of it is carried out by the next DRIVER_OK */
TEST_F_TIMEOUT(order, reset_forgets, TEST_SECONDS)
{
	struct net *n = &self->n;
	eventfd_t count;

	ASSERT_NET(n, net_traffic(n, 50, 50));
	ASSERT_EQ(0, vdpa_reset(&self->v));
	vq_set_start(&n->rx, 0);
	vq_set_start(&n->tx, 0);
	/* all but the status */
	self->count--;
	while (self->steps[self->count].call != STATUS)
		self->count--;
	ASSERT_EQ(-EPROTO, start(self, zero)) {
		TH_LOG("%s is refused", n->error ? n->error : "nothing");
	}
	ASSERT_EQ(0, vdpa_reset(&self->v));
	EXPECT_EQ(0, vdpa_get_status(&self->v));
	net_fill_rx(n);
	ASSERT_EQ(0, net_send_data(n));
	n->lost = n->sent - n->got;
	ASSERT_EQ(0, vdpa_negotiate(&self->v, WANTED));
	ASSERT_EQ(0, vdpa_set_status(&self->v, DRV_OK));
	eventfd_read(n->rx.call, &count);
	eventfd_read(n->tx.call, &count);
	expect_quiet(_metadata, n);
}

/* Any order, and what cannot be carried out */
FIXTURE(any) {
	struct _test_data_order o;
};

FIXTURE_SETUP(any)
{
	struct vdpa *v = &self->o.v;
	struct net *n = &self->o.n;

	OPEN_OR_SKIP(v);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_NET(n, net_init(n, v, _metadata->name, v->vq_max < 64 ? v->vq_max : 64, 1,
			       VQ_BUF_SIZE));
}

FIXTURE_TEARDOWN(any)
{
	LOG_SEED_ON_FAILURE();
	net_free(&self->o.n);
	vdpa_close(&self->o.v);
}

static void swap_steps(struct step *a, struct step *b)
{
	struct step t = *a;

	*a = *b;
	*b = t;
}

/* Where the two are the other way round, they change places */
static void put_before(struct _test_data_order *o, enum call a, uint8_t aa, enum call b, uint8_t ba)
{
	struct step *pa = NULL, *pb = NULL;
	unsigned int i;

	for (i = 0; i < o->count; i++) {
		if (o->steps[i].call == a && o->steps[i].arg == aa)
			pa = &o->steps[i];
		if (o->steps[i].call == b && o->steps[i].arg == ba)
			pb = &o->steps[i];
	}
	if (pa && pb && pa > pb)
		swap_steps(pa, pb);
}

static void shuffle(struct _test_data_order *o, uint64_t *state, bool careful)
{
	static const uint8_t statuses[] = { ACK, DRIVER, FEAT_OK, DRV_OK };
	static const enum call setup[] = { NUM, ADDR, BASE, CALL, KICK };
	unsigned int i, q, next = 0;

	o->count = 0;
	add(o, FEATURES, 0);
	for (i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i] == DRV_OK || rng_below(state, 2))
			add(o, STATUS, statuses[i]);
	for (q = 0; q < QUEUES; q++) {
		for (i = 0; i < ARRAY_SIZE(setup); i++)
			add(o, setup[i], q);
		add(o, ENABLE, q);
	}
	for (i = o->count - 1; i; i--)
		swap_steps(&o->steps[i], &o->steps[rng_below(state, i + 1)]);
	/* the statuses in their order, wherever they are */
	for (i = 0; i < o->count; i++) {
		if (o->steps[i].call != STATUS)
			continue;
		for (q = i + 1; q < o->count; q++)
			if (o->steps[q].call == STATUS && o->steps[q].arg < o->steps[i].arg)
				swap_steps(&o->steps[i], &o->steps[q]);
	}
	if (careful) {
		/* nothing but queues is set after DRIVER_OK, and features before the rest */
		for (i = 0; i < o->count; i++)
			if (o->steps[i].call == FEATURES)
				swap_steps(&o->steps[i], &o->steps[0]);
		for (i = 0; i < o->count; i++) {
			if (o->steps[i].call != STATUS)
				continue;
			for (q = i + 1; q < o->count; q++)
				if (o->steps[q].call == STATUS &&
				    o->steps[q].arg < o->steps[i].arg)
					swap_steps(&o->steps[i], &o->steps[q]);
		}
		for (i = 0; i < o->count; i++)
			if (o->steps[i].call == STATUS && o->steps[i].arg == DRV_OK)
				next = i;
		swap_steps(&o->steps[next], &o->steps[o->count - 1]);
	}
	/* without it, a queue is as it was set up when it was enabled */
	if (!vdpa_can(&o->v, CAP_ANY_ORDER)) {
		for (q = 0; q < QUEUES; q++)
			for (i = 0; i < 3; i++)
				put_before(o, setup[i], q, ENABLE, q);
	}
}

static void describe(const struct _test_data_order *o, char *text, size_t size)
{
	unsigned int i, at = 0;

	for (i = 0; i < o->count && at < size; i++)
		at += snprintf(text + at, size - at, " %s %x", call_names[o->steps[i].call],
			       o->steps[i].arg);
}

/*
 * Calls in any order either come to a device that moves data, or one of them is refused, or
 * the status says so: never nothing at all.
 */
TEST_F_TIMEOUT(any, order_is_served_or_refused, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	unsigned int round, served = 0, refused = 0;
	struct net *n = &o->n;
	char text[1024];
	eventfd_t count;
	bool ok;

	for (round = 0; round < ROUNDS; round++) {
		shuffle(o, &n->rng, round % 2);
		vq_set_start(&n->rx, 0);
		vq_set_start(&n->tx, 0);
		eventfd_read(n->rx.kick, &count);
		eventfd_read(n->tx.kick, &count);
		ok = !start(o, zero);
		if (ok) {
			describe(o, text, sizeof(text));
			net_fill_rx(n);
			ASSERT_EQ(0, net_send_data(n));
			n->lost++;
			vq_kick(&n->rx);
			vq_kick(&n->tx);
			while (n->tx.posted) {
				ASSERT_EQ(0, net_wait(n, deadline(NET_WAIT_MS))) {
					TH_LOG("all was taken, nothing moves:%s", text);
				}
			}
		}
		served += ok;
		refused += !ok;
		ASSERT_EQ(0, vdpa_reset(&o->v)) {
			TH_LOG("cannot be reset after:%s", text);
		}
	}
	EXPECT_LT(0, served);
	TH_LOG("%u orders: %u served, %u refused", round, served, refused);
}

/* FEATURES_OK without features is refused by the status */
TEST_F_TIMEOUT(any, no_features, TEST_SECONDS)
{
	struct vdpa *v = &self->o.v;
	uint64_t features = WANTED & v->offered;

	NEED(v, CAP_ANY_ORDER);
	EXPECT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(DRIVER, vdpa_get_status(v));
	/* and can be had later */
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_FEATURES, &features));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(DRV_OK, vdpa_get_status(v));
}

/* So is DRIVER_OK with a queue that has no rings, until it is mended */
TEST_F_TIMEOUT(any, no_address, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	struct vdpa *v = &o->v;
	struct net *n = &o->n;

	NEED(v, CAP_ANY_ORDER);
	ASSERT_EQ(0, vdpa_negotiate(v, WANTED));
	ASSERT_EQ(0, vq_setup(&n->rx, 0));
	ASSERT_EQ(0, vq_enable(&n->rx, true));
	ASSERT_EQ(0, vq_enable(&n->tx, true));
	EXPECT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));

	ASSERT_EQ(0, vq_setup(&n->tx, 0));
	EXPECT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(DRV_OK, vdpa_get_status(v));
	ASSERT_EQ(0, net_send_data(n));
	vq_kick(&n->tx);
	while (n->tx.posted)
		ASSERT_NET(n, net_wait(n, deadline(NET_WAIT_MS)));
}

/* After DRIVER_OK, enabling has no other way to fail than the status: DEVICE_NEEDS_RESET */
TEST_F_TIMEOUT(any, no_address_late, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct vdpa *v = &o->v;
	struct net *n = &o->n;

	NEED(v, CAP_ANY_ORDER);
	NEED(v, CAP_LATE_ENABLE);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &fd));
	ASSERT_EQ(0, vdpa_negotiate(v, WANTED));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(0, vq_enable(&n->tx, true));
	EXPECT_EQ(DRV_OK | VIRTIO_CONFIG_S_NEEDS_RESET, vdpa_get_status(v));
	/* virtio 1.3, 2.1.2: and a running device says that it has changed */
	EXPECT_EQ(0, wait_readable(fd, 0));
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_EQ(0, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_negotiate(v, WANTED));
	close(fd);
}

/* A ring whose size changes while it runs is not the ring that the device has */
TEST_F_TIMEOUT(any, size_of_a_queue_that_runs, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	struct vdpa *v = &o->v;
	struct vhost_vring_state s = { .index = 1, .num = 16 };

	NEED(v, CAP_ANY_ORDER);
	ASSERT_EQ(0, vdpa_negotiate(v, WANTED));
	ASSERT_EQ(0, vq_setup(&o->n.rx, 0));
	ASSERT_EQ(0, vq_setup(&o->n.tx, 0));
	ASSERT_EQ(0, vq_enable(&o->n.rx, true));
	ASSERT_EQ(0, vq_enable(&o->n.tx, true));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	ASSERT_EQ(DRV_OK, vdpa_get_status(v));
	if (!vdpa_ioctl(v, VHOST_SET_VRING_NUM, &s))
		EXPECT_EQ(DRV_OK | VIRTIO_CONFIG_S_NEEDS_RESET, vdpa_get_status(v));
}

/* Status bits that virtio does not know are no reset: what was asked for is still there */
TEST_F_TIMEOUT(any, unknown_status_bits, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	struct vdpa *v = &o->v;
	struct net *n = &o->n;
	uint64_t features = WANTED & v->offered;

	NEED(v, CAP_ANY_ORDER);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_FEATURES, &features));
	v->features = features;
	ASSERT_EQ(0, vq_setup(&n->rx, 0));
	ASSERT_EQ(0, vq_setup(&n->tx, 5));
	vdpa_set_status(v, 0x20);
	EXPECT_EQ(0, vdpa_get_status(v));
	EXPECT_EQ(5, vdpa_get_base(v, 1));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(DRV_OK, vdpa_get_status(v));
}

/*
 * A packed ring of which the device would have all descriptors, and none of them in flight,
 * never gets another: what testpmd sets with packed_vq=1, an available index with a used one
 * of the lap before.
 */
TEST_F_TIMEOUT(any, packed_ring_that_cannot_go_on, TEST_SECONDS)
{
	struct _test_data_order *o = &self->o;
	uint64_t features = WANTED | BIT_ULL(VIRTIO_F_RING_PACKED);
	struct vdpa *v = &o->v;

	NEED(v, CAP_PACKED);
	ASSERT_EQ(0, vdpa_negotiate(v, features));
	EXPECT_EQ(-ERANGE, vdpa_set_base(v, 1, 0x00008000));
	EXPECT_EQ(-ERANGE, vdpa_set_base(v, 1, 0x80000000));
	EXPECT_EQ(-ERANGE, vdpa_set_base(v, 1, 0x80058005 ^ 0x8000));
	/* used ahead of available */
	EXPECT_EQ(-ERANGE, vdpa_set_base(v, 1, 0x80068005));
	EXPECT_EQ(0, vdpa_set_base(v, 1, 0x80008000));
	EXPECT_EQ(0, vdpa_set_base(v, 1, 0x80058007));
	EXPECT_EQ(0, vdpa_set_base(v, 1, 0x80050003));
}

/* Every queue has the size that the largest may have, as VMMs take it that know of one size only */
FIXTURE(sizes) {
	struct vdpa v;
	struct net n;
	struct vq ctrl;
};

FIXTURE_SETUP(sizes)
{
	struct vdpa *v = &self->v;
	struct net *n = &self->n;
	uint16_t segs;

	OPEN_OR_SKIP(v);
	segs = v->vq_max > MAX_SLOTS ? v->vq_max / MAX_SLOTS : 1;
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_NET(n, net_init(n, v, _metadata->name, v->vq_max, segs, VQ_BUF_SIZE));
}

FIXTURE_TEARDOWN(sizes)
{
	if (self->ctrl.v)
		vq_free(&self->ctrl);
	net_free(&self->n);
	vdpa_close(&self->v);
}

/* A command that no device knows, of a class that there is none of: it answers all the same */
static void ask(struct __test_metadata *_metadata, struct vq *q)
{
	uint64_t end = deadline(NET_WAIT_MS);
	uint8_t *buf = vq_buf(q, 0);
	uint32_t len;
	int ret;

	buf[0] = 0xff;
	buf[1] = 0;
	buf[2] = 0xee;
	q->desc[0] = (struct vring_desc){
		.addr = htole64(vdpa_iova(q->v, buf)), .len = htole32(2),
		.flags = htole16(VRING_DESC_F_NEXT), .next = htole16(1),
	};
	q->desc[1] = (struct vring_desc){
		.addr = htole64(vdpa_iova(q->v, buf + 2)), .len = htole32(1),
		.flags = htole16(VRING_DESC_F_WRITE),
	};
	vq_publish(q, 0);
	vq_kick(q);
	while ((ret = vq_reap(q, &len)) == -EAGAIN) {
		ASSERT_FALSE(expired(end)) {
			TH_LOG("the control virtqueue does not answer");
		}
		sleep_ms(1);
	}
	ASSERT_EQ(0, ret);
	EXPECT_EQ(VIRTIO_NET_ERR, buf[2]);
}

TEST_F_TIMEOUT(sizes, one_for_all, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct net *n = &self->n;
	struct vhost_vring_state s = { };
	uint32_t most = 0;
	bool cvq = v->offered & BIT_ULL(VIRTIO_NET_F_CTRL_VQ);

	/* the control virtqueue, where the device has no more than one pair (virtio 1.3, 5.1.2) */
	if (cvq)
		ASSERT_EQ(0, vq_init(&self->ctrl, v, 2, v->vq_max, 2, 8, true));
	for (s.index = 0; vdpa_can(v, CAP_VRING_SIZE) && s.index < v->nvqs; s.index++) {
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_VRING_SIZE, &s));
		most = s.num > most ? s.num : most;
	}
	if (vdpa_can(v, CAP_VRING_SIZE))
		EXPECT_EQ(v->vq_max, most) {
			TH_LOG("the size of the largest queue is not the one that is named");
		}
	for (s.index = 0; s.index < v->nvqs; s.index++) {
		s.num = v->vq_max;
		EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_VRING_NUM, &s)) {
			TH_LOG("queue %u does not take %u", s.index, v->vq_max);
		}
	}
	ASSERT_EQ(0, vdpa_negotiate(v, WANTED | (cvq ? BIT_ULL(VIRTIO_NET_F_CTRL_VQ) : 0)));
	ASSERT_EQ(0, vq_setup(&n->rx, 0));
	ASSERT_EQ(0, vq_setup(&n->tx, 0));
	ASSERT_EQ(0, vq_enable(&n->rx, true));
	ASSERT_EQ(0, vq_enable(&n->tx, true));
	if (cvq) {
		ASSERT_EQ(0, vq_setup(&self->ctrl, 0));
		ASSERT_EQ(0, vq_enable(&self->ctrl, true));
	}
	ASSERT_NET(n, net_go(n));
	ASSERT_NET(n, net_probe(n));
	if (cvq)
		ask(_metadata, &self->ctrl);
	NEED(v, CAP_WIRE);
	ASSERT_NET(n, net_traffic(n, 2 * v->vq_max, 2 * v->vq_max));
}

TEST_HARNESS_MAIN
