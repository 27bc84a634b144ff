// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every allocation fails once: each step of a device's life, from probe to
 * remove, is repeated with its first allocation failing, then its second, and
 * so on until none is left to fail (Documentation/fault-injection/
 * fault-injection.rst). What comes back is an errno that names a lack of memory,
 * or success where the kernel could do without; the step then works.
 *
 * What is leaked on the way is for kmemleak to find, once these tests are over;
 * only pages that stay pinned are seen here, since kmemleak does not know pages.
 *
 * Closing the device is not among the steps: it cannot fail, and the IOMMU's drivers need memory
 * to give the function its former domain back (iommu_detach_device() warns if there is none).
 *
 * These tests unbind VDPA_DEV's parent and delete the device; the last thing they
 * do is to make it as it was.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "log.h"
#include "tx.h"
#include "vdpa_nl.h"
#include "vring.h"

#define TEST_SECONDS	600
#define MAX_NTH		4000	/* no step has so many allocations: one never ends */
#define RING		4
#define DEBUGFS		"/sys/kernel/debug"

FIXTURE(nth) {
	struct vdpa v;
	struct vq rx, tx;
	size_t map_size;	/* of the memory that the rings are in */
	bool enabled;		/* the parent, by sysfs */
	struct vdpa_nl_add add;	/* creates the device as a test found it */
	uint8_t mac[6];
	int fd;			/* fail-nth of this thread */
	int pinned;		/* pages, when the test began */
};

/* A step: 0, or the errno with which it failed */
typedef int (*step_fn)(struct _test_data_nth *self);
typedef bool (*state_fn)(struct _test_data_nth *self);

/* Allocations of one function of the kernel do not fail: it has callees of its own on the stack */
static int spare(const char *function)
{
	static const char * const knobs[] = { "failslab", "fail_page_alloc" };
	char line[256], name[128], path[64], text[32];
	unsigned long long addr, start = 0, end = 0;
	FILE *file = fopen("/proc/kallsyms", "r");
	size_t i;
	int ret = 0;

	if (!file)
		return -errno;
	/* the kernel's own symbols come first, in the order of their addresses */
	while (!end && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx %*c %127s", &addr, name) != 2)
			continue;
		if (start && addr > start)
			end = addr;
		else if (!strcmp(name, function))
			start = addr;
	}
	fclose(file);
	if (!end)
		return -ENOENT;
	for (i = 0; i < ARRAY_SIZE(knobs) && !ret; i++) {
		snprintf(path, sizeof(path), DEBUGFS "/%s/reject-start", knobs[i]);
		snprintf(text, sizeof(text), "0x%llx", start);
		ret = vdpa_write_file(path, text);
		if (ret)
			break;
		snprintf(path, sizeof(path), DEBUGFS "/%s/reject-end", knobs[i]);
		snprintf(text, sizeof(text), "0x%llx", end);
		ret = vdpa_write_file(path, text);
	}
	return ret;
}

/*
 * Has fail-nth fail allocations that may wait, which is what nearly all of them may. Not those of
 * files in /proc/irq/N, which are made when the interrupt is requested the first time and are not
 * checked: one that is missing makes the kernel warn when the interrupt's number is given back
 * (register_irq_proc(), unregister_irq_proc() in kernel/irq/proc.c), whoever the driver is.
 */
static int prepare_injection(void)
{
	int ret = spare("register_irq_proc");

	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/failslab/ignore-gfp-wait", "N");

	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/fail_page_alloc/ignore-gfp-wait", "N");
	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/fail_page_alloc/ignore-gfp-highmem", "N");
	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/fail_page_alloc/min-order", "0");
	/* of thousands of failures, a word on each is too many */
	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/failslab/verbose", "0");
	if (!ret)
		ret = vdpa_write_file(DEBUGFS "/fail_page_alloc/verbose", "0");
	/* not every kernel that has those has this, too */
	vdpa_write_file(DEBUGFS "/fail_usercopy/verbose", "0");
	return ret;
}

/* The write itself copies from user space, which is one of the things that can fail */
static int set_nth(int fd, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth), i;

	for (i = 0; i < 2; i++)
		if (pwrite(fd, text, len, 0) == len)
			return 0;
	return -errno;
}

