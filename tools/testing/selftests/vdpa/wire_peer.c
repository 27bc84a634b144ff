// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The other side of the wire, for tests of a vDPA parent whose device sends
 * to a real link: answers what wire.h defines, on one interface (the bridge or
 * tap behind the device). It speaks when spoken to, and in no other ethertype.
 *
 *	wire_peer -i INTERFACE [--link-hook COMMAND]
 *
 * COMMAND is run by the shell as "COMMAND MAC down" and "COMMAND MAC up", MAC
 * being that of the device that asked; the link has changed when it returns.
 */
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "wire.h"

#define SESSIONS	16
#define SOCKET_BUFFER	(16 << 20)	/* a test's whole burst, while a hook runs */

struct session {
	uint8_t mac[WIRE_MAC_LEN];
	uint32_t id;
	uint64_t last_used;
	uint32_t last_request;
	uint8_t answer[WIRE_MIN_LEN];	/* to that request */
	uint32_t distinct, doubled, damaged;
	uint32_t links;		/* times that the link hook took the link down, and up again */
	uint8_t seen[WIRE_MAX_SEQ];
	/* what is still to be sent */
	uint32_t next_seq, to_send, gap_us;
	uint64_t next_us;
};

static struct session sessions[SESSIONS];
static const char *link_hook;
static uint8_t own_mac[WIRE_MAC_LEN];
static uint32_t longest;	/* frame that the interface takes */
static int sock;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

static void begin_session(struct session *s, const struct wire_hdr *h)
{
	memset(s, 0, sizeof(*s));
	memcpy(s->mac, h->src, WIRE_MAC_LEN);
	s->id = ntohl(h->session);
	s->last_used = now_us();
}

/*
 * The session of a frame: a known one, or a new one in the place of the oldest. A
 * hello is said before anything else, and a test that is repeated with its seed has
 * the session that it had before: that one begins anew.
 */
static struct session *find_session(const struct wire_hdr *h)
{
	struct session *s, *oldest = &sessions[0];

	for (s = sessions; s < sessions + SESSIONS; s++) {
		if (s->last_used && s->id == ntohl(h->session) &&
		    !memcmp(s->mac, h->src, WIRE_MAC_LEN))
			goto found;
		if (s->last_used < oldest->last_used)
			oldest = s;
	}
	s = oldest;
	begin_session(s, h);
found:
	if (ntohs(h->op) == WIRE_HELLO)
		begin_session(s, h);
	s->last_used = now_us();
	return s;
}

/*
 * A full queue of the interface is waited out, for a second: frames that this
 * side lost would be blamed on the device.
 */
static void send_frame(const void *frame, size_t len)
{
	uint64_t end = now_us() + 1000000;

	while (send(sock, frame, len, 0) < 0) {
		if ((errno != ENOBUFS && errno != EAGAIN && errno != EINTR) || now_us() > end) {
			fprintf(stderr, "wire_peer: a frame of %zu bytes is lost: %s\n", len,
				strerror(errno));
			return;
		}
		usleep(1000);
	}
}

static int set_link(const uint8_t *mac, const char *state)
{
	char cmd[1024];
	int ret;

	snprintf(cmd, sizeof(cmd), "%s %02x:%02x:%02x:%02x:%02x:%02x %s", link_hook, mac[0],
		 mac[1], mac[2], mac[3], mac[4], mac[5], state);
	ret = system(cmd);
	if (ret)
		fprintf(stderr, "wire_peer: '%s' ended with %d\n", cmd, ret);
	return ret;
}

static void answer(struct session *s, const struct wire_hdr *request,
		   const uint32_t args[WIRE_ARGS])
{
	struct wire_hdr *h = (struct wire_hdr *)s->answer;
	int i;

	memset(s->answer, 0, sizeof(s->answer));
	memcpy(h->dst, request->src, WIRE_MAC_LEN);
	memcpy(h->src, own_mac, WIRE_MAC_LEN);
	h->type = htons(WIRE_ETHERTYPE);
	h->op = htons(ntohs(request->op) | WIRE_ANSWER);
	h->len = htons(sizeof(s->answer));
	h->session = request->session;
	h->seq = request->seq;
	for (i = 0; i < WIRE_ARGS; i++)
		h->arg[i] = htonl(args[i]);
	s->last_request = ntohl(request->seq);
	send_frame(s->answer, sizeof(s->answer));
}

static void on_data(struct session *s, uint8_t *frame, size_t len)
{
	struct wire_hdr *h = (struct wire_hdr *)frame;
	uint32_t seq = ntohl(h->seq);

	if (seq >= WIRE_MAX_SEQ || !wire_intact(frame, len)) {
		s->damaged++;
		return;
	}
	if (s->seen[seq])
		s->doubled++;
	else
		s->distinct++;
	s->seen[seq] = 1;

	if (ntohl(h->arg[0]) & WIRE_F_ECHO) {
		memcpy(h->dst, h->src, WIRE_MAC_LEN);
		memcpy(h->src, own_mac, WIRE_MAC_LEN);
		send_frame(frame, ntohs(h->len));
	}
}

