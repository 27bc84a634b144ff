// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * L0's peer of the agent: peer ADDRESS L2 RATE
 *
 * Waits for L2's stream, then sends L2 its own at RATE packets per second. Prints
 * a line of key=value pairs each second, and one for each gap that is longer than
 * GAP_NS. SIGTERM: it sends no more, waits until
 * what is under way has arrived, prints a last line and ends.
 *
 * out is the direction L0 to L2, in the direction L2 to L0. L2's count of what it has
 * got comes back in L2's own packets.
 */
#include "stream.h"

#define QUIET_NS		(2 * NSEC_PER_SEC)
#define LINE_NS			NSEC_PER_SEC
#define GAP_NS			(NSEC_PER_SEC / 4)

static volatile sig_atomic_t stop;

static void on_signal(int signo)
{
	(void)signo;
	stop = 1;
}

struct progress {
	uint64_t received;	/* L2's count when it last moved */
	uint64_t at_ns;
	uint64_t gap_ns;
	uint64_t gap_at_ns;
	uint64_t rtt_max_ns;
};

/* When a gap ended, in ms from the beginning */
static unsigned long long when_ms(uint64_t at_ns, uint64_t begin_ns)
{
	return at_ns ? (at_ns - begin_ns) / 1000000 : 0;
}

static void gap_line(const char *direction, uint64_t ns, uint64_t begin_ns)
{
	if (ns > GAP_NS)
		printf("gap direction=%s ms=%llu at_ms=%llu\n", direction,
		       (unsigned long long)ns / 1000000, when_ms(now_ns(), begin_ns));
}

/* The longest time in which L2 was not seen to get anything */
static void progress_note(struct progress *g, const struct report *l2, uint64_t begin_ns)
{
	uint64_t now = now_ns();

	if (l2->received == g->received)
		return;
	if (g->at_ns)
		gap_line("out", now - g->at_ns, begin_ns);
	if (g->at_ns && now - g->at_ns > g->gap_ns) {
		g->gap_ns = now - g->at_ns;
		g->gap_at_ns = now;
	}
	g->received = l2->received;
	g->at_ns = now;
}

static void line(const char *what, uint64_t begin_ns, const struct sender *s,
		 const struct receiver *r, const struct report *l2, const struct progress *g)
{
	/* what L2 sent before we listened is no loss */
	uint64_t expected = r->sessions ? r->highest - r->first + 1 : 0;

	printf("%s seconds=%.1f out_sent=%llu out_received=%llu out_lost=%lld out_duplicate=%llu out_late=%llu out_corrupt=%llu out_gap_ms=%llu out_gap_at_ms=%llu in_sent=%llu in_received=%llu in_lost=%llu in_duplicate=%llu in_late=%llu in_corrupt=%llu in_gap_ms=%llu in_gap_at_ms=%llu in_sessions=%llu rtt_max_ms=%llu pages_checked=%llu pages_bad=%llu passes=%llu\n",
	       what, (double)(now_ns() - begin_ns) / NSEC_PER_SEC,
	       (unsigned long long)s->sent, (unsigned long long)l2->received,
	       (long long)(s->sent - l2->received), (unsigned long long)l2->duplicate,
	       (unsigned long long)l2->late, (unsigned long long)l2->corrupt,
	       (unsigned long long)g->gap_ns / 1000000, when_ms(g->gap_at_ns, begin_ns),
	       (unsigned long long)expected, (unsigned long long)r->received,
	       (unsigned long long)(expected - r->received), (unsigned long long)r->duplicate,
	       (unsigned long long)r->late, (unsigned long long)r->corrupt,
	       (unsigned long long)r->gap_ns / 1000000, when_ms(r->gap_at_ns, begin_ns),
	       (unsigned long long)r->sessions,
	       (unsigned long long)g->rtt_max_ns / 1000000,
	       (unsigned long long)l2->pages_checked, (unsigned long long)l2->pages_bad,
	       (unsigned long long)l2->passes);
}

int main(int argc, char **argv)
{
	static struct receiver r;
	struct sigaction action = { .sa_handler = on_signal };
	struct report l2 = {}, mine = {}, got = {};
	struct progress g = {};
	uint64_t begin_ns, line_ns, out_session = 0;
	uint64_t stop_ns = 0;
	struct sender s;
	uint8_t packet[2048];
	struct header h;
	ssize_t length;

	if (argc != 4) {
		fprintf(stderr, "usage: peer ADDRESS L2 RATE\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sender_init(&s, stream_socket(argv[1]), argv[2], (unsigned int)strtoul(argv[3], NULL, 0));
	begin_ns = now_ns();
	line_ns = begin_ns + LINE_NS;

	for (;;) {
		struct pollfd p = { .fd = s.fd, .events = POLLIN };
		uint64_t now = now_ns();

		while ((length = recv(s.fd, packet, sizeof(packet), 0)) >= 0) {
			uint64_t last_ns = r.last_ns;

			if (!receiver_packet(&r, packet, (size_t)length, &h, &got))
				continue;
			if (last_ns)
				gap_line("in", r.last_ns - last_ns, begin_ns);
			if (h.echo_ns > begin_ns && now_ns() > h.echo_ns + h.hold_ns &&
			    now_ns() - h.echo_ns - h.hold_ns > g.rtt_max_ns)
				g.rtt_max_ns = now_ns() - h.echo_ns - h.hold_ns;
			/* until L2 has seen our session its counts are of another one */
			if (h.echo_ns > begin_ns)
				out_session = s.session;
			if (out_session && pattern_start((size_t)length) > sizeof(h)) {
				l2 = got;
				progress_note(&g, &l2, begin_ns);
			}
		}
		if (stop && !stop_ns)
			stop_ns = now;
		if (stop_ns && (now - stop_ns > QUIET_NS || (!r.sessions)))
			break;
		if (r.sessions && !stop_ns)
			sender_run(&s, &r, &mine);
		else
			s.next_ns = now + s.interval_ns;
		if (now >= line_ns) {
			line_ns += LINE_NS;
			line("now", begin_ns, &s, &r, &l2, &g);
		}
		if (s.next_ns > now)
			poll(&p, 1, (int)((s.next_ns - now) / 1000000));
	}
	line("end", begin_ns, &s, &r, &l2, &g);
	return 0;
}