/* Whether the failure has happened; whatever has not will not */
static int take_nth(int fd)
{
	char text[16] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int err = errno, ret;

	ret = set_nth(fd, 0);
	if (ret)
		return ret;
	/* if this is what failed, it was still to come */
	if (n < 0)
		return err == EFAULT ? 0 : -err;
	return atoi(text) == 0;
}

/*
 * What a lack of memory looks like. EFAULT, EINVAL: user memory that could not be copied by
 * an ioctl, by a write of an IOTLB message; EINVAL: also an address space that could not be
 * allocated (vhost_vdpa_process_iotlb_msg()), a BAR that could not be mapped
 * (vp_modern_probe()); EBUSY: one that could not be reserved (pci_request_region()); ENFILE: no
 * socket; ENOBUFS: no netlink answer; ENOSPC: no MSI-X vectors; EPROTO: a status that the device
 * was found not to have, as SET_STATUS has no errno.
 */
static bool is_clean(int ret)
{
	static const int clean[] = {
		ENOMEM, EFAULT, EINVAL, EBUSY, ENFILE, ENOBUFS, ENOSPC, EPROTO,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(clean); i++)
		if (ret == -clean[i])
			return true;
	return false;
}

/*
 * Does @step with each of its allocations failing in turn. Before each time @prepare
 * has to work, after it @undo; @done tells whether success is what it says.
 */
static void sweep(struct __test_metadata *_metadata, struct _test_data_nth *self,
		  step_fn prepare, step_fn step, step_fn undo, state_fn done)
{
	int nth, ret, hit = 1, noticed = 0;

	/* once without a failure, which also touches all the memory that this needs */
	for (nth = 0; hit; nth++) {
		ASSERT_GT(MAX_NTH, nth);
		ret = prepare(self);
		ASSERT_EQ(0, ret) {
			TH_LOG("does not work any more after failure %d: %s", nth - 1,
			       strerror(-ret));
		}
		ASSERT_EQ(0, set_nth(self->fd, nth));
		ret = step(self);
		if (nth)
			hit = take_nth(self->fd);
		ASSERT_LE(0, hit);
		EXPECT_TRUE(!ret || (nth && hit && is_clean(ret))) {
			TH_LOG("failure %d: %s", nth, strerror(-ret));
		}
		EXPECT_TRUE(ret || !done || done(self)) {
			TH_LOG("failure %d: is not done, and says it is", nth);
		}
		noticed += ret != 0;
		ret = undo(self);
		ASSERT_EQ(0, ret) {
			TH_LOG("cannot be undone after failure %d: %s", nth, strerror(-ret));
		}
	}
	/* with one at the least, or nothing was tried */
	EXPECT_LT(2, nth);
	TH_LOG("fail_nth: %d failures, %d of them noticed", nth - 2, noticed);
}

static int nothing(struct _test_data_nth *self)
{
	return 0;
}

/* The parent's function and its driver */

static int driver_attr(struct _test_data_nth *self, const char *attr)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s", self->v.parent, attr);
	return vdpa_write_file(path, self->v.mgmt_dev);
}

static int bind(struct _test_data_nth *self)
{
	return driver_attr(self, "bind");
}

static int unbind(struct _test_data_nth *self)
{
	return driver_attr(self, "unbind");
}

static bool is_bound(struct _test_data_nth *self)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s", self->v.parent,
		 self->v.mgmt_dev);
	return !access(path, F_OK);
}

static bool is_unbound(struct _test_data_nth *self)
{
	return !is_bound(self);
}

/*
 * As long as it is also enabled by sysfs, its driver enables and disables it without a look at
 * what ACPI says of its interrupt: ACPICA's interpreter uses freed memory when it runs out of it.
 */
static int set_enabled(struct _test_data_nth *self, bool on)
{
	char path[256];
	int ret = is_bound(self) ? unbind(self) : 0;

	if (ret || self->enabled == on)
		return ret;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/enable", self->v.mgmt_dev);
	ret = vdpa_write_file(path, on ? "1" : "0");
	if (!ret)
		self->enabled = on;
	return ret;
}

static int have_unbound(struct _test_data_nth *self)
{
	return is_bound(self) ? unbind(self) : 0;
}

/* The device */

static int add(struct _test_data_nth *self)
{
	return vdpa_nl_dev_add(&self->add);
}

static int del(struct _test_data_nth *self)
{
	return vdpa_nl_dev_del(self->add.name);
}

