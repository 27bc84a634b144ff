// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Provisioning: what a vDPA device is created with is what it then has, for the
 * administrator and for the VMM. These tests delete VDPA_DEV and create it
 * anew, under the same name; the last thing they do is to make it as it was.
 */
#include <endian.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "vdpa_nl.h"
#include "vdpa_util.h"

#define TEST_SECONDS	120
/* longest wait for word of a removal, from a parent that sends it and from any other */
#define FAREWELL_MS	20000
#define NO_FAREWELL_MS	500
#define DRV_OK		(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

static const uint8_t test_mac[6] = { 0x02, 0x5a, 0x17, 0x00, 0xfe, 0x01 };

FIXTURE(mgmt) {
	struct vdpa v;
	struct vdpa_nl_info was;
	uint8_t mac[6];
	struct vdpa_nl_add add;	/* creates the device as a test found it */
};

FIXTURE_SETUP(mgmt)
{
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	int ret;

	OPEN_OR_SKIP(v);
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &self->was));
	ASSERT_EQ(0, vdpa_nl_mgmt_get(v->mgmt_bus, v->mgmt_dev, &info));
	self->was.supported = info.supported;
	self->was.mgmt_max_vqs = info.mgmt_max_vqs;
	vdpa_close(v);

	memcpy(self->mac, self->was.mac, sizeof(self->mac));
	self->add = (struct vdpa_nl_add){
		.name = v->name,
		.mgmt_bus = v->mgmt_bus,
		.mgmt_dev = v->mgmt_dev,
		.mac = self->was.has_mac ? self->mac : NULL,
		.set_mtu = self->was.has_mtu,
		.mtu = self->was.mtu,
		.set_features = true,
		.features = self->was.features,
	};
	ASSERT_EQ(0, vdpa_nl_dev_del(v->name));

	/* a parent that cannot be told what to make is made to work again, and skipped */
	ret = vdpa_nl_dev_add(&self->add);
	if (ret == -EOPNOTSUPP) {
		self->add.mac = NULL;
		self->add.set_mtu = false;
		self->add.set_features = false;
		ASSERT_EQ(0, vdpa_nl_dev_add(&self->add));
		NEED(v, CAP_PROVISION);
	}
	ASSERT_EQ(0, ret);
	v->caps |= 1 << CAP_PROVISION;
	ASSERT_EQ(0, vdpa_nl_dev_del(v->name));
}

FIXTURE_TEARDOWN(mgmt)
{
	struct vdpa_nl_info info;

	vdpa_close(&self->v);
	if (!vdpa_nl_dev_get(self->add.name, &info))
		EXPECT_EQ(0, vdpa_nl_dev_del(self->add.name));
	EXPECT_EQ(0, vdpa_nl_dev_add(&self->add)) {
		TH_LOG("%s is not there any more", self->add.name);
	}
}

/* Creates the device and opens it; a VMM's view of it is then in self->v */
static void create(struct __test_metadata *_metadata, struct _test_data_mgmt *self,
		   const struct vdpa_nl_add *add)
{
	ASSERT_EQ(0, vdpa_nl_dev_add(add));
	ASSERT_EQ(0, vdpa_open(&self->v)) {
		TH_LOG("%s does not come back", vdpa_dev_path());
	}
	ASSERT_EQ(0, strcmp(add->name, self->v.name)) {
		TH_LOG("%s is %s now", vdpa_dev_path(), self->v.name);
	}
}

/* Whether the device's config space and netlink both say so */
static void expect_config(struct __test_metadata *_metadata, struct vdpa *v, const uint8_t *mac,
			  uint16_t mtu)
{
	struct virtio_net_config c;
	struct vdpa_nl_info info;

	ASSERT_EQ(0, vdpa_get_config(v, 0, &c, offsetof(struct virtio_net_config, speed)));
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	if (mac) {
		EXPECT_TRUE(v->offered & BIT_ULL(VIRTIO_NET_F_MAC));
		EXPECT_EQ(0, memcmp(mac, c.mac, sizeof(c.mac)));
		ASSERT_TRUE(info.has_mac);
		EXPECT_EQ(0, memcmp(mac, info.mac, sizeof(info.mac)));
	}
	if (mtu) {
		EXPECT_TRUE(v->offered & BIT_ULL(VIRTIO_NET_F_MTU));
		EXPECT_EQ(mtu, le16toh(c.mtu));
		ASSERT_TRUE(info.has_mtu);
		EXPECT_EQ(mtu, info.mtu);
	}
}

