/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio-net driver small enough to be stopped anywhere: one queue pair, its
 * two rings, and an account of every frame sent and received, kept so that a
 * frame lost, doubled or damaged is seen whatever happened in between.
 */
#ifndef NET_H
#define NET_H

#include "vring.h"
#include "wire.h"

#define NET_WAIT_MS	15000	/* nothing happened for so long: nothing will */

enum wire_kind {
	WIRE_NONE,		/* nothing comes back */
	WIRE_LOOP,		/* what is sent to the device's own MAC */
	WIRE_PEER,		/* a wire_peer answers */
};

struct net {
	struct vdpa *v;
	struct vq rx, tx;
	enum wire_kind wire;
	bool wire_has_link;
	uint8_t mac[WIRE_MAC_LEN];
	uint8_t peer[WIRE_MAC_LEN];
	uint64_t rng;
	uint32_t session;

	uint32_t sent;		/* data frames; the next one's seq */
	uint32_t got;		/* of them, back again */
	uint32_t lost;		/* of them, known never to come back */
	uint32_t unsent;	/* of those lost: they were never on the wire */
	uint32_t burst;		/* distinct data frames that the peer sent by itself */
	uint32_t doubled;
	uint32_t damaged;
	uint8_t *seen;		/* by seq */

	uint32_t request;	/* seq of the last request to the peer */
	bool answered;
	uint32_t answer[WIRE_ARGS];
	const char *error;	/* what made the last call fail */
};

int net_init(struct net *n, struct vdpa *v, const char *test, uint16_t size, uint16_t segs,
	     uint32_t rx_buf);
void net_free(struct net *n);
int net_setup(struct net *n, uint64_t features, uint16_t rx_base, uint16_t tx_base);
int net_go(struct net *n);
int net_start(struct net *n, uint64_t features, uint16_t rx_base, uint16_t tx_base);
int net_probe(struct net *n);

void net_fill_rx(struct net *n);
int net_poll_tx(struct net *n);
int net_poll(struct net *n);
int net_wait(struct net *n, uint64_t end);
int net_send_data(struct net *n);
int net_traffic(struct net *n, uint32_t sent, uint32_t got);
int net_request(struct net *n, enum wire_op op, uint32_t a0, uint32_t a1, uint32_t a2);
uint32_t net_room(const struct net *n);

#endif /* NET_H */
