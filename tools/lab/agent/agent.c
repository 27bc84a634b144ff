// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * L2's agent: agent PEER RATE MIB PAGES; or agent nic and agent device, of which nic.h and device.h
 * tell
 *
 * Sends PEER a numbered stream at RATE packets per second, accounts for the
 * stream that PEER sends, and keeps MIB MiB of memory under a pattern that
 * differs for each word and pass: PAGES pages per second are checked and
 * written anew. A page that a migration loses or mixes up fails its next check.
 *
 * Those pages are written by L2's CPU. What the device writes mostly is read at once
 * and not missed afterwards. So PEER sends a second stream, whose packets lie in the
 * socket, which means: in the buffers that the device has written, for HELD_NS.
 */
#include "device.h"
#include "nic.h"
#include "receiver.h"
#include "sender.h"

#include <sys/mman.h>

#define PAGE_WORDS		512u
#define RECEIVE_BATCH		16
/* not often: a line on the serial port of a nested guest takes half a second */
#define REPORT_NS		(10 * NSEC_PER_SEC)
#define HELD_NS			((int64_t)(10 * NSEC_PER_SEC))
/*
 * Twice what is held at 50 packets per second; the kernel takes twice that again in memory.
 * With more, an L2 that is small and has not run for a while runs out of memory.
 */
#define HELD_ROOM		(8 << 20)
#define PEEK_NS			(NSEC_PER_SEC / 50)
/* to wake up for a page or two each time would cost a slow host more than the pages do */
#define WAIT_NS			(NSEC_PER_SEC / 10)

struct memory {
	uint64_t *words;
	uint64_t pages;
	uint64_t next;		/* the page to be checked next */
	uint64_t pass;		/* pages before next hold this pass, the others the one before */
	uint64_t checked;
	uint64_t bad;
	uint64_t rate;
	uint64_t due_ns;
};

static uint64_t word(uint64_t page, uint64_t pass, unsigned int i)
{
	return mix((pass << 40 ^ page << 9) + i);
}

static void memory_page(struct memory *m)
{
	uint64_t *at = m->words + m->next * PAGE_WORDS;
	unsigned int i;

	/* in the first pass there is nothing to check yet */
	if (m->pass > 0) {
		for (i = 0; i < PAGE_WORDS; i++) {
			if (at[i] == word(m->next, m->pass - 1, i))
				continue;
			m->bad++;
			printf("agent: page %llu of pass %llu, word %u: want %#llx, have %#llx\n",
			       (unsigned long long)m->next, (unsigned long long)m->pass - 1, i,
			       (unsigned long long)word(m->next, m->pass - 1, i),
			       (unsigned long long)at[i]);
			break;
		}
		m->checked++;
	}
	for (i = 0; i < PAGE_WORDS; i++)
		at[i] = word(m->next, m->pass, i);
	if (++m->next == m->pages) {
		m->next = 0;
		m->pass++;
	}
}

static void memory_run(struct memory *m)
{
	uint64_t now = now_ns();

	/* what was due longer ago is left out: on a starved host the stream must go on beside it */
	if (now > m->due_ns + 2 * WAIT_NS)
		m->due_ns = now;
	for (; m->due_ns <= now; m->due_ns += NSEC_PER_SEC / m->rate)
		memory_page(m);
}

struct held {
	int fd;
	struct receiver r;
	uint64_t session_before;
	uint64_t stale;		/* of that session, after one of this */
	uint64_t until_ns;	/* when the last one that was looked at was sent */
};

/*
 * Look at the packets that were held for long enough, by the sender's clock as the other
 * stream tells it. One whose time makes no sense was damaged: it is looked at, too.
 */
static void held_run(struct held *held, const struct receiver *stream)
{
	uint8_t packet[HELD_LENGTH + 1];
	struct report unused;
	struct header h;
	ssize_t length;

	while (recv(held->fd, &h, sizeof(h), MSG_PEEK) == sizeof(h)) {
		int64_t age = (int64_t)(stream->last_sent_ns - h.sent_ns);
		uint64_t session = held->r.session;

		if (age > -HELD_NS && age < HELD_NS)
			return;
		length = recv(held->fd, packet, sizeof(packet), 0);
		if (length < 0)
			return;
		if (h.session == held->session_before && session) {
			held->stale++;
			continue;
		}
		if (receiver_packet(&held->r, packet, (size_t)length, &h, &unused))
			held->until_ns = h.sent_ns;
		if (held->r.session != session) {
			held->session_before = session;
			held->stale = 0;
		}
	}
}