/* Nothing asked for: the parent's own choice, which can be brought up */
TEST_F_TIMEOUT(mgmt, defaults, TEST_SECONDS)
{
	struct vdpa_nl_add add = {
		.name = self->add.name,
		.mgmt_bus = self->add.mgmt_bus,
		.mgmt_dev = self->add.mgmt_dev,
	};

	create(_metadata, self, &add);
	EXPECT_LE(2, self->v.nvqs);
	EXPECT_EQ(0, self->v.offered & ~self->was.supported);
	EXPECT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
}

TEST_F_TIMEOUT(mgmt, mac, TEST_SECONDS)
{
	struct vdpa_nl_add add = self->add;

	add.mac = test_mac;
	add.set_mtu = false;
	add.set_features = false;
	create(_metadata, self, &add);
	expect_config(_metadata, &self->v, test_mac, 0);

	/* it is there to stay: a driver's reset does not take it away */
	ASSERT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
	expect_config(_metadata, &self->v, test_mac, 0);
	ASSERT_EQ(0, vdpa_reset(&self->v));
	expect_config(_metadata, &self->v, test_mac, 0);
}

/* An address can be changed until a driver may have read it, and again when that has gone */
TEST_F_TIMEOUT(mgmt, mac_set_later, TEST_SECONDS)
{
	static const uint8_t multicast[6] = { 0x03, 0x5a, 0x17, 0x00, 0xfe, 0x01 };
	const uint8_t other[6] = { 0x02, 0x5a, 0x17, 0x00, 0xfe, 0x02 };
	struct vdpa_nl_add add = self->add;
	const char *name = add.name;
	int idle, busy;

	add.set_features = false;
	create(_metadata, self, &add);
	idle = vdpa_nl_dev_set_mac(name, test_mac);
	if (!idle)
		expect_config(_metadata, &self->v, test_mac, 0);
	ASSERT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
	busy = vdpa_nl_dev_set_mac(name, other);
	if (!idle && busy == -EBUSY)
		self->v.caps |= 1 << CAP_SET_MAC;
	NEED(&self->v, CAP_SET_MAC);
	expect_config(_metadata, &self->v, test_mac, 0);

	ASSERT_EQ(0, vdpa_reset(&self->v));
	EXPECT_GT(0, vdpa_nl_dev_set_mac(name, multicast));
	EXPECT_EQ(0, vdpa_nl_dev_set_mac(name, other));
	expect_config(_metadata, &self->v, other, 0);
	EXPECT_EQ(-ENODEV, vdpa_nl_dev_set_mac("there_is_none", other));
}

/* Where the device has no MAC to tell of, none is set in vain */
TEST_F_TIMEOUT(mgmt, mac_set_without_feature, TEST_SECONDS)
{
	struct vdpa_nl_add add = self->add;

	add.mac = NULL;
	add.set_mtu = false;
	add.features = BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	create(_metadata, self, &add);
	if (vdpa_nl_dev_set_mac(add.name, test_mac) == -EOPNOTSUPP)
		self->v.caps |= 1 << CAP_SET_MAC;
	NEED(&self->v, CAP_SET_MAC);
}

TEST_F_TIMEOUT(mgmt, mtu, TEST_SECONDS)
{
	static const uint16_t values[] = { 68, 1280, 1499, 1500 };
	struct vdpa_nl_add add = self->add;
	size_t i;

	add.mac = NULL;
	add.set_features = false;
	add.set_mtu = true;
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		add.mtu = values[i];
		create(_metadata, self, &add);
		expect_config(_metadata, &self->v, NULL, values[i]);
		ASSERT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
		expect_config(_metadata, &self->v, NULL, values[i]);
		vdpa_close(&self->v);
		ASSERT_EQ(0, vdpa_nl_dev_del(add.name));
	}
	/* IPv4 wants 68 (virtio 1.2, 5.1.4.1) */
	add.mtu = 67;
	EXPECT_EQ(-ERANGE, vdpa_nl_dev_add(&add));
	add.mtu = 0;
	EXPECT_EQ(-ERANGE, vdpa_nl_dev_add(&add));
}

TEST_F_TIMEOUT(mgmt, mac_and_mtu, TEST_SECONDS)
{
	struct vdpa_nl_add add = self->add;

	add.mac = test_mac;
	add.set_mtu = true;
	add.mtu = 1400;
	add.set_features = false;
	create(_metadata, self, &add);
	expect_config(_metadata, &self->v, test_mac, 1400);
}

