// SPDX-License-Identifier: GPL-2.0-or-later
/* A vhost-vdpa device as a VMM opens and feeds it; see vdpa_util.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "log.h"
#include "vdpa_nl.h"
#include "vdpa_util.h"

#define OPEN_MS		20000	/* the last owner may still be closing */
#define RESET_MS	10000
#define UNPIN_MS	5000

static const char * const cap_names[CAP_COUNT] = {
	[CAP_SUSPEND]		= "suspend",
	[CAP_RESUME]		= "resume",
	[CAP_LATE_ENABLE]	= "late_enable",
	[CAP_VRING_SIZE]	= "vring_size",
	[CAP_VRING_GROUP]	= "vring_group",
	[CAP_DOORBELL]		= "doorbell",
	[CAP_EVENT_IDX]		= "event_idx",
	[CAP_MRG_RXBUF]		= "mrg_rxbuf",
	[CAP_INDIRECT]		= "indirect",
	[CAP_PACKED]		= "packed",
	[CAP_ANY_ORDER]		= "any_order",
	[CAP_VSTATS]		= "vstats",
	[CAP_PROVISION]		= "provision",
	[CAP_MAX_VQP]		= "max_vqp",
	[CAP_NAMES]		= "names",
	[CAP_SET_MAC]		= "set_mac",
	[CAP_FAREWELL]		= "farewell",
	[CAP_START_KICKS]	= "start_kicks",
	[CAP_WIRE]		= "wire",
	[CAP_PEER]		= "peer",
	[CAP_LINK]		= "link",
	[CAP_LOG]		= "log",
	[CAP_ASID]		= "asid",
	[CAP_UNBIND]		= "unbind",
	[CAP_FAIL_NTH]		= "fail_nth",
};

/*
 * What a parent has promised, by its driver's name: here the lack of it is a
 * failure. Whatever depends on how the device was set up (a page per doorbell,
 * a peer on the wire, a kernel with a dirty log) is for VDPA_REQUIRE to name.
 */
static const struct {
	const char *parent;
	uint32_t caps;
} promises[] = {
	{ "virtio_lm_vdpa",
	  1 << CAP_SUSPEND | 1 << CAP_RESUME | 1 << CAP_LATE_ENABLE | 1 << CAP_VRING_SIZE |
	  1 << CAP_VRING_GROUP | 1 << CAP_EVENT_IDX | 1 << CAP_MRG_RXBUF | 1 << CAP_VSTATS |
	  1 << CAP_PROVISION | 1 << CAP_MAX_VQP | 1 << CAP_START_KICKS | 1 << CAP_UNBIND |
	  1 << CAP_NAMES | 1 << CAP_SET_MAC | 1 << CAP_FAREWELL | 1 << CAP_ANY_ORDER },
	{ "vdpasim_net",
	  1 << CAP_SUSPEND | 1 << CAP_RESUME | 1 << CAP_LATE_ENABLE | 1 << CAP_VRING_GROUP |
	  1 << CAP_VSTATS | 1 << CAP_PROVISION | 1 << CAP_WIRE | 1 << CAP_ASID },
};

static uint32_t promised(const char *parent)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(promises); i++)
		if (!strcmp(parent, promises[i].parent))
			return promises[i].caps;
	return 0;
}

const char *vdpa_cap_name(enum vdpa_cap cap)
{
	return cap_names[cap];
}

bool vdpa_can(const struct vdpa *v, enum vdpa_cap cap)
{
	return v->caps & 1U << cap;
}

/* The capabilities that VDPA_REQUIRE names, of VDPA_DEV and no other device, in @caps */
static int required(uint32_t *caps)
{
	const char *p = getenv("VDPA_REQUIRE");
	unsigned int cap;
	size_t len;

	*caps = 0;
	for (; p && *p; p += len, p += *p == ',') {
		len = strcspn(p, ",");
		for (cap = 0; cap < CAP_COUNT; cap++)
			if (strlen(cap_names[cap]) == len && !strncmp(p, cap_names[cap], len))
				break;
		if (cap < CAP_COUNT) {
			*caps |= 1U << cap;
			continue;
		}
		printf("# VDPA_REQUIRE: there is no capability \"%.*s\". Known are:", (int)len, p);
		for (cap = 0; cap < CAP_COUNT; cap++)
			printf(" %s", cap_names[cap]);
		printf("\n");
		fflush(stdout);
		return -EINVAL;
	}
	return 0;
}

