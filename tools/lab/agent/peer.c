// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * L0's peer of the agent: peer ADDRESS L2 RATE [STEP]
 *
 * Waits for L2's stream, then sends L2 its own at RATE packets per second, and a quarter
 * as many that L2 holds back before it looks at them. Prints a line of key=value pairs each
 * second, one for each gap that is longer than GAP_NS, and one for each packet of L2 that
 * comes late. SIGTERM: it sends no more, waits until L2 tells that the last packet has arrived,
 * for ARRIVE_NS at most, prints a line for each run of numbers that L2 has not got, then a last
 * line, and ends.
 *
 * With STEP, in ms, it also prints a line for each time of that length: the packets that have
 * come in it in both directions, and their mean round trip. A gap is then one that is longer
 * than STEP. The first line says when the peer has begun, by the clock that traces have.
 *
 * An L2 that is slow on a busy host has its packets wait, in a tap or in its socket. What waits
 * there is lost at some later time, for another reason than the one that is looked for. So no more
 * than a second's worth of packets is under way. Where that many are, L2 gets one now and then, as
 * all of them may be lost.
 *
 * out is the direction L0 to L2, in the direction L2 to L0. L2's count of what it has
 * got comes back in L2's own packets.
 */
#include "receiver.h"
#include "sender.h"

/* what may still come of packets that were overtaken, and how long a busy host may hold L2 up */
#define QUIET_NS		(2 * NSEC_PER_SEC)
#define ARRIVE_NS		(60 * NSEC_PER_SEC)
#define LINE_NS			NSEC_PER_SEC
#define GAP_NS			(NSEC_PER_SEC / 4)
#define FEW_NS			(NSEC_PER_SEC / 10)
#define LEAST_UNDER_WAY		16

static volatile sig_atomic_t stop;

static void on_signal(int signo)
{
	(void)signo;
	stop = 1;
}

/* What has come in one step */
struct step {
	uint64_t length_ns;	/* 0 if nobody wants to know */
	uint64_t next_ns;
	uint64_t out;		/* L2's count at its beginning */
	uint64_t in;
	uint64_t rtt_ns;	/* of all of them together */
	uint64_t rtts;
};

struct progress {
	uint64_t least_gap_ns;	/* a shorter one is none */
	uint64_t received;	/* L2's count when it last moved */
	uint64_t at_ns;
	uint64_t gap_ns;
	uint64_t gap_at_ns;
	uint64_t rtt_max_ns;
};

/* L2 tells of one of the runs of numbers that it has not got at a time */
static void lost_note(struct run *lost, const struct sender *s, const struct report *l2)
{
	if (l2->lost_runs && l2->run.to < s->sent)
		lost[l2->run_index % STREAM_RUNS] = l2->run;
}

static void lost_lines(const struct run *lost, const struct report *l2)
{
	for (uint64_t i = 0; i < l2->lost_runs && i < STREAM_RUNS; i++) {
		printf("lost");
		print_pair("from", lost[i].from);
		print_pair("to", lost[i].to);
		printf("\n");
	}
}

/* When a gap ended, in ms from the beginning */
static uint64_t when_ms(uint64_t at_ns, uint64_t begin_ns)
{
	return at_ns ? (at_ns - begin_ns) / 1000000 : 0;
}

static void gap_line(const char *direction, uint64_t ns, uint64_t begin_ns, uint64_t least_ns)
{
	if (ns > least_ns)
		printf("gap direction=%s ms=%llu at_ms=%llu\n", direction,
		       (unsigned long long)ns / 1000000,
		       (unsigned long long)when_ms(now_ns(), begin_ns));
}