/* Each feature can be left out, and is then not offered; those left are */
TEST_F_TIMEOUT(mgmt, features, TEST_SECONDS)
{
	const uint64_t must = BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	struct vdpa_nl_add add = self->add;

	add.mac = NULL;
	add.set_mtu = false;
	add.features = must;
	create(_metadata, self, &add);
	EXPECT_EQ(must, self->v.offered);
	EXPECT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
	vdpa_close(&self->v);
	ASSERT_EQ(0, vdpa_nl_dev_del(add.name));

	add.features = must | BIT_ULL(VIRTIO_NET_F_MAC) | BIT_ULL(VIRTIO_NET_F_STATUS);
	add.mac = test_mac;
	create(_metadata, self, &add);
	EXPECT_EQ(add.features, self->v.offered);
	expect_config(_metadata, &self->v, test_mac, 0);
	EXPECT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
}

/* What the parent does not have cannot be had, and the attempt leaves nothing behind */
TEST_F_TIMEOUT(mgmt, features_refused, TEST_SECONDS)
{
	struct vdpa_nl_add add = self->add;
	struct vdpa_nl_info info;
	unsigned int tried = 0;
	int bit;

	add.mac = NULL;
	add.set_mtu = false;
	for (bit = 0; bit < 64; bit++) {
		if (self->was.supported & BIT_ULL(bit))
			continue;
		add.features = self->was.features | BIT_ULL(bit);
		EXPECT_EQ(-EINVAL, vdpa_nl_dev_add(&add)) {
			TH_LOG("bit %d", bit);
		}
		EXPECT_EQ(-ENODEV, vdpa_nl_dev_get(add.name, &info));
		tried++;
	}
	EXPECT_LT(0, tried);

	/* a MAC without the feature that announces it */
	add.features = self->was.features & ~BIT_ULL(VIRTIO_NET_F_MAC);
	add.mac = test_mac;
	EXPECT_EQ(-EINVAL, vdpa_nl_dev_add(&add));
	/* and an MTU */
	add.features = self->was.features & ~BIT_ULL(VIRTIO_NET_F_MTU);
	add.mac = NULL;
	add.set_mtu = true;
	add.mtu = 1400;
	EXPECT_EQ(-EINVAL, vdpa_nl_dev_add(&add));
}

/* Queue pairs: as many as asked for, where the device has them, and never none */
TEST_F_TIMEOUT(mgmt, queue_pairs, TEST_SECONDS)
{
	struct vdpa_nl_add add = {
		.name = self->add.name,
		.mgmt_bus = self->add.mgmt_bus,
		.mgmt_dev = self->add.mgmt_dev,
		.set_max_vqp = true,
		.max_vqp = 1,
	};
	int ret = vdpa_nl_dev_add(&add);

	if (ret != -EOPNOTSUPP)
		self->v.caps |= 1 << CAP_MAX_VQP;
	NEED(&self->v, CAP_MAX_VQP);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, vdpa_nl_dev_del(add.name));
	create(_metadata, self, &add);
	EXPECT_LE(2, self->v.nvqs);
	EXPECT_GE(3, self->v.nvqs);	/* a pair, and a control queue if offered */
	vdpa_close(&self->v);
	ASSERT_EQ(0, vdpa_nl_dev_del(add.name));

	add.max_vqp = 0;
	EXPECT_EQ(-EINVAL, vdpa_nl_dev_add(&add));
	add.max_vqp = 0x7fff;
	EXPECT_GT(0, vdpa_nl_dev_add(&add));
	add.max_vqp = 0xffff;
	EXPECT_GT(0, vdpa_nl_dev_add(&add));
}

/* A name is used once; what is not there cannot be deleted or asked */
TEST_F_TIMEOUT(mgmt, names, TEST_SECONDS)
{
	struct vdpa_nl_info info;
	int ret;

	EXPECT_EQ(-ENODEV, vdpa_nl_dev_del(self->add.name));
	EXPECT_EQ(-ENODEV, vdpa_nl_dev_get(self->add.name, &info));
	EXPECT_EQ(-ENODEV, vdpa_nl_config_get(self->add.name, &info));
	create(_metadata, self, &self->add);
	/* the parent may have room for one device only, whatever its name */
	ret = vdpa_nl_dev_add(&self->add);
	EXPECT_TRUE(ret == -EEXIST || ret == -ENOSPC) {
		TH_LOG("a second one of the same name: %d", ret);
	}
	ASSERT_EQ(0, vdpa_nl_dev_get(self->add.name, &info));
	EXPECT_EQ(0, strcmp(info.mgmt_dev, self->add.mgmt_dev));
}