bool vdpa_must(const struct vdpa *v, enum vdpa_cap cap)
{
	return (promised(v->parent) | v->required) & 1U << cap;
}

const char *vdpa_dev_path(void)
{
	return getenv("VDPA_DEV");
}

int vdpa_ioctl(struct vdpa *v, unsigned long cmd, void *arg)
{
	return ioctl(v->fd, cmd, arg) < 0 ? -errno : 0;
}

/* The device's name on the vDPA bus: the folder that its char device is in */
static int find_name(struct vdpa *v)
{
	char link[64], target[PATH_MAX], *slash;
	struct stat st;
	ssize_t n;

	if (fstat(v->fd, &st))
		return -errno;
	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	slash = strrchr(target, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	slash = strrchr(target, '/');
	snprintf(v->name, sizeof(v->name), "%.63s", slash ? slash + 1 : target);
	return 0;
}

/* The parent's driver; a management device on no bus (a simulator) is its own */
static int find_parent(struct vdpa *v)
{
	char link[128], target[PATH_MAX], *slash;
	struct vdpa_nl_info info;
	ssize_t n;
	int ret;

	ret = vdpa_nl_dev_get(v->name, &info);
	if (ret)
		return ret;
	snprintf(v->mgmt_bus, sizeof(v->mgmt_bus), "%s", info.mgmt_bus);
	snprintf(v->mgmt_dev, sizeof(v->mgmt_dev), "%s", info.mgmt_dev);
	snprintf(v->parent, sizeof(v->parent), "%s", info.mgmt_dev);
	if (!*v->mgmt_bus)
		return 0;

	snprintf(link, sizeof(link), "/sys/bus/%s/devices/%s/driver", v->mgmt_bus, v->mgmt_dev);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	slash = strrchr(target, '/');
	snprintf(v->parent, sizeof(v->parent), "%.63s", slash ? slash + 1 : target);
	return 0;
}

static void find_caps(struct vdpa *v)
{
	struct vhost_vring_state s = { .index = 0 };
	struct vdpa_nl_info info;
	uint32_t as;
	void *page;

	/* what no parent tells of itself is tried where it is promised or required */
	v->caps = (promised(v->parent) | v->required) &
		  (1 << CAP_START_KICKS | 1 << CAP_ANY_ORDER);
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_SUSPEND))
		v->caps |= 1 << CAP_SUSPEND;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_RESUME))
		v->caps |= 1 << CAP_RESUME;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK))
		v->caps |= 1 << CAP_LATE_ENABLE;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_DIRTY_LOG))
		v->caps |= 1 << CAP_LOG;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &as) && as > 1)
		v->caps |= 1 << CAP_ASID;
	if (!strcmp(v->mgmt_bus, "pci"))
		v->caps |= 1 << CAP_UNBIND;
	if (!access("/proc/self/fail-nth", W_OK) &&
	    !access("/sys/kernel/debug/failslab/reject-start", F_OK) &&
	    !access("/sys/kernel/debug/fail_page_alloc/reject-start", F_OK))
		v->caps |= 1 << CAP_FAIL_NTH;
	if (v->offered & BIT_ULL(VIRTIO_RING_F_EVENT_IDX))
		v->caps |= 1 << CAP_EVENT_IDX;
	if (v->offered & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF))
		v->caps |= 1 << CAP_MRG_RXBUF;
	if (v->offered & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC))
		v->caps |= 1 << CAP_INDIRECT;
	if (v->offered & BIT_ULL(VIRTIO_F_RING_PACKED))
		v->caps |= 1 << CAP_PACKED;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_VRING_SIZE, &s))
		v->caps |= 1 << CAP_VRING_SIZE;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &s))
		v->caps |= 1 << CAP_VRING_GROUP;
	/* before FEATURES_OK it is -EAGAIN for those that can */
	if (vdpa_nl_vstats_get(v->name, 0, &info) != -EOPNOTSUPP)
		v->caps |= 1 << CAP_VSTATS;
	page = mmap(NULL, getpagesize(), PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (page != MAP_FAILED) {
		v->caps |= 1 << CAP_DOORBELL;
		munmap(page, getpagesize());
	}
}