int main(int argc, char **argv)
{
	static struct receiver r;
	static struct held held = { .r.length = HELD_LENGTH };
	struct report mine = {}, theirs;
	struct memory m = {};
	struct sender s;
	uint64_t report_ns = now_ns(), peek_ns = now_ns(), next_run = 0;
	uint8_t packet[2048];
	struct header h;
	ssize_t length;

	if (argc == 4 && !strcmp(argv[1], "device"))
		return device_main(argv + 2);
	if (argc != 5) {
		fprintf(stderr, "usage: agent PEER RATE MIB PAGES | nic IFACE WHAT VALUE |\n"
				"       device ADDRESS COUNT\n");
		return 2;
	}
	if (!strcmp(argv[1], "nic"))
		return nic_main(argv + 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	m.pages = strtoull(argv[3], NULL, 0) << 8;
	m.rate = strtoull(argv[4], NULL, 0);
	if (!m.pages || !m.rate || m.rate > 1000000) {
		fprintf(stderr, "agent: bad MIB %s or PAGES %s\n", argv[3], argv[4]);
		return 2;
	}
	m.words = mmap(NULL, m.pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	if (m.words == MAP_FAILED) {
		perror("agent: mmap");
		return 1;
	}
	sender_init(&s, stream_socket("0.0.0.0", STREAM_PORT, STREAM_ROOM), argv[1], STREAM_PORT,
		    (unsigned int)strtoul(argv[2], NULL, 0));
	held.fd = stream_socket("0.0.0.0", HELD_PORT, HELD_ROOM);

	for (;;) {
		struct pollfd p = { .fd = s.fd, .events = POLLIN };
		uint64_t now;

		memory_run(&m);
		/* not until there are no more: they may come faster than they are dealt with */
		for (int i = 0; i < RECEIVE_BATCH; i++) {
			length = recv(s.fd, packet, sizeof(packet), 0);
			if (length < 0)
				break;
			receiver_packet(&r, packet, (size_t)length, &h, &theirs);
		}
		if (now_ns() >= peek_ns) {
			peek_ns = now_ns() + PEEK_NS;
			held_run(&held, &r);
		}

		mine = (struct report) {
			.sent = s.sent,
			.received = r.received,
			.highest = r.highest,
			.duplicate = r.duplicate,
			.late = r.late,
			.corrupt = r.corrupt,
			.pages_checked = m.checked,
			.pages_bad = m.bad,
			.passes = m.pass,
			.held = held.r.received,
			.held_bad = held.r.corrupt + held.r.duplicate + held.stale,
			.held_late = held.r.late,
			.held_until_ns = held.until_ns,
			.lost_runs = r.lost_runs,
		};
		if (r.lost_runs) {
			uint64_t known = r.lost_runs < STREAM_RUNS ? r.lost_runs : STREAM_RUNS;

			mine.run_index = next_run % known;
			mine.run = r.runs[mine.run_index];
		}
		sender_run(&s, &r, &mine);
		/* a turn of the loop may send nothing: then the same run is next again */
		next_run += s.sent != mine.sent;

		if (now_ns() >= report_ns) {
			report_ns = now_ns() + REPORT_NS;
			printf("agent:");
			print_pair("sent", mine.sent);
			print_pair("received", mine.received);
			print_pair("duplicate", mine.duplicate);
			print_pair("late", mine.late);
			print_pair("corrupt", mine.corrupt);
			print_pair("pages_checked", mine.pages_checked);
			print_pair("pages_bad", mine.pages_bad);
			print_pair("passes", mine.passes);
			print_pair("held", mine.held);
			print_pair("held_bad", mine.held_bad);
			print_pair("held_late", mine.held_late);
			printf("\n");
		}
		now = now_ns();
		if (s.next_ns > now) {
			uint64_t wait = s.next_ns - now;
			struct timespec ts = { .tv_nsec = (long)(wait < WAIT_NS ? wait : WAIT_NS) };

			ppoll(&p, 1, &ts, NULL);
		}
	}
}
