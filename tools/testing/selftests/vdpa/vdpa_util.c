// SPDX-License-Identifier: GPL-2.0-or-later
/* A vhost-vdpa device as a VMM opens and feeds it; see vdpa_util.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "log.h"
#include "vdpa_nl.h"
#include "vdpa_util.h"

#define OPEN_MS		20000	/* the last owner may still be closing */
#define RESET_MS	10000

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
		      BIT_ULL(VHOST_BACKEND_F_LOG_RANGES);
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
	ret = vdpa_required(&v->required);
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
	vdpa_find_caps(v);
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