static void on_frame(uint8_t *frame, size_t len)
{
	struct wire_hdr *h = (struct wire_hdr *)frame;
	struct session *s = find_session(h);
	uint32_t args[WIRE_ARGS] = { };
	int failed;

	if (ntohs(h->op) == WIRE_DATA) {
		on_data(s, frame, len);
		return;
	}
	if (s->last_request && s->last_request == ntohl(h->seq)) {
		send_frame(s->answer, sizeof(s->answer));	/* the first one got lost */
		return;
	}

	switch (ntohs(h->op)) {
	case WIRE_HELLO:
		args[0] = link_hook ? WIRE_HAS_LINK : 0;
		args[1] = longest;
		answer(s, h, args);
		break;
	case WIRE_SEND:
		s->next_seq = ntohl(h->arg[0]);
		s->to_send = ntohl(h->arg[1]);
		s->gap_us = ntohl(h->arg[2]);
		s->next_us = now_us();
		answer(s, h, args);
		break;
	case WIRE_REPORT:
		args[0] = s->distinct;
		args[1] = s->doubled;
		args[2] = s->damaged;
		args[3] = s->to_send;
		args[4] = s->links;
		answer(s, h, args);
		break;
	case WIRE_LINK:
		answer(s, h, args);
		if (!link_hook)
			break;
		failed = set_link(s->mac, "down");
		usleep(ntohl(h->arg[0]) * 1000);
		failed |= set_link(s->mac, "up");
		s->links += !failed;
		break;
	}
}

/* Sends what is due, and returns how long nothing will be, in ms (-1: ever) */
static int send_due(void)
{
	struct session *s;
	int64_t wait, next = -1;

	for (s = sessions; s < sessions + SESSIONS; s++) {
		while (s->to_send && s->next_us <= now_us()) {
			uint8_t frame[WIRE_MAX_LEN];
			struct wire_hdr *h = (struct wire_hdr *)frame;

			memset(h, 0, sizeof(*h));
			memcpy(h->dst, s->mac, WIRE_MAC_LEN);
			memcpy(h->src, own_mac, WIRE_MAC_LEN);
			h->type = htons(WIRE_ETHERTYPE);
			h->op = htons(WIRE_DATA);
			h->session = htonl(s->id);
			h->seq = htonl(s->next_seq);
			h->len = htons(wire_len(s->id, s->next_seq));
			wire_fill(frame);
			send_frame(frame, ntohs(h->len));
			s->next_seq++;
			s->to_send--;
			s->next_us += s->gap_us;
		}
		if (!s->to_send)
			continue;
		wait = (int64_t)(s->next_us - now_us()) / 1000;
		if (wait < 0)
			wait = 0;
		if (next < 0 || wait < next)
			next = wait;
	}
	return next;
}

static int open_interface(const char *name)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int size = SOCKET_BUFFER;
	struct ifreq ifr = { };

	/*
	 * All protocols, not just the one: of a bridge's port, only these sockets
	 * see a frame before the bridge takes it.
	 */
	sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -1;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(sock, SIOCGIFHWADDR, &ifr))
		return -1;
	memcpy(own_mac, ifr.ifr_hwaddr.sa_data, WIRE_MAC_LEN);
	if (ioctl(sock, SIOCGIFMTU, &ifr))
		return -1;
	longest = ifr.ifr_mtu + ETH_HLEN;
	addr.sll_ifindex = if_nametoindex(name);
	if (bind(sock, (struct sockaddr *)&addr, sizeof(addr)))
		return -1;
	return setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "interface", required_argument, NULL, 'i' },
		{ "link-hook", required_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *usage = "usage: wire_peer -i INTERFACE [--link-hook COMMAND]\n";
	const char *interface = NULL;
	int opt;

	while ((opt = getopt_long(argc, argv, "i:h", options, NULL)) != -1) {
		switch (opt) {
		case 'i':
			interface = optarg;
			break;
		case 'l':
			link_hook = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (!interface || optind != argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (open_interface(interface)) {
		fprintf(stderr, "wire_peer: %s: %s\n", interface, strerror(errno));
		return 1;
	}

	for (;;) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		struct sockaddr_ll from;
		socklen_t fromlen = sizeof(from);
		static uint8_t frame[WIRE_LONG_LEN];
		ssize_t n;

		if (poll(&p, 1, send_due()) <= 0)
			continue;
		n = recvfrom(sock, frame, sizeof(frame), 0, (struct sockaddr *)&from, &fromlen);
		if (n < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			fprintf(stderr, "wire_peer: %s: %s\n", interface, strerror(errno));
			return 1;
		}
		if (from.sll_pkttype != PACKET_HOST && from.sll_pkttype != PACKET_BROADCAST)
			continue;
		if (n < (ssize_t)sizeof(struct wire_hdr) ||
		    ((struct wire_hdr *)frame)->type != htons(WIRE_ETHERTYPE))
			continue;
		on_frame(frame, n);
	}
}