/* What no device can be called is refused, before the driver core warns of it */
TEST_F_TIMEOUT(mgmt, bad_names, TEST_SECONDS)
{
	static const char * const names[] = { "", "/", "a/b" };
	struct vdpa_nl_add add = self->add;
	size_t i;

	create(_metadata, self, &self->add);
	if (vdpa_must(&self->v, CAP_NAMES))
		self->v.caps |= 1 << CAP_NAMES;
	NEED(&self->v, CAP_NAMES);
	vdpa_close(&self->v);
	ASSERT_EQ(0, vdpa_nl_dev_del(add.name));
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		add.name = names[i];
		EXPECT_EQ(-EINVAL, vdpa_nl_dev_add(&add)) {
			TH_LOG("\"%s\"", names[i]);
		}
	}
}

/* Deleted and created over and over, opened or not, it is the same device each time */
TEST_F_TIMEOUT(mgmt, again_and_again, TEST_SECONDS)
{
	int i;

	for (i = 0; i < 10; i++) {
		create(_metadata, self, &self->add);
		EXPECT_EQ(self->was.features, self->v.offered);
		if (i % 2)
			ASSERT_EQ(0, vdpa_negotiate(&self->v, UINT64_MAX));
		vdpa_close(&self->v);
		ASSERT_EQ(0, vdpa_nl_dev_del(self->add.name));
	}
}

/* How a device is removed, and how its parent is made to work again after that */
struct removal {
	int (*remove)(const struct vdpa *v);
	int (*restore)(const struct vdpa *v);
};

static int del(const struct vdpa *v)
{
	return vdpa_nl_dev_del(v->name);
}

static int driver_attr(const struct vdpa *v, const char *attr)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/bus/%s/drivers/%s/%s", v->mgmt_bus, v->parent, attr);
	return vdpa_write_file(path, v->mgmt_dev);
}

static int unbind(const struct vdpa *v)
{
	return driver_attr(v, "unbind");
}

static int bind(const struct vdpa *v)
{
	return driver_attr(v, "bind");
}

/*
 * The removal waits until the device is closed, and its user is told of that: the device needs a
 * reset (virtio 1.3, 2.1.2), and after that it cannot be started. The user can still stop it in an
 * orderly way.
 */
static void remove_while_open(struct __test_metadata *_metadata, struct _test_data_mgmt *self,
			      const struct removal *r)
{
	int told, config_call, status;
	struct vdpa *v = &self->v;
	pid_t pid;

	config_call = eventfd(0, EFD_CLOEXEC);
	ASSERT_LE(0, config_call);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &config_call));
	ASSERT_EQ(0, vdpa_negotiate(v, UINT64_MAX));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(v->fd);
		_exit(-r->remove(v));
	}
	told = wait_readable(config_call, deadline(vdpa_must(v, CAP_FAREWELL) ? FAREWELL_MS :
							   NO_FAREWELL_MS));
	if (!told) {
		EXPECT_EQ(DRV_OK | VIRTIO_CONFIG_S_NEEDS_RESET, vdpa_get_status(v));
		if (vdpa_can(v, CAP_SUSPEND))
			EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
		EXPECT_EQ(0, waitpid(pid, &status, WNOHANG)) {
			TH_LOG("removed while it was open");
		}
		EXPECT_EQ(0, vdpa_reset(v));
		EXPECT_NE(0, vdpa_negotiate(v, UINT64_MAX));
		v->caps |= 1 << CAP_FAREWELL;
	}
	close(config_call);
	vdpa_close(v);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status)) {
		TH_LOG("%d", status);
	}
	if (r->restore)
		ASSERT_EQ(0, r->restore(v));
	NEED(v, CAP_FAREWELL);
}

TEST_F_TIMEOUT(mgmt, deleted_while_open, TEST_SECONDS)
{
	static const struct removal r = { .remove = del };

	create(_metadata, self, &self->add);
	remove_while_open(_metadata, self, &r);
}

TEST_F_TIMEOUT(mgmt, unbound_while_open, TEST_SECONDS)
{
	static const struct removal r = { .remove = unbind, .restore = bind };

	create(_metadata, self, &self->add);
	NEED(&self->v, CAP_UNBIND);
	remove_while_open(_metadata, self, &r);
}

TEST_HARNESS_MAIN