static bool is_there(struct _test_data_nth *self)
{
	struct vdpa_nl_info info;

	return !vdpa_nl_dev_get(self->add.name, &info);
}

static bool is_gone(struct _test_data_nth *self)
{
	return !is_there(self);
}

static int have_none(struct _test_data_nth *self)
{
	return is_there(self) ? del(self) : 0;
}

static int have_one(struct _test_data_nth *self)
{
	int ret = 0;

	if (*self->v.mgmt_bus && !is_bound(self))
		ret = bind(self);
	if (!ret && !is_there(self))
		ret = add(self);
	return ret;
}

/* What a VMM does with it */

static int open_it(struct _test_data_nth *self)
{
	uint64_t features;
	int ret;

	self->v.fd = open(self->v.path, O_RDWR | O_CLOEXEC);
	if (self->v.fd < 0)
		return -errno;
	ret = vdpa_ioctl(&self->v, VHOST_SET_OWNER, NULL);
	if (!ret)
		ret = vdpa_ioctl(&self->v, VHOST_GET_BACKEND_FEATURES, &features);
	if (!ret)
		ret = vdpa_ioctl(&self->v, VHOST_SET_BACKEND_FEATURES, &self->v.backend);
	return ret;
}

/*
 * The IOMMU's page tables are made for a page beside what is to be mapped: where a mapping lacks
 * memory for those, iommu_map() takes back what it has mapped, and if that is nothing, the Intel
 * IOMMU's driver shifts by 64 (cache_tag_flush_range()).
 */
static int have_opened(struct _test_data_nth *self)
{
	uint64_t page = getpagesize(), beside = (2UL << 20) - page;
	struct vdpa *v = &self->v;
	int ret;

	ret = open_it(self);
	if (!ret)
		ret = vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova + beside, page,
				 v->mem + beside, VHOST_ACCESS_RW);
	return ret;
}

static int close_it(struct _test_data_nth *self)
{
	if (self->v.fd >= 0)
		close(self->v.fd);
	self->v.fd = -1;
	return 0;
}

static int start(struct _test_data_nth *self)
{
	struct vdpa *v = &self->v;
	int ret;

	vq_set_start(&self->rx, 0);
	vq_set_start(&self->tx, 0);
	ret = vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->iova, self->map_size, v->mem, VHOST_ACCESS_RW);
	if (!ret)
		ret = vdpa_negotiate(v, MUST_HAVE);
	if (!ret)
		ret = vq_setup(&self->rx, 0);
	if (!ret)
		ret = vq_setup(&self->tx, 0);
	if (!ret)
		ret = vq_enable(&self->rx, true);
	if (!ret)
		ret = vq_enable(&self->tx, true);
	if (!ret)
		ret = vdpa_set_status(v, DRV_OK);
	if (!ret)
		ret = vdpa_get_status(v);
	if (ret < 0)
		return ret;
	return ret == DRV_OK ? 0 : -EPROTO;
}

static int have_started(struct _test_data_nth *self)
{
	int ret = have_opened(self);

	return ret ? ret : start(self);
}

static int log_for_a_while(struct _test_data_nth *self)
{
	uint64_t words[LOG_WORDS];
	int ret = log_mem(&self->v);

	if (!ret)
		ret = log_read_mem(&self->v, words);
	return ret ? ret : log_stop(&self->v);
}

static int have_logging(struct _test_data_nth *self)
{
	int ret = have_started(self);

	return ret ? ret : log_mem(&self->v);
}

/* Other ranges, and memory that is mapped in them */
static int log_more(struct _test_data_nth *self)
{
	struct vdpa *v = &self->v;
	const struct vhost_vdpa_log_range more[] = {
		{ v->iova, v->mem_size },
		{ v->iova + BIT_ULL(30), BIT_ULL(30) },
	};
	uint64_t words[LOG_WORDS];
	int ret = log_start(v, more, ARRAY_SIZE(more));

	if (!ret)
		ret = vdpa_iotlb(v, VHOST_IOTLB_UPDATE, more[1].iova, LOG_PAGE, v->mem,
				 VHOST_ACCESS_RW);
	return ret ? ret : log_read_mem(v, words);
}

