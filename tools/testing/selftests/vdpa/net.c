// SPDX-License-Identifier: GPL-2.0-or-later
/* A virtio-net driver small enough to be stopped anywhere; see net.h */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net.h"

#define HDR_LEN		sizeof(struct virtio_net_hdr_v1)	/* VIRTIO_F_VERSION_1 */
#define REQUEST_MS	2000	/* then it is sent again */
#define PROBE_TRIES	3

static int fail(struct net *n, int err, const char *what)
{
	n->error = what;
	return err;
}

/* Rings of @size descriptors, @segs to a buffer; receive buffers of @rx_buf bytes */
int net_init(struct net *n, struct vdpa *v, const char *test, uint16_t size, uint16_t segs,
	     uint32_t rx_buf)
{
	int ret;

	memset(n, 0, sizeof(*n));
	n->v = v;
	rng_init(&n->rng, test_seed(), test);
	n->session = rng(&n->rng) | 1;
	n->seen = calloc(WIRE_MAX_SEQ, 1);
	if (!n->seen)
		return -ENOMEM;
	ret = vdpa_get_config(v, offsetof(struct virtio_net_config, mac), n->mac, sizeof(n->mac));
	if (ret)
		return fail(n, ret, "the MAC cannot be read");
	ret = vq_init(&n->rx, v, 0, size, segs, rx_buf, true);
	if (ret)
		return ret;
	return vq_init(&n->tx, v, 1, size, segs, VQ_BUF_SIZE, false);
}

void net_free(struct net *n)
{
	if (n->rx.v)
		vq_free(&n->rx);
	if (n->tx.v)
		vq_free(&n->tx);
	free(n->seen);
}

/* All that comes before DRIVER_OK: features, rings, enabling them */
int net_setup(struct net *n, uint64_t features, uint16_t rx_base, uint16_t tx_base)
{
	int ret;

	ret = vdpa_negotiate(n->v, features | BIT_ULL(VIRTIO_F_VERSION_1) |
			     BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_NET_F_MAC) |
			     BIT_ULL(VIRTIO_NET_F_STATUS));
	if (ret)
		return fail(n, ret, "the features are not accepted");
	ret = vq_setup(&n->rx, rx_base);
	if (!ret)
		ret = vq_setup(&n->tx, tx_base);
	if (!ret)
		ret = vq_enable(&n->rx, true);
	if (!ret)
		ret = vq_enable(&n->tx, true);
	return ret ? fail(n, ret, "the rings are not accepted") : 0;
}

/* DRIVER_OK, and both rings looked at */
int net_go(struct net *n)
{
	int ret;

	ret = vdpa_set_status(n->v, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			      VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	if (ret)
		return fail(n, ret, "DRIVER_OK is refused");
	if (!(vdpa_get_status(n->v) & VIRTIO_CONFIG_S_DRIVER_OK))
		return fail(n, -EPROTO, "DRIVER_OK does not stay set");
	net_fill_rx(n);
	vq_kick(&n->rx);
	vq_kick(&n->tx);
	return 0;
}

int net_start(struct net *n, uint64_t features, uint16_t rx_base, uint16_t tx_base)
{
	int ret = net_setup(n, features, rx_base, tx_base);

	return ret ? ret : net_go(n);
}

void net_fill_rx(struct net *n)
{
	int slot;

	while ((slot = vq_free_slot(&n->rx)) >= 0)
		vq_post(&n->rx, slot, n->rx.buf_size);
}

static int send_frame(struct net *n, const struct wire_hdr *h)
{
	int slot = vq_free_slot(&n->tx);
	uint8_t *buf;

	if (slot < 0)
		return -EAGAIN;
	buf = vq_buf(&n->tx, slot);
	memset(buf, 0, HDR_LEN);
	memcpy(buf + HDR_LEN, h, sizeof(*h));
	wire_fill(buf + HDR_LEN);
	vq_post(&n->tx, slot, HDR_LEN + ntohs(h->len));
	return 0;
}

static void make_hdr(struct net *n, struct wire_hdr *h, enum wire_op op, uint32_t seq)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->dst, n->peer, WIRE_MAC_LEN);
	memcpy(h->src, n->mac, WIRE_MAC_LEN);
	h->type = htons(WIRE_ETHERTYPE);
	h->op = htons(op);
	h->session = htonl(n->session);
	h->seq = htonl(seq);
	h->len = htons(op == WIRE_DATA ? wire_len(n->session, seq) : WIRE_MIN_LEN);
}

