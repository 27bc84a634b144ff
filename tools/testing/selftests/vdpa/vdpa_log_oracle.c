// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Does every page that the device writes get its bit, and no other page one?
 *
 * What is asked is memory itself, and not the device. There are three copies of
 * it: the one that the device works on; what the driver has put there; and a
 * VMM's, as a destination of a migration would have it: a second thread reads the
 * log all the time, and copies the pages whose bits it gets. Frames go out and come
 * back through buffers of random segments. Every round the device is suspended in
 * the middle of it, and then
 *
 *   - a page that differs from what the driver put there has been written, and
 *     one that a used buffer's length covers has been, too: it must have a bit;
 *   - a page with a bit that is neither of the two is superfluous: there must be
 *     none, but for the used rings, whose flags may be written as they were;
 *   - the VMM's copy must equal memory: a bit that was set before the write it
 *     stands for lets the VMM copy too early.
 *
 * So that each written byte shows, the driver fills memory with bytes that no
 * frame of the test contains.
 */
#include <endian.h>
#include <pthread.h>
#include <sched.h>
#include <sys/random.h>

#include "kselftest_harness.h"
#include "log.h"
#include "net.h"

#define ORACLE_SECONDS	7200	/* of the harness, for the long form; the waits' own come first */
#define ROUNDS		200	/* unless VDPA_ROUNDS says otherwise */
#define CONTROL_ROUNDS	50	/* in which what is wrong on purpose must show */

#define HDR_LEN		sizeof(struct virtio_net_hdr_v1)
#define MIN_CHAIN	(HDR_LEN + WIRE_MIN_LEN)	/* takes the peer's answers */
#define PROBE_BUF	128	/* so does this */
#define MAX_SEGS	64
#define SEGS		12	/* as many in most chains */
#define TRIES		64	/* to find room for a segment */
#define SPARE		(MAX_SEGS + 4)	/* descriptors for what must not fail */
#define MAX_RING	1024
#define PAGES		(VDPA_MEM_SIZE / LOG_PAGE)
#define USED_SIZE(n)	(3 * sizeof(uint16_t) + (n) * sizeof(struct vring_used_elem))

struct segment {
	uint32_t at;		/* in the memory */
	uint32_t len;
};

/* What the device was given at once */
struct chain {
	struct segment seg[MAX_SEGS];
	struct segment table;		/* where it is told of by an indirect descriptor */
	uint32_t segs, len;
	uint16_t desc[MAX_SEGS];
	uint16_t descs;
};

/* A queue's descriptors that are free, and the chain that each head belongs to */
struct side {
	struct vq *q;
	uint16_t free[MAX_RING];
	uint16_t nfree;
	struct chain chain[MAX_RING];
	uint64_t drawn;		/* chains, ever; each one is drawn by its number */
	uint64_t stock;		/* bytes in the device's hands */
};

/* What is done to one bit in ten, to see that it is noticed */
enum sabotage {
	NONE,
	LOSE,		/* it was never there */
	DOUBLE,		/* the next page has one, too */
	TOO_EARLY,	/* it was there before the write: what is copied is what was there before */
};

struct oracle {
	struct vdpa *v;
	struct net *n;
	struct side rx, tx;
	int ranges;		/* which of the sets is logged */
	uint64_t rng;
	uint32_t max_frame;	/* the longest that comes back */
	bool merge, indirect;

	uint8_t *mem, *driver, *vmm;	/* the three copies */
	uint8_t *fill;		/* what is where no frame is */
	uint8_t plain[128];	/* the bytes to fill with */
	uint32_t plains;

	uint32_t arena, size;	/* of the memory: where the buffers are */
	uint8_t *taken;		/* by byte: is it a buffer's */

	/* Of this round. The lock is for all that the second thread touches */
	pthread_mutex_t lock;
	pthread_t thread;
	bool stop;
	uint8_t bit[PAGES], written[PAGES];
	int error;		/* of a read, or its flags */
	enum sabotage sabotage;
	uint64_t sabotage_rng;

	uint32_t seq, marker;
	bool marker_back;
	/* Of all rounds */
	uint64_t frames_out, frames_in, damaged, bytes, pages, bits, ring_bits;
	uint64_t missing, superfluous, stale, stray, starts;
	char first_error[160];
};

static void report(struct oracle *o, uint64_t *count, uint32_t round, const char *what,
		   uint32_t page)
{
	(*count)++;
	if (!*o->first_error)
		snprintf(o->first_error, sizeof(o->first_error),
			 "round %u: %s: page %u, IOVA 0x%llx", round, what, page,
			 (unsigned long long)(o->v->iova + page * LOG_PAGE));
}