/* Opens v->path as its owner and acks every backend feature that is known here */
static int open_owned(struct vdpa *v)
{
	uint64_t end = deadline(OPEN_MS);
	int ret;

	for (;;) {
		v->fd = open(v->path, O_RDWR | O_CLOEXEC);
		if (v->fd >= 0)
			break;
		if (errno != EBUSY || expired(end))
			return -errno;
		sleep_ms(10);
	}
	ret = vdpa_ioctl(v, VHOST_SET_OWNER, NULL);
	if (!ret)
		ret = vdpa_ioctl(v, VHOST_GET_BACKEND_FEATURES, &v->backend);
	if (ret)
		goto err;
	v->backend &= (BIT_ULL(VHOST_BACKEND_F_IOTLB_PERSIST + 1) - 1) |
		      BIT_ULL(VHOST_BACKEND_F_DIRTY_LOG);
	ret = vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &v->backend);
	if (ret)
		goto err;
	return 0;
err:
	close(v->fd);
	v->fd = -1;
	return ret;
}

int vdpa_open(struct vdpa *v)
{
	int ret;

	memset(v, 0, sizeof(*v));
	v->memfd = -1;
	v->fd = -1;
	ret = required(&v->required);
	if (ret)
		return ret;
	snprintf(v->path, sizeof(v->path), "%s", vdpa_dev_path());
	ret = open_owned(v);
	if (ret)
		return ret;

	ret = vdpa_ioctl(v, VHOST_GET_FEATURES, &v->offered);
	if (!ret)
		ret = vdpa_ioctl(v, VHOST_VDPA_GET_VQS_COUNT, &v->nvqs);
	if (!ret)
		ret = vdpa_ioctl(v, VHOST_VDPA_GET_VRING_NUM, &v->vq_max);
	if (!ret)
		ret = vdpa_ioctl(v, VHOST_VDPA_GET_IOVA_RANGE, &v->range);
	if (!ret)
		ret = find_name(v);
	if (!ret)
		ret = find_parent(v);
	if (ret) {
		close(v->fd);
		v->fd = -1;
		return ret;
	}
	find_caps(v);
	return 0;
}

/* Closes the device; the memory stays, for vdpa_reopen() */
static void close_fd(struct vdpa *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	v->features = 0;
}

void vdpa_close(struct vdpa *v)
{
	close_fd(v);
	if (v->mem)
		munmap(v->mem, v->mem_size);
	if (v->memfd >= 0)
		close(v->memfd);
	v->mem = NULL;
	v->memfd = -1;
}

/* A new owner of the device with the same memory, as after a migration */
int vdpa_reopen(struct vdpa *v)
{
	int ret;

	close_fd(v);
	ret = open_owned(v);
	if (ret || !v->mem)
		return ret;
	return vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem, VHOST_ACCESS_RW);
}

/* Returns the status, or a negative errno */
int vdpa_get_status(struct vdpa *v)
{
	uint8_t status;
	int ret = vdpa_ioctl(v, VHOST_VDPA_GET_STATUS, &status);

	return ret ? ret : status;
}

int vdpa_set_status(struct vdpa *v, uint8_t status)
{
	return vdpa_ioctl(v, VHOST_VDPA_SET_STATUS, &status);
}

int vdpa_get_config(struct vdpa *v, uint32_t off, void *buf, uint32_t len)
{
	struct vhost_vdpa_config *c = calloc(1, sizeof(*c) + len);
	int ret;

	if (!c)
		return -ENOMEM;
	c->off = off;
	c->len = len;
	ret = vdpa_ioctl(v, VHOST_VDPA_GET_CONFIG, c);
	if (!ret)
		memcpy(buf, c->buf, len);
	free(c);
	return ret;
}

/* A device that was not asked to keep its mappings over a reset has lost them */
static int remap(struct vdpa *v)
{
	int ret;

	if (!v->mem || v->backend & BIT_ULL(VHOST_BACKEND_F_IOTLB_PERSIST))
		return 0;
	ret = vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, v->iova, v->mem_size, NULL, 0);
	if (ret)
		return ret;
	return vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova, v->mem_size, v->mem, VHOST_ACCESS_RW);
}