/* How many data frames may be under way: none of them must want for a buffer */
uint32_t net_room(const struct net *n)
{
	uint32_t per_frame = (WIRE_MAX_LEN + HDR_LEN + n->rx.buf_size - 1) / n->rx.buf_size;

	return n->rx.slots / per_frame;
}

/* The next data frame, to be sent back; the caller kicks */
int net_send_data(struct net *n)
{
	struct wire_hdr h;
	int ret;

	make_hdr(n, &h, WIRE_DATA, n->sent);
	h.arg[0] = htonl(WIRE_F_ECHO);
	ret = send_frame(n, &h);
	if (!ret)
		n->sent++;
	return ret;
}

static void on_frame(struct net *n, const uint8_t *frame, uint32_t len)
{
	const struct wire_hdr *h = (const struct wire_hdr *)frame;
	uint32_t seq;
	int i;

	/* others may be heard on a real wire: they are none of this test's business */
	if (len < sizeof(*h) || ntohs(h->type) != WIRE_ETHERTYPE || ntohl(h->session) != n->session)
		return;
	seq = ntohl(h->seq);

	switch (ntohs(h->op)) {
	case WIRE_HELLO:		/* one's own */
		n->wire = WIRE_LOOP;
		memcpy(n->peer, n->mac, WIRE_MAC_LEN);
		break;
	case WIRE_HELLO | WIRE_ANSWER:
		n->wire = WIRE_PEER;
		memcpy(n->peer, h->src, WIRE_MAC_LEN);
		break;
	case WIRE_DATA:
		if (seq >= WIRE_MAX_SEQ || !wire_intact(frame, len)) {
			n->damaged++;
		} else if (n->seen[seq]) {
			n->doubled++;
		} else {
			n->seen[seq] = 1;
			if (seq < WIRE_BURST_SEQ)
				n->got++;
			else
				n->burst++;
		}
		return;
	}
	if (seq == n->request && ntohs(h->op) & WIRE_ANSWER) {
		n->answered = true;
		for (i = 0; i < WIRE_ARGS; i++)
			n->answer[i] = ntohl(h->arg[i]);
	}
}

/* One received frame out of as many buffers as its header says; -EAGAIN: none */
static int receive(struct net *n)
{
	uint8_t frame[WIRE_MAX_LEN + HDR_LEN + VQ_BUF_SIZE];
	uint32_t len, total = 0, buffers = 1, i;
	const struct virtio_net_hdr_v1 *hdr;
	int slot;

	for (i = 0; i < buffers; i++) {
		slot = vq_reap(&n->rx, &len);
		if (slot == -EAGAIN && i)	/* merged ones are made used together */
			return fail(n, -EPROTO, "a merged frame is incomplete");
		if (slot < 0)
			return slot == -EAGAIN ? slot :
			       fail(n, slot, "the used ring names what was not given");
		if (len > n->rx.buf_size || total + len > sizeof(frame) || (!i && len < HDR_LEN))
			return fail(n, -EPROTO, "the used length is impossible");
		memcpy(frame + total, vq_buf(&n->rx, slot), len);
		total += len;
		hdr = (const struct virtio_net_hdr_v1 *)frame;
		if (!i && n->v->features & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF))
			buffers = le16toh(hdr->num_buffers);
		if (!buffers || buffers > n->rx.slots)
			return fail(n, -EPROTO, "the number of merged buffers is impossible");
		vq_post(&n->rx, slot, n->rx.buf_size);
	}
	on_frame(n, frame + HDR_LEN, total - HDR_LEN);
	return 0;
}

/* Takes back what the device has sent */
int net_poll_tx(struct net *n)
{
	int ret;

	do {
		ret = vq_reap(&n->tx, NULL);
	} while (ret >= 0);
	return ret == -EAGAIN ? 0 : fail(n, ret, "the used ring names what was not given");
}

/* Takes all that the device has used, and gives the receive buffers back */
int net_poll(struct net *n)
{
	bool kick = false;
	int ret;

	ret = net_poll_tx(n);
	if (ret)
		return ret;

	while (!(ret = receive(n)))
		kick = true;
	if (kick)
		vq_kick(&n->rx);
	if (ret != -EAGAIN)
		return ret;
	if (n->damaged)
		return fail(n, -EIO, "a frame is damaged");
	if (n->doubled)
		return fail(n, -EIO, "a frame came twice");
	return 0;
}