static int fail(struct oracle *o, int err, const char *what)
{
	o->n->error = what;
	return err;
}

/* A VMM that has read a bit copies the page; the lock is held */
static void dirty(struct oracle *o, uint64_t page)
{
	enum sabotage now = rng_below(&o->sabotage_rng, 10) ? NONE : o->sabotage;

	if (page >= PAGES) {
		o->stray++;
		return;
	}
	if (now == LOSE)
		return;
	if (now == DOUBLE)
		o->bit[(page + 1) % PAGES] = 1;
	o->bit[page] = 1;
	if (now == TOO_EARLY)
		return;
	memcpy(o->vmm + page * LOG_PAGE, o->mem + page * LOG_PAGE, LOG_PAGE);
}

/* Logs what is a memory's size below the tests' memory and above, in one range or in three */
static int start_log(struct oracle *o)
{
	const uint64_t iova = o->v->iova, size = o->v->mem_size;
	const struct vhost_vdpa_log_range sets[][3] = {
		{ { iova - size, 3 * size } },
		{ { iova + size / 2, 3 * size / 2 }, { iova - size, size },
		  { iova, size / 2 } },
	};

	o->starts++;
	o->ranges = !o->ranges;
	return log_start(o->v, sets[o->ranges], o->ranges ? 3 : 1);
}

/* Reads all of that, and copies the pages; the lock is held */
static void take(struct oracle *o)
{
	uint64_t words[3 * LOG_WORDS] = { 0 }, w;
	uint32_t i;
	int ret;

	ret = log_read(o->v, o->v->iova - o->v->mem_size, 3 * o->v->mem_size, words);
	if (ret)
		o->error = ret;
	for (i = 0; i < ARRAY_SIZE(words); i++)
		for (w = words[i]; w; w &= w - 1)
			dirty(o, i * 64 + __builtin_ctzll(w) - PAGES);
}

static void *take_bits(void *arg)
{
	struct oracle *o = arg;
	uint32_t pass;

	for (pass = 0; !__atomic_load_n(&o->stop, __ATOMIC_ACQUIRE); pass++) {
		pthread_mutex_lock(&o->lock);
		take(o);
		pthread_mutex_unlock(&o->lock);
		/* now and then as fast as it can */
		if (pass % 64 < 32)
			sleep_ms(1);
		else
			sched_yield();
	}
	return NULL;
}

/* Writes of the driver, which are none of the device's log: a VMM knows of them otherwise */
static void put(struct oracle *o, uint32_t at, const void *data, uint32_t len)
{
	uint32_t i, part;

	/* what the device has written there is not to be seen any more */
	for (i = 0; i < len; i += part) {
		part = LOG_PAGE - (at + i) % LOG_PAGE;
		if (part > len - i)
			part = len - i;
		if (memcmp(o->mem + at + i, o->driver + at + i, part))
			o->written[(at + i) / LOG_PAGE] = 1;
	}
	memcpy(o->mem + at, data, len);
	memcpy(o->driver + at, data, len);
	memcpy(o->vmm + at, data, len);
}

/*
 * The bytes to fill with: none that is below 0x80, as those are what the frames
 * are made of, nor one that has to be in them all the same.
 */
static void find_plain(struct oracle *o)
{
	uint32_t longest = o->n->answer[1], i;
	uint8_t not[2 * WIRE_MAC_LEN + 8] = {
		WIRE_ETHERTYPE >> 8, WIRE_ETHERTYPE & 0xff, WIRE_LONG_LEN >> 8, 0xfe,
		longest, longest >> 8, longest >> 16, longest >> 24,
	};

	memcpy(not + 8, o->n->mac, WIRE_MAC_LEN);
	memcpy(not + 8 + WIRE_MAC_LEN, o->n->peer, WIRE_MAC_LEN);
	for (i = 0x80; i < 0x100; i++)
		if (!memchr(not, i, sizeof(not)))
			o->plain[o->plains++] = i;
}

static void fill_arena(struct oracle *o)
{
	uint32_t i;

	for (i = 0; i < o->size; i++)
		o->mem[o->arena + i] = o->plain[rng_below(&o->rng, o->plains)];
	memcpy(o->fill, o->mem, VDPA_MEM_SIZE);
	memcpy(o->driver, o->mem, VDPA_MEM_SIZE);
	memcpy(o->vmm, o->mem, VDPA_MEM_SIZE);
}

