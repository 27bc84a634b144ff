// SPDX-License-Identifier: GPL-2.0-or-later
/* Deadlines, a random sequence, files, and pinned pages; see vdpa_util.h */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/random.h>

#include "vdpa_util.h"

#define UNPIN_MS	5000

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

static uint64_t now_ms(void)
{
	return now_us() / 1000;
}

/* @ms from now, longer where VDPA_TIMEOUT_SCALE says that the machine is slow */
uint64_t deadline(unsigned int ms)
{
	const char *scale = getenv("VDPA_TIMEOUT_SCALE");
	unsigned long n = scale ? strtoul(scale, NULL, 0) : 1;

	return now_ms() + (uint64_t)ms * (n ? n : 1);
}

bool expired(uint64_t end)
{
	return now_ms() >= end;
}

/* 0 when @fd is readable, -ETIMEDOUT at the deadline */
int wait_readable(int fd, uint64_t end)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = now_ms();
	int ret;

	ret = poll(&p, 1, now < end ? (int)(end - now) : 0);
	if (ret < 0)
		return -errno;
	return ret ? 0 : -ETIMEDOUT;
}

void sleep_ms(unsigned int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

uint64_t test_seed(void)
{
	const char *s = getenv("VDPA_SEED");
	static uint64_t seed;

	if (!seed) {
		if (s)
			seed = strtoull(s, NULL, 0);
		else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
			seed = now_ms();
	}
	return seed;
}

/* Each test draws a sequence of its own, so that it replays alone as in a full run */
void rng_init(uint64_t *state, uint64_t seed, const char *name)
{
	*state = seed;
	while (*name) {
		*state ^= (uint8_t)*name++;
		rng(state);
	}
}

/* splitmix64 */
uint32_t rng(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) >> 32;
}

uint32_t rng_below(uint64_t *state, uint32_t n)
{
	return (uint64_t)rng(state) * n >> 32;
}

int vdpa_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* Pages that are pinned on the whole machine, or a negative errno */
int vdpa_pinned_pages(void)
{
	long long acquired = -1, released = -1, n;
	char name[64];
	FILE *f;
	int ret;

	/* the CPUs keep counts of their own, which this gathers */
	ret = vdpa_write_file("/proc/sys/vm/stat_refresh", "1");
	if (ret)
		return ret;
	f = fopen("/proc/vmstat", "r");
	if (!f)
		return -errno;
	while (fscanf(f, "%63s %lld", name, &n) == 2) {
		if (!strcmp(name, "nr_foll_pin_acquired"))
			acquired = n;
		else if (!strcmp(name, "nr_foll_pin_released"))
			released = n;
	}
	fclose(f);
	return acquired < 0 || released < 0 ? -ENODATA : (int)(acquired - released);
}

/* Waits until no more than @before are pinned: others pin pages, too, but not for long */
int vdpa_unpinned(int before)
{
	uint64_t end = deadline(UNPIN_MS);
	int now;

	while ((now = vdpa_pinned_pages()) > before) {
		if (expired(end))
			return -ETIMEDOUT;
		sleep_ms(100);
	}
	return now < 0 ? now : 0;
}