/*
 * Waits for an interrupt, and for nothing else: a device that uses a buffer
 * and says nothing runs into the deadline.
 */
int net_wait(struct net *n, uint64_t end)
{
	struct pollfd p[2] = {
		{ .fd = n->rx.call, .events = POLLIN },
		{ .fd = n->tx.call, .events = POLLIN },
	};

	while (!poll(p, 2, 100))
		if (expired(end))
			return fail(n, -ETIMEDOUT,
				    vq_device_used(&n->rx) != n->rx.used_idx ||
				    vq_device_used(&n->tx) != n->tx.used_idx ?
				    "buffers were used without an interrupt" :
				    "nothing more arrives");
	/* first the events, then the rings: what comes in between is another event */
	if (p[0].revents)
		vq_take_calls(&n->rx);
	if (p[1].revents)
		vq_take_calls(&n->tx);
	return net_poll(n);
}

/*
 * Goes on sending until @sent frames have been sent in all, and receiving
 * until @got have come; whatever is under way then stays under way.
 */
int net_traffic(struct net *n, uint32_t sent, uint32_t got)
{
	uint64_t end = deadline(NET_WAIT_MS);
	uint32_t before, room = net_room(n);
	int ret;

	while (n->sent < sent || n->got < got) {
		before = n->sent;
		while (n->sent < sent && n->sent - n->got - n->lost < room &&
		       !net_send_data(n))
			;
		if (n->sent != before) {
			vq_kick(&n->tx);
			if (n->sent >= sent && n->got >= got)
				break;
		}
		before = n->got;
		ret = net_wait(n, end);
		if (ret)
			return ret;
		if (n->got != before)
			end = deadline(NET_WAIT_MS);
		else if (expired(end))
			return fail(n, -ETIMEDOUT, "interrupts, but nothing more arrives");
	}
	return 0;
}

/*
 * Asks the peer, and waits for the answer. Frames keep their order on the wire,
 * so that all data sent back before the answer has been received with it.
 */
int net_request(struct net *n, enum wire_op op, uint32_t a0, uint32_t a1, uint32_t a2)
{
	uint64_t end = deadline(NET_WAIT_MS), again = 0;
	struct wire_hdr h;
	int ret;

	n->request++;
	n->answered = false;
	make_hdr(n, &h, op, n->request);
	h.arg[0] = htonl(a0);
	h.arg[1] = htonl(a1);
	h.arg[2] = htonl(a2);
	while (!n->answered) {
		if (expired(end))
			return fail(n, -ETIMEDOUT, "the peer does not answer");
		if (expired(again) && !send_frame(n, &h)) {
			vq_kick(&n->tx);
			again = deadline(REQUEST_MS);
		}
		ret = net_wait(n, again < end ? again : end);
		if (ret && ret != -ETIMEDOUT)
			return ret;
	}
	return 0;
}

/* Finds out what is on the wire; that nothing is, is no error */
int net_probe(struct net *n)
{
	struct wire_hdr h;
	uint64_t end;
	int i, ret;

	memset(n->peer, 0xff, sizeof(n->peer));
	n->wire = WIRE_NONE;
	/* on a busy host the answer to the first try may be late: that to any of them will do */
	n->request++;
	for (i = 0; i < PROBE_TRIES && n->wire == WIRE_NONE; i++) {
		n->answered = false;
		make_hdr(n, &h, WIRE_HELLO, n->request);
		if (!send_frame(n, &h))
			vq_kick(&n->tx);
		end = deadline(REQUEST_MS);
		while (n->wire == WIRE_NONE && !expired(end)) {
			ret = net_wait(n, end);
			if (ret && ret != -ETIMEDOUT)
				return ret;
		}
	}
	if (n->wire != WIRE_NONE)
		n->v->caps |= 1 << CAP_WIRE;
	if (n->wire == WIRE_PEER)
		n->v->caps |= 1 << CAP_PEER;
	if (n->wire == WIRE_PEER && n->answer[0] & WIRE_HAS_LINK)
		n->v->caps |= 1 << CAP_LINK;
	return 0;
}