static uint32_t draw_len(uint64_t *rng_state, uint32_t max)
{
	static const uint32_t up_to[] = { 1, 2, 16, 300, 300, 4096, 4096, 16384, 65536 };
	uint32_t kind = rng_below(rng_state, ARRAY_SIZE(up_to));
	uint32_t len = kind ? 1 + rng_below(rng_state, up_to[kind]) : 1;

	return len < max ? len : max;
}

/*
 * Where @len bytes might be: right behind what was placed last, or a bit further;
 * so that they begin or end a byte before, at, or a byte after the border of two
 * pages; or anywhere.
 */
static uint32_t draw_place(struct oracle *o, uint64_t *rng_state, uint32_t last, uint32_t len)
{
	uint32_t any = o->arena + rng_below(rng_state, o->size);
	uint32_t border = any / LOG_PAGE * LOG_PAGE + rng_below(rng_state, 3) - 1;

	switch (rng_below(rng_state, 8)) {
	case 0:
	case 1:
		return last;
	case 2:
		return last + rng_below(rng_state, 64);
	case 3:
		return border;
	case 4:
	case 5:
		return border - len;
	default:
		return any;
	}
}

/* False if no room was found; the lock is held */
static bool place(struct oracle *o, uint64_t *rng_state, uint32_t *last, uint32_t len,
		  uint32_t align, struct segment *seg)
{
	uint32_t i, at;

	for (i = 0; i < TRIES; i++) {
		at = draw_place(o, rng_state, *last, len) & ~(align - 1);
		if (at < o->arena || at >= VDPA_MEM_SIZE || len > VDPA_MEM_SIZE - at)
			continue;
		if (memchr(o->taken + at, 1, len))
			continue;
		memset(o->taken + at, 1, len);
		seg->at = at;
		seg->len = len;
		*last = at + len;
		return true;
	}
	return false;
}

/* What was to be sent must not stay: what is received there next may be just that */
static void give_back(struct oracle *o, struct chain *c, bool sent)
{
	struct segment *seg;

	for (seg = c->seg; seg < c->seg + c->segs; seg++) {
		memset(o->taken + seg->at, 0, seg->len);
		if (sent)
			put(o, seg->at, o->fill + seg->at, seg->len);
	}
	memset(o->taken + c->table.at, 0, c->table.len);
	put(o, c->table.at, o->fill + c->table.at, c->table.len);
}

/*
 * A chain of random segments, @total bytes in all, or as it comes; not told to
 * the device yet. False if there is no room for it.
 */
static bool make_chain(struct oracle *o, struct side *s, struct chain *c, uint64_t *rng_state,
		       uint32_t total)
{
	uint32_t most = rng_below(rng_state, 8) ? SEGS : MAX_SEGS, left, len;
	uint32_t last = o->arena + rng_below(rng_state, o->size);

	most = 1 + rng_below(rng_state, most);
	if (most > s->nfree)
		most = s->nfree;
	memset(c, 0, sizeof(*c));
	while (c->segs < most && (!total || c->len < total)) {
		left = total ? total - c->len : 65536;
		len = draw_len(rng_state, left);
		/* the last one takes what there is, or makes it long enough */
		if (c->segs == most - 1 && total)
			len = left;
		else if (c->segs == most - 1 && c->len + len < MIN_CHAIN)
			len = MIN_CHAIN - c->len;
		if (!place(o, rng_state, &last, len, 1, &c->seg[c->segs]))
			goto err;
		c->segs++;
		c->len += len;
	}
	if (o->indirect && rng_below(rng_state, 2) &&
	    !place(o, rng_state, &last, c->segs * sizeof(struct vring_desc), 16, &c->table))
		goto err;
	return true;
err:
	give_back(o, c, false);
	return false;
}

static void set_desc(struct oracle *o, struct vring_desc *d, const struct segment *seg,
		     uint16_t flags, uint16_t next)
{
	d->addr = htole64(o->v->iova + seg->at);
	d->len = htole32(seg->len);
	d->flags = htole16(flags);
	d->next = htole16(next);
}