/* The longest time in which L2 was not seen to get anything */
static void progress_note(struct progress *g, const struct report *l2, uint64_t begin_ns)
{
	uint64_t now = now_ns();

	if (l2->received == g->received)
		return;
	if (g->at_ns)
		gap_line("out", now - g->at_ns, begin_ns, g->least_gap_ns);
	if (g->at_ns && now - g->at_ns > g->gap_ns) {
		g->gap_ns = now - g->at_ns;
		g->gap_at_ns = now;
	}
	g->received = l2->received;
	g->at_ns = now;
}

static void rtt_note(struct progress *g, struct step *step, uint64_t ns)
{
	if (ns > g->rtt_max_ns)
		g->rtt_max_ns = ns;
	step->rtt_ns += ns;
	step->rtts++;
}

/* The steps that are over; one in which this process did not run is empty */
static void step_lines(struct step *step, uint64_t begin_ns, uint64_t in, uint64_t out)
{
	while (step->length_ns && now_ns() >= step->next_ns) {
		printf("step");
		print_pair("at_ms", when_ms(step->next_ns, begin_ns));
		print_pair("in", in - step->in);
		print_pair("out", out - step->out);
		print_pair("rtt_us", step->rtts ? step->rtt_ns / step->rtts / 1000 : 0);
		printf("\n");
		step->in = in;
		step->out = out;
		step->rtt_ns = 0;
		step->rtts = 0;
		step->next_ns += step->length_ns;
	}
}

static void line(const char *what, uint64_t begin_ns, const struct sender *s,
		 const struct receiver *r, const struct report *l2, const struct progress *g)
{
	/* what L2 sent before we listened is no loss */
	uint64_t expected = r->sessions ? r->highest - r->first + 1 : 0;

	printf("%s seconds=%.1f", what, (double)(now_ns() - begin_ns) / NSEC_PER_SEC);
	print_pair("out_sent", s->sent);
	print_pair("out_received", l2->received);
	print_pair("out_highest", l2->highest);
	print_pair("out_lost", s->sent - l2->received);
	print_pair("out_lost_runs", l2->lost_runs);
	print_pair("out_duplicate", l2->duplicate);
	print_pair("out_late", l2->late);
	print_pair("out_corrupt", l2->corrupt);
	print_pair("out_gap_ms", g->gap_ns / 1000000);
	print_pair("out_gap_at_ms", when_ms(g->gap_at_ns, begin_ns));
	print_pair("in_sent", expected);
	print_pair("in_received", r->received);
	print_pair("in_lost", expected - r->received);
	print_pair("in_lost_runs", r->lost_runs);
	print_pair("in_duplicate", r->duplicate);
	print_pair("in_late", r->late);
	print_pair("in_corrupt", r->corrupt);
	print_pair("in_gap_ms", r->gap_ns / 1000000);
	print_pair("in_gap_at_ms", when_ms(r->gap_at_ns, begin_ns));
	print_pair("in_sessions", r->sessions);
	print_pair("rtt_max_ms", g->rtt_max_ns / 1000000);
	print_pair("pages_checked", l2->pages_checked);
	print_pair("pages_bad", l2->pages_bad);
	print_pair("passes", l2->passes);
	print_pair("held", l2->held);
	print_pair("held_bad", l2->held_bad);
	print_pair("held_late", l2->held_late);
	print_pair("held_until_ms", when_ms(l2->held_until_ns, begin_ns));
	printf("\n");
}