static int suspend_for_a_while(struct _test_data_nth *self)
{
	int ret = vdpa_ioctl(&self->v, VHOST_VDPA_SUSPEND, NULL);

	if (!ret)
		ret = vdpa_get_base(&self->v, 0);
	if (!ret)
		ret = vdpa_get_base(&self->v, 1);
	return ret ? ret : vdpa_ioctl(&self->v, VHOST_VDPA_RESUME, NULL);
}

FIXTURE_SETUP(nth)
{
	struct vdpa *v = &self->v;
	struct vdpa_nl_info was;

	self->fd = -1;
	OPEN_OR_SKIP(v);
	NEED(v, CAP_FAIL_NTH);
	ASSERT_EQ(0, prepare_injection());
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &was));
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, vq_init(&self->rx, v, 0, RING, 1, VQ_BUF_SIZE, true));
	ASSERT_EQ(0, vq_init(&self->tx, v, 1, RING, 1, VQ_BUF_SIZE, false));
	self->map_size = (v->mem_used + getpagesize() - 1) & ~(getpagesize() - 1UL);
	close_it(self);

	memcpy(self->mac, was.mac, sizeof(self->mac));
	self->add = (struct vdpa_nl_add){
		.name = v->name,
		.mgmt_bus = v->mgmt_bus,
		.mgmt_dev = v->mgmt_dev,
		.mac = was.has_mac ? self->mac : NULL,
		.set_mtu = was.has_mtu,
		.mtu = was.mtu,
		.set_features = true,
		.features = was.features,
	};
	/* a page fault is not what is to fail */
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
	self->pinned = vdpa_pinned_pages();
	ASSERT_LE(0, self->pinned);
	self->fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(nth)
{
	if (self->fd >= 0) {
		EXPECT_EQ(0, set_nth(self->fd, 0));
		close(self->fd);
		close_it(self);
		if (self->enabled)
			EXPECT_EQ(0, set_enabled(self, false));
		EXPECT_EQ(0, have_one(self));
		EXPECT_EQ(0, have_started(self)) {
			TH_LOG("%s does not work any more", self->add.name);
		}
		close_it(self);
		EXPECT_EQ(0, vdpa_unpinned(self->pinned)) {
			TH_LOG("pages of a closed device are still pinned");
		}
	}
	if (self->rx.v)
		vq_free(&self->rx);
	if (self->tx.v)
		vq_free(&self->tx);
	vdpa_close(&self->v);
}

TEST_F_TIMEOUT(nth, probe, TEST_SECONDS)
{
	NEED(&self->v, CAP_UNBIND);
	ASSERT_EQ(0, set_enabled(self, true));
	sweep(_metadata, self, have_unbound, bind, nothing, is_bound);
}

TEST_F_TIMEOUT(nth, dev_add, TEST_SECONDS)
{
	sweep(_metadata, self, have_none, add, nothing, is_there);
}

/* Features, owner, backend features */
TEST_F_TIMEOUT(nth, open, TEST_SECONDS)
{
	sweep(_metadata, self, nothing, open_it, close_it, NULL);
}

/* Memory, rings, interrupts, DRIVER_OK */
TEST_F_TIMEOUT(nth, start, TEST_SECONDS)
{
	sweep(_metadata, self, have_opened, start, close_it, NULL);
}

TEST_F_TIMEOUT(nth, log, TEST_SECONDS)
{
	NEED(&self->v, CAP_LOG);
	sweep(_metadata, self, have_started, log_for_a_while, close_it, NULL);
}

TEST_F_TIMEOUT(nth, log_more, TEST_SECONDS)
{
	NEED(&self->v, CAP_LOG);
	sweep(_metadata, self, have_logging, log_more, close_it, NULL);
}

TEST_F_TIMEOUT(nth, suspend, TEST_SECONDS)
{
	NEED(&self->v, CAP_SUSPEND);
	NEED(&self->v, CAP_RESUME);
	sweep(_metadata, self, have_started, suspend_for_a_while, close_it, NULL);
}

TEST_F_TIMEOUT(nth, dev_del, TEST_SECONDS)
{
	sweep(_metadata, self, have_one, del, nothing, is_gone);
}

TEST_F_TIMEOUT(nth, remove, TEST_SECONDS)
{
	NEED(&self->v, CAP_UNBIND);
	ASSERT_EQ(0, set_enabled(self, true));
	sweep(_metadata, self, have_one, unbind, nothing, is_unbound);
}

TEST_HARNESS_MAIN