/* Gives the chain to the device: as descriptors of the ring, or by a table */
static void post_chain(struct oracle *o, struct side *s, struct chain *c)
{
	uint16_t write = s->q->device_writes ? VRING_DESC_F_WRITE : 0;
	struct vring_desc table[MAX_SEGS], *d;
	uint32_t i;

	c->descs = c->table.len ? 1 : c->segs;
	for (i = 0; i < c->descs; i++)
		c->desc[i] = s->free[--s->nfree];
	for (i = 0; i < c->segs; i++) {
		d = c->table.len ? &table[i] : &s->q->desc[c->desc[i]];
		if (i == c->segs - 1)
			set_desc(o, d, &c->seg[i], write, 0);
		else
			set_desc(o, d, &c->seg[i], write | VRING_DESC_F_NEXT,
				 c->table.len ? i + 1 : c->desc[i + 1]);
	}
	if (c->table.len) {
		put(o, c->table.at, table, c->table.len);
		set_desc(o, &s->q->desc[c->desc[0]], &c->table, VRING_DESC_F_INDIRECT, 0);
	}
	s->chain[c->desc[0]] = *c;
	s->stock += c->len;
	vq_publish(s->q, c->desc[0]);
}

static bool add_chain(struct oracle *o, struct side *s, uint32_t total, const uint8_t *data)
{
	uint64_t rng_state = test_seed() ^ ((uint64_t)s->q->index << 63 | s->drawn++);
	uint32_t i, at = 0;
	struct chain c;
	bool ok;

	if (!s->nfree)
		return false;
	rng(&rng_state);
	pthread_mutex_lock(&o->lock);
	ok = make_chain(o, s, &c, &rng_state, total);
	if (ok) {
		for (i = 0; data && i < c.segs; at += c.seg[i].len, i++)
			put(o, c.seg[i].at, data + at, c.seg[i].len);
		post_chain(o, s, &c);
	}
	pthread_mutex_unlock(&o->lock);
	return ok;
}

/* Buffers to receive in; where frames are merged, always enough for one more */
static void stock_up(struct oracle *o)
{
	struct side *s = &o->rx;
	bool any = false;

	/* not all of the arena: what is to be sent must have room, too */
	while (s->nfree > SPARE && s->stock < o->size / 4 && add_chain(o, s, 0, NULL))
		any = true;
	while (o->merge && s->stock < o->max_frame + HDR_LEN &&
	       add_chain(o, s, o->max_frame + HDR_LEN, NULL))
		any = true;
	if (any)
		vq_kick(s->q);
}

static bool send_frame(struct oracle *o, enum wire_op op, uint32_t seq, uint32_t len)
{
	static uint8_t buf[HDR_LEN + WIRE_LONG_LEN];
	struct wire_hdr *h = (struct wire_hdr *)(buf + HDR_LEN);

	memset(buf, 0, HDR_LEN + sizeof(*h));
	memcpy(h->dst, o->n->peer, WIRE_MAC_LEN);
	memcpy(h->src, o->n->mac, WIRE_MAC_LEN);
	h->type = htons(WIRE_ETHERTYPE);
	h->op = htons(op);
	h->len = htons(len);
	h->session = htonl(o->n->session);
	h->seq = htonl(seq);
	if (op == WIRE_DATA)
		h->arg[0] = htonl(WIRE_F_ECHO | WIRE_F_LONG);
	wire_fill((uint8_t *)h);
	return add_chain(o, &o->tx, HDR_LEN + len, buf);
}

/* Every byte of it below 0x80 */
static uint32_t low_bytes(uint32_t n)
{
	return (n & 0x7f) | (n >> 7 & 0x7f) << 8 | (n >> 14 & 0x7f) << 16 | (n >> 21 & 0x7f) << 24;
}

/* Any length, as long as its bytes are such that find_plain() knows of them */
static uint32_t draw_frame_len(struct oracle *o)
{
	static const uint32_t up_to[] = { 128, 1514, 1514, 4096, 16384, 65535 };
	uint32_t max = up_to[rng_below(&o->rng, ARRAY_SIZE(up_to))], len;

	if (max > o->max_frame)
		max = o->max_frame;
	len = WIRE_MIN_LEN + rng_below(&o->rng, max - WIRE_MIN_LEN + 1);
	len &= ~0x80U;
	if (len >= 0x8000)
		len = (max >= 0xfeff ? 0xfe00 : 0x7f00) | (len & 0x7f);
	return len < WIRE_MIN_LEN ? WIRE_MIN_LEN : len;
}

static void mark_written(struct oracle *o, uint32_t at, uint32_t len)
{
	uint32_t page;

	for (page = at / LOG_PAGE; len && page <= (at + len - 1) / LOG_PAGE; page++)
		o->written[page] = 1;
}

static uint32_t offset_of(struct oracle *o, const void *p)
{
	return (const uint8_t *)p - o->mem;
}