int vdpa_reset(struct vdpa *v)
{
	uint64_t end = deadline(RESET_MS);
	int ret;

	ret = vdpa_set_status(v, 0);
	if (ret)
		return ret;
	v->features = 0;
	while ((ret = vdpa_get_status(v)) > 0) {
		if (expired(end))
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	return ret ? ret : remap(v);
}

/* Up to FEATURES_OK, with those of @features that the device offers */
int vdpa_negotiate(struct vdpa *v, uint64_t features)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;
	int ret;

	features &= v->offered;
	ret = vdpa_set_status(v, status);
	status |= VIRTIO_CONFIG_S_DRIVER;
	if (!ret)
		ret = vdpa_set_status(v, status);
	if (!ret)
		ret = vdpa_ioctl(v, VHOST_SET_FEATURES, &features);
	status |= VIRTIO_CONFIG_S_FEATURES_OK;
	if (!ret)
		ret = vdpa_set_status(v, status);
	if (ret)
		return ret;
	ret = vdpa_get_status(v);
	if (ret < 0)
		return ret;
	if (ret != status)	/* the device clears FEATURES_OK of what it cannot do */
		return -EPROTO;
	v->features = features;
	return 0;
}

/* Returns the index, or a negative errno */
int vdpa_get_base(struct vdpa *v, uint32_t vq)
{
	struct vhost_vring_state s = { .index = vq };
	int ret = vdpa_ioctl(v, VHOST_GET_VRING_BASE, &s);

	return ret ? ret : (int)s.num;
}

int vdpa_set_base(struct vdpa *v, uint32_t vq, uint32_t base)
{
	struct vhost_vring_state s = { .index = vq, .num = base };

	return vdpa_ioctl(v, VHOST_SET_VRING_BASE, &s);
}

/*
 * A memfd: a parent that works on virtual addresses maps nothing but shared
 * file memory (vhost_vdpa_va_map()), and a real one pins it all the same.
 */
int vdpa_mem_init_size(struct vdpa *v, uint64_t iova, size_t size)
{
	v->memfd = memfd_create("vdpa-test", MFD_CLOEXEC);
	if (v->memfd < 0 || ftruncate(v->memfd, size))
		return -errno;
	v->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		      v->memfd, 0);
	if (v->mem == MAP_FAILED) {
		v->mem = NULL;
		return -errno;
	}
	v->mem_size = size;
	v->mem_used = 0;
	v->iova = iova;
	return vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova, v->mem_size, v->mem, VHOST_ACCESS_RW);
}

int vdpa_mem_init(struct vdpa *v, uint64_t iova)
{
	return vdpa_mem_init_size(v, iova, VDPA_MEM_SIZE);
}

/* Memory that the device sees; given back by vdpa_close() as a whole */
void *vdpa_alloc(struct vdpa *v, size_t size, size_t align)
{
	size_t at = (v->mem_used + align - 1) & ~(align - 1);

	if (at + size > v->mem_size)
		return NULL;
	v->mem_used = at + size;
	return v->mem + at;
}

uint64_t vdpa_iova(const struct vdpa *v, const void *p)
{
	return v->iova + ((const uint8_t *)p - v->mem);
}

int vdpa_iotlb_asid(struct vdpa *v, uint32_t asid, uint8_t type, uint64_t iova, uint64_t size,
		    void *addr, uint8_t perm)
{
	struct vhost_msg_v2 msg = {
		.type = VHOST_IOTLB_MSG_V2,
		.asid = asid,
		.iotlb = {
			.iova = iova,
			.size = size,
			.uaddr = (uintptr_t)addr,
			.perm = perm,
			.type = type,
		},
	};
	ssize_t n = write(v->fd, &msg, sizeof(msg));

	if (n < 0)
		return -errno;
	return n == sizeof(msg) ? 0 : -EIO;
}

int vdpa_iotlb(struct vdpa *v, uint8_t type, uint64_t iova, uint64_t size, void *addr,
	       uint8_t perm)
{
	return vdpa_iotlb_asid(v, 0, type, iova, size, addr, perm);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
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