int main(int argc, char **argv)
{
	static struct receiver r;
	static struct run lost[STREAM_RUNS];
	struct sigaction action = { .sa_handler = on_signal };
	struct report l2 = {}, mine = {}, got = {};
	struct progress g = { .least_gap_ns = GAP_NS };
	struct step step = {};
	struct timespec clock;
	uint64_t begin_ns, line_ns, out_session = 0;
	uint64_t stop_ns = 0, few_ns = 0;
	struct sender s, held;
	int no_checksum = 1;
	unsigned int rate, under_way;
	uint8_t packet[2048];
	struct header h;
	ssize_t length;

	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: peer ADDRESS L2 RATE [STEP]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	rate = (unsigned int)strtoul(argv[3], NULL, 0);
	under_way = rate > LEAST_UNDER_WAY ? rate : LEAST_UNDER_WAY;
	sender_init(&s, stream_socket(argv[1], STREAM_PORT, STREAM_ROOM), argv[2], STREAM_PORT,
		    rate);
	sender_init(&held, stream_socket(argv[1], HELD_PORT, STREAM_ROOM), argv[2], HELD_PORT,
		    rate > 4 ? rate / 4 : 1);
	held.length = HELD_LENGTH;
	/* a damaged packet is to be seen, not to be dropped by L2's kernel */
	if (setsockopt(held.fd, SOL_SOCKET, SO_NO_CHECK, &no_checksum, sizeof(no_checksum))) {
		perror("SO_NO_CHECK");
		return 1;
	}
	begin_ns = now_ns();
	line_ns = begin_ns + LINE_NS;
	if (argc == 5) {
		step.length_ns = strtoull(argv[4], NULL, 0) * 1000000;
		if (!step.length_ns) {
			fprintf(stderr, "peer: bad STEP %s\n", argv[4]);
			return 2;
		}
		step.next_ns = begin_ns + step.length_ns;
		g.least_gap_ns = step.length_ns;
		clock_gettime(CLOCK_REALTIME, &clock);
		printf("begin");
		print_pair("unix_us", (uint64_t)clock.tv_sec * 1000000 +
			   (uint64_t)clock.tv_nsec / 1000);
		printf("\n");
	}

	for (;;) {
		struct pollfd p = { .fd = s.fd, .events = POLLIN };
		uint64_t now = now_ns(), wait_ns;

		while ((length = recv(s.fd, packet, sizeof(packet), 0)) >= 0) {
			uint64_t last_ns = r.last_ns, late = r.late;

			if (!receiver_packet(&r, packet, (size_t)length, &h, &got))
				continue;
			if (r.late != late)
				printf("late number=%llu highest=%llu at_ms=%llu\n",
				       (unsigned long long)h.number, (unsigned long long)r.highest,
				       (unsigned long long)when_ms(now_ns(), begin_ns));
			if (last_ns)
				gap_line("in", r.last_ns - last_ns, begin_ns, g.least_gap_ns);
			if (h.echo_ns > begin_ns && now_ns() > h.echo_ns + h.hold_ns)
				rtt_note(&g, &step, now_ns() - h.echo_ns - h.hold_ns);
			/* until L2 has seen our session its counts are of another one */
			if (h.echo_ns > begin_ns)
				out_session = s.session;
			if (out_session && pattern_start((size_t)length) > sizeof(h)) {
				l2 = got;
				progress_note(&g, &l2, begin_ns);
				lost_note(lost, &s, &l2);
			}
		}
		step_lines(&step, begin_ns, r.received, l2.received);
		if (stop && !stop_ns)
			stop_ns = now;
		wait_ns = l2.highest + 1 < s.sent ? ARRIVE_NS : QUIET_NS;
		if (stop_ns && (now - stop_ns > wait_ns || !r.sessions))
			break;
		if (r.sessions && !stop_ns && s.sent - l2.highest < under_way) {
			sender_run(&s, &r, &mine);
			sender_run(&held, &r, &mine);
		} else if (r.sessions && !stop_ns && now >= few_ns) {
			few_ns = now + FEW_NS;
			sender_one(&s, &r, &mine);
		} else {
			s.next_ns = now + s.interval_ns;
			held.next_ns = now + held.interval_ns;
		}
		if (now >= line_ns) {
			line_ns += LINE_NS;
			line("now", begin_ns, &s, &r, &l2, &g);
		}
		if (s.next_ns > now)
			poll(&p, 1, (int)((s.next_ns - now) / 1000000));
	}
	lost_lines(lost, &l2);
	line("end", begin_ns, &s, &r, &l2, &g);
	return 0;
}