/* The used entry before the one that is next, and the index that tells of it */
static void mark_used(struct oracle *o, struct vq *q)
{
	struct vring_used_elem *e = &q->used->ring[(uint16_t)(q->used_idx - 1) % q->size];

	mark_written(o, offset_of(o, e), sizeof(*e));
	mark_written(o, offset_of(o, &q->used->idx), sizeof(q->used->idx));
}

/* Takes back one used chain; NULL and *ret if there is none */
static struct chain *reap(struct oracle *o, struct side *s, uint32_t *len, int *ret)
{
	struct chain *c;
	uint32_t i;

	*ret = vq_reap(s->q, len);
	if (*ret < 0)
		return NULL;
	mark_used(o, s->q);
	c = &s->chain[*ret];
	for (i = c->descs; i; i--)
		s->free[s->nfree++] = c->desc[i - 1];
	s->stock -= c->len;
	pthread_mutex_lock(&o->lock);
	give_back(o, c, s == &o->tx);
	pthread_mutex_unlock(&o->lock);
	return c;
}

/* What has come: its pages are written. -EPROTO if the device is wrong about it, 0 if none */
static int receive(struct oracle *o)
{
	static uint8_t frame[HDR_LEN + WIRE_LONG_LEN + 65536];
	struct virtio_net_hdr_v1 *hdr = (struct virtio_net_hdr_v1 *)frame;
	struct wire_hdr *h = (struct wire_hdr *)(frame + HDR_LEN);
	uint32_t total = 0, room = 0, buffers = 1, len, left, part, i, j;
	struct chain *c;
	int ret;

	for (i = 0; i < buffers; i++) {
		c = reap(o, &o->rx, &len, &ret);
		if (!c && ret == -EAGAIN && !i)
			return 0;
		if (!c)
			return fail(o, -EPROTO, i ? "a merged frame is incomplete" :
				    "the used ring names what was not given");
		if (len > c->len || total + len > sizeof(frame) || (!i && len < HDR_LEN))
			return fail(o, -EPROTO, "the used length is impossible");
		for (j = 0, left = len; left; j++, left -= part) {
			part = left < c->seg[j].len ? left : c->seg[j].len;
			mark_written(o, c->seg[j].at, part);
			memcpy(frame + total, o->mem + c->seg[j].at, part);
			total += part;
		}
		room += c->len;
		o->bytes += len;
		if (!i && o->merge)
			buffers = le16toh(hdr->num_buffers);
		/* virtio 1.2, 5.1.6.4.1; a loopback has what was sent there */
		else if (!i && o->n->wire != WIRE_LOOP && le16toh(hdr->num_buffers) != 1)
			return fail(o, -EPROTO, "num_buffers is not 1");
	}
	len = total - HDR_LEN;
	if (len < sizeof(*h) || ntohs(h->type) != WIRE_ETHERTYPE ||
	    ntohl(h->session) != o->n->session)
		return 1;
	if (ntohs(h->op) == WIRE_DATA) {
		o->frames_in++;
		/* where there is no room for all of it the simulator cuts it off */
		if (o->n->wire != WIRE_LOOP || HDR_LEN + ntohs(h->len) <= room)
			o->damaged += !wire_intact((uint8_t *)h, len);
	} else if (ntohl(h->seq) == o->marker) {
		o->marker_back = true;
	}
	return 1;
}

/* Takes what the device has used; returns how much that was, or an error */
static int poll_queues(struct oracle *o)
{
	int n = 0, ret;
	uint32_t len;

	for (;;) {
		if (!reap(o, &o->tx, &len, &ret))
			break;
		if (len)
			return fail(o, -EPROTO, "something was written to what was to be sent");
		n++;
	}
	if (ret != -EAGAIN)
		return fail(o, ret, "the used ring names what was not given");
	while ((ret = receive(o)) > 0)
		n++;
	return ret ? ret : n;
}

/* Every page known to be written by now has its bit by now, whatever the ranges were until then */
static int other_ranges(struct oracle *o, uint32_t round)
{
	uint8_t before[PAGES];
	uint32_t page;
	int ret;

	memcpy(before, o->written, sizeof(before));
	ret = start_log(o);
	if (ret)
		return ret;
	pthread_mutex_lock(&o->lock);
	take(o);
	for (page = 0; page < PAGES; page++)
		if (before[page] && !o->bit[page])
			report(o, &o->missing, round, "written and not logged, at a start", page);
	pthread_mutex_unlock(&o->lock);
	return 0;
}

/* The device is suspended: nothing moves */
static void judge(struct oracle *o, uint32_t round)
{
	uint32_t used[2] = { offset_of(o, o->rx.q->used), offset_of(o, o->tx.q->used) };
	uint32_t used_size = USED_SIZE(o->rx.q->size), page, at;
	bool in_arena, in_ring;

	pthread_mutex_lock(&o->lock);
	take(o);
	for (page = 0; page < PAGES; page++) {
		at = page * LOG_PAGE;
		in_arena = at >= o->arena;
		in_ring = (page >= used[0] / LOG_PAGE &&
			   page <= (used[0] + used_size - 1) / LOG_PAGE) ||
			  (page >= used[1] / LOG_PAGE &&
			   page <= (used[1] + used_size - 1) / LOG_PAGE);
		if (in_arena && memcmp(o->mem + at, o->driver + at, LOG_PAGE))
			o->written[page] = 1;

		if (o->written[page] && !o->bit[page])
			report(o, &o->missing, round, "written and not logged", page);
		if (o->bit[page] && !o->written[page] && in_ring)
			o->ring_bits++;
		else if (o->bit[page] && !o->written[page])
			report(o, &o->superfluous, round, "logged and not written", page);
		if ((in_arena || in_ring) && memcmp(o->mem + at, o->vmm + at, LOG_PAGE))
			report(o, &o->stale, round, "not as it was when it was logged last", page);

		o->pages += o->written[page];
		o->bits += o->bit[page];
		/* the next round begins with memory as the driver made it */
		if (in_arena && o->written[page])
			memcpy(o->mem + at, o->driver + at, LOG_PAGE);
		memcpy(o->vmm + at, o->mem + at, LOG_PAGE);
	}
	memset(o->bit, 0, sizeof(o->bit));
	memset(o->written, 0, sizeof(o->written));
	pthread_mutex_unlock(&o->lock);
}

/*
 * Frames out and back, and a stop: half of the time when all of them have come,
 * as the peer's answer to what was sent last tells; or in the middle of it.
 */
static int one_round(struct oracle *o, uint32_t round)
{
	uint32_t frames = 1 + rng_below(&o->rng, 12), reaped = 0, enough;
	bool to_the_end = rng_below(&o->rng, 2), sent = false;
	uint64_t end = deadline(NET_WAIT_MS), again = deadline(NET_WAIT_MS / 5);
	int ret, error;

	enough = rng_below(&o->rng, 2 * frames);
	o->marker = low_bytes(round + 1);
	o->marker_back = false;
	stock_up(o);
	while (to_the_end ? !o->marker_back : reaped < enough) {
		while (frames && send_frame(o, WIRE_DATA, o->seq & 0x7f7f, draw_frame_len(o))) {
			frames--;
			o->seq++;
			o->frames_out++;
		}
		if (!frames && (!sent || expired(again)) &&
		    send_frame(o, WIRE_HELLO, o->marker, WIRE_MIN_LEN)) {
			sent = true;
			again = deadline(NET_WAIT_MS / 5);
		}
		vq_kick(o->tx.q);
		ret = poll_queues(o);
		if (ret < 0)
			return ret;
		reaped += ret;
		stock_up(o);
		if (!rng_below(&o->rng, 40)) {
			ret = other_ranges(o, round);
			if (ret)
				return ret;
		}
		if (expired(end))
			return fail(o, -ETIMEDOUT, "nothing more arrives");
		if (!ret)
			sched_yield();
		/* what comes in parts comes to an end */
		if (!to_the_end && sent && o->marker_back)
			break;
	}

	ret = vdpa_ioctl(o->v, VHOST_VDPA_SUSPEND, NULL);
	if (!ret)
		ret = poll_queues(o);
	if (ret < 0)
		return ret;
	judge(o, round);

	/* the ranges may change while nothing moves; or the log be off, and all be copied anyway */
	ret = 0;
	pthread_mutex_lock(&o->lock);
	if (rng_below(&o->rng, 2)) {
		ret = rng_below(&o->rng, 2) ? log_stop(o->v) : 0;
		if (!ret)
			ret = start_log(o);
	}
	error = o->error;
	pthread_mutex_unlock(&o->lock);
	if (ret)
		return ret;
	if (error)
		return fail(o, error < 0 ? error : -EFAULT, "the log has a fault");
	return vdpa_ioctl(o->v, VHOST_VDPA_RESUME, NULL);
}

static void init_side(struct side *s, struct vq *q)
{
	uint16_t i;

	s->q = q;
	s->nfree = q->size;
	for (i = 0; i < q->size; i++)
		s->free[i] = q->size - 1 - i;
}

/*
 * The used ring where two pages meet, anywhere in it but in an element: QEMU
 * (10.2, address_space_write_continue_cached()) writes the second half of such a
 * one where the first page ends physically, whatever page an IOMMU has there.
 */
static int move_used(struct oracle *o, struct vq *q)
{
	uint32_t size = USED_SIZE(q->size), before;
	uint8_t *room = vdpa_alloc(o->v, 2 * LOG_PAGE + size, LOG_PAGE);

	if (!room)
		return -ENOMEM;
	before = rng_below(&o->rng, (size < LOG_PAGE ? size : LOG_PAGE) / 8) * 8 + 4;
	q->used = (struct vring_used *)(room + LOG_PAGE - before);
	return 0;
}

static int oracle_start(struct oracle *o, struct net *n, const char *test, uint64_t features)
{
	struct vdpa *v = n->v;
	int ret;

	o->v = v;
	o->n = n;
	o->mem = v->mem;
	o->merge = features & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF);
	o->indirect = features & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC);
	rng_init(&o->rng, test_seed(), test);
	o->sabotage_rng = o->rng + 1;
	n->session = low_bytes(n->session);
	/* a loopback does not say how long a frame it takes */
	o->max_frame = n->wire == WIRE_LOOP ? WIRE_MAX_LEN :
		       n->answer[1] < WIRE_LONG_LEN ? n->answer[1] : WIRE_LONG_LEN;
	pthread_mutex_init(&o->lock, NULL);

	ret = vdpa_reset(v);
	if (!ret)
		ret = move_used(o, &n->rx);
	if (!ret)
		ret = move_used(o, &n->tx);
	o->driver = malloc(VDPA_MEM_SIZE);
	o->vmm = malloc(VDPA_MEM_SIZE);
	o->fill = malloc(VDPA_MEM_SIZE);
	o->taken = calloc(VDPA_MEM_SIZE, 1);
	if (!ret && (!o->driver || !o->vmm || !o->fill || !o->taken))
		ret = -ENOMEM;
	if (ret)
		return ret;

	vq_set_start(&n->rx, 0);
	vq_set_start(&n->tx, 0);
	init_side(&o->rx, &n->rx);
	init_side(&o->tx, &n->tx);
	o->arena = (v->mem_used + LOG_PAGE - 1) & ~(LOG_PAGE - 1);
	o->size = v->mem_size - o->arena;
	find_plain(o);
	fill_arena(o);

	ret = start_log(o);
	if (!ret)
		ret = net_setup(n, features, 0, 0);
	if (!ret)
		ret = vdpa_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				      VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	if (!ret)
		ret = -pthread_create(&o->thread, NULL, take_bits, o);
	return ret;
}

static void oracle_stop(struct oracle *o)
{
	if (o->thread) {
		__atomic_store_n(&o->stop, true, __ATOMIC_RELEASE);
		pthread_join(o->thread, NULL);
	}
	free(o->driver);
	free(o->vmm);
	free(o->fill);
	free(o->taken);
}

/* What is on the wire? */
static void probe(struct __test_metadata *_metadata, struct vdpa *v, struct net *n)
{
	uint16_t size = v->vq_max < MAX_RING ? v->vq_max : MAX_RING;

	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, net_init(n, v, _metadata->name, size, 1, PROBE_BUF));
	ASSERT_EQ(0, net_start(n, 0, 0, 0));
	ASSERT_EQ(0, net_probe(n));
}

FIXTURE(oracle) {
	struct vdpa v;
	struct net n;
	struct oracle *o;
};

FIXTURE_VARIANT(oracle) {
	uint64_t features;
};

FIXTURE_VARIANT_ADD(oracle, plain) {
	.features = 0,
};

FIXTURE_VARIANT_ADD(oracle, event_idx) {
	.features = BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
};

FIXTURE_VARIANT_ADD(oracle, mergeable) {
	.features = BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
};

FIXTURE_VARIANT_ADD(oracle, indirect) {
	.features = BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) | BIT_ULL(VIRTIO_RING_F_EVENT_IDX),
};

FIXTURE_VARIANT_ADD(oracle, indirect_mergeable) {
	.features = BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) | BIT_ULL(VIRTIO_NET_F_MRG_RXBUF),
};

FIXTURE_SETUP(oracle)
{
	struct vdpa *v = &self->v;
	struct net *n = &self->n;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_LOG);
	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	if (variant->features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX))
		NEED(v, CAP_EVENT_IDX);
	if (variant->features & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF))
		NEED(v, CAP_MRG_RXBUF);
	if (variant->features & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC))
		NEED(v, CAP_INDIRECT);
	probe(_metadata, v, n);
	NEED(v, CAP_WIRE);
	self->o = calloc(1, sizeof(*self->o));
	ASSERT_NE(NULL, self->o);
	ASSERT_EQ(0, oracle_start(self->o, n, _metadata->name, variant->features));
}

FIXTURE_TEARDOWN(oracle)
{
	LOG_SEED_ON_FAILURE();
	if (self->o)
		oracle_stop(self->o);
	net_free(&self->n);
	vdpa_close(&self->v);
	free(self->o);
}

static void run(struct __test_metadata *_metadata, struct oracle *o, uint32_t rounds)
{
	uint32_t i;
	int ret;

	for (i = 0; i < rounds; i++) {
		ret = one_round(o, i);
		ASSERT_EQ(0, ret) {
			TH_LOG("round %u: %s; frames %llu out, %llu in", i,
			       o->n->error ? o->n->error : "an ioctl failed",
			       (unsigned long long)o->frames_out, (unsigned long long)o->frames_in);
		}
	}
	TH_LOG("seed %llu: %u rounds, %llu frames out, %llu in, %llu bytes in",
	       (unsigned long long)test_seed(), rounds, (unsigned long long)o->frames_out,
	       (unsigned long long)o->frames_in, (unsigned long long)o->bytes);
	TH_LOG("%llu pages written, %llu bits, %llu superfluous, %llu in used rings; %llu starts",
	       (unsigned long long)o->pages, (unsigned long long)o->bits,
	       (unsigned long long)o->superfluous, (unsigned long long)o->ring_bits,
	       (unsigned long long)o->starts);
	TH_LOG("%llu pages without a bit, %llu copied too early, %llu bits elsewhere; %s",
	       (unsigned long long)o->missing, (unsigned long long)o->stale,
	       (unsigned long long)o->stray, *o->first_error ? o->first_error : "all well");
}

/* The promise */
TEST_F_TIMEOUT(oracle, every_page_and_no_other, ORACLE_SECONDS)
{
	const char *rounds = getenv("VDPA_ROUNDS");
	struct oracle *o = self->o;

	run(_metadata, o, rounds ? strtoul(rounds, NULL, 0) : ROUNDS);
	EXPECT_EQ(0, o->missing);
	EXPECT_EQ(0, o->superfluous);
	EXPECT_EQ(0, o->stale);
	EXPECT_EQ(0, o->stray);
	EXPECT_EQ(0, o->damaged);
	EXPECT_NE(0, o->frames_in);
	EXPECT_LT(1, o->starts);
}

/* The same with bits that are tampered with: an oracle that cannot say no says nothing */
FIXTURE(control) {
	struct vdpa v;
	struct net n;
	struct oracle *o;
};

FIXTURE_VARIANT(control) {
	enum sabotage sabotage;
};

FIXTURE_VARIANT_ADD(control, bits_lost) { .sabotage = LOSE, };
FIXTURE_VARIANT_ADD(control, bits_added) { .sabotage = DOUBLE, };
FIXTURE_VARIANT_ADD(control, bits_too_early) { .sabotage = TOO_EARLY, };

FIXTURE_SETUP(control)
{
	struct vdpa *v = &self->v;
	struct net *n = &self->n;

	OPEN_OR_SKIP(v);
	NEED(v, CAP_LOG);
	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	probe(_metadata, v, n);
	NEED(v, CAP_WIRE);
	self->o = calloc(1, sizeof(*self->o));
	ASSERT_NE(NULL, self->o);
	self->o->sabotage = variant->sabotage;
	ASSERT_EQ(0, oracle_start(self->o, n, _metadata->name, 0));
}

FIXTURE_TEARDOWN(control)
{
	LOG_SEED_ON_FAILURE();
	if (self->o)
		oracle_stop(self->o);
	net_free(&self->n);
	vdpa_close(&self->v);
	free(self->o);
}

TEST_F_TIMEOUT(control, is_noticed, ORACLE_SECONDS)
{
	struct oracle *o = self->o;

	run(_metadata, o, CONTROL_ROUNDS);
	EXPECT_EQ(variant->sabotage == LOSE, o->missing != 0);
	EXPECT_EQ(variant->sabotage == DOUBLE, o->superfluous != 0);
	EXPECT_EQ(variant->sabotage != DOUBLE, o->stale != 0);
}

TEST_HARNESS_MAIN
