/*
 * A driver for virtio-net-pci,vdpa=on, for the tests of its live-migration
 * registers
 *
 * Guest memory is a file that the test maps too: rings and buffers are laid
 * out by hand, and what the device wrote is found by comparing all of memory
 * with a copy made before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "qemu/cutils.h"
#include "standard-headers/linux/virtio_ids.h"
#include "qobject/qlist.h"
#include "libqos/pci-pc.h"
#include "virtio-lm-common.h"

#define LM_BAR_ADDR 0xe0000000u
#define LM_FIRST_PAGE (1 * MiB)

/* QEMU and PCI */

#define LM_NET_FDS 2

/* A packet per datagram, from and to @t->net; QEMU's end, and its option */
static char *lm_net_dgram(LMTest *t, int *fd)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), ==, 0);
    t->net = pair[0];
    *fd = pair[1];
    return g_strdup_printf("dgram,id=hs0,local.type=fd,local.str=%d", *fd);
}

/*
 * The same with a tap. It is the only interface in a network namespace, which
 * this process stays in, and carries only what is sent here. NULL without the
 * rights for that.
 */
static char *lm_net_tap_queues(LMTest *t, int *fd, unsigned queues)
{
    static bool isolated;
    struct ifreq ifr = { .ifr_name = "lm0" };
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = cpu_to_be16(ETH_P_ALL),
    };
    unsigned i;
    int net, sysctl;

    if (!isolated && unshare(CLONE_NEWNET)) {
        return NULL;
    }
    isolated = true;
    sysctl = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
    if (sysctl >= 0) {
        g_assert_cmpint(write(sysctl, "1", 1), ==, 1);
        close(sysctl);
    }
    ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                    (queues > 1 ? IFF_MULTI_QUEUE : 0);
    for (i = 0; i < queues; i++) {
        fd[i] = open("/dev/net/tun", O_RDWR);
        if (fd[i] < 0) {
            return NULL;
        }
        g_assert_cmpint(ioctl(fd[i], TUNSETIFF, &ifr), ==, 0);
    }

    net = socket(AF_PACKET, SOCK_RAW, 0);
    g_assert_cmpint(net, >=, 0);
    g_assert_cmpint(ioctl(net, SIOCGIFINDEX, &ifr), ==, 0);
    addr.sll_ifindex = ifr.ifr_ifindex;
    ifr.ifr_flags = IFF_UP;
    g_assert_cmpint(ioctl(net, SIOCSIFFLAGS, &ifr), ==, 0);
    g_assert_cmpint(bind(net, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    t->net = net;
    return queues == 1 ?
           g_strdup_printf("tap,id=hs0,vhost=off,fd=%d", fd[0]) :
           g_strdup_printf("tap,id=hs0,vhost=off,fds=%d:%d", fd[0], fd[1]);
}

static char *lm_net_tap(LMTest *t, int *fd)
{
    return lm_net_tap_queues(t, fd, 1);
}

static char *lm_net_tap_pairs(LMTest *t, int *fd)
{
    return lm_net_tap_queues(t, fd, 2);
}

static LMTest *lm_spawn(LMPlace place, const char *props, const char *more,
                        char *(*net)(LMTest *t, int *fd))
{
    static const char *const machine[] = {
        [LM_ON_ROOT_BUS] = "q35",
        [LM_ON_ROOT_PORT] = "q35",
        [LM_BEHIND_IOMMU] = "q35",
        [LM_ON_PC] = "pc",
    };
    static const char *const where[] = {
        [LM_ON_ROOT_BUS] = "addr=4",
        [LM_ON_ROOT_PORT] = "bus=rp",
        [LM_BEHIND_IOMMU] = "bus=rp,iommu_platform=on,ats=on",
        [LM_ON_PC] = "addr=4",
    };
    LMTest *t = g_new0(LMTest, 1);
    g_autofree char *device = NULL, *netdev = NULL;
    int fd[LM_NET_FDS] = { -1, -1 };
    unsigned i;

    netdev = net(t, fd);
    if (!netdev) {
        g_free(t);
        return NULL;
    }
    t->place = place;
    t->props = g_strdup(props);
    t->next_page = LM_FIRST_PAGE;

    t->ram_fd = memfd_create("ram", 0);
    g_assert_cmpint(t->ram_fd, >=, 0);
    g_assert_cmpint(ftruncate(t->ram_fd, LM_RAM_SIZE), ==, 0);
    t->ram = mmap(NULL, LM_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                  t->ram_fd, 0);
    g_assert(t->ram != MAP_FAILED);
    t->snapshot = mmap(NULL, LM_RAM_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert(t->snapshot != MAP_FAILED);

    g_assert_cmpint(fcntl(t->net, F_SETFD, FD_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(t->net, F_SETFL, O_NONBLOCK), ==, 0);

    if (props) {
        device = g_strdup_printf("-device virtio-net-pci,id=net0,netdev=hs0,"
                                 "romfile=,mac=52:54:00:12:34:56,%s,%s",
                                 where[place], props);
    }
    t->qts = qtest_initf(
        "-machine %s -m %dM -nodefaults "
        "-object memory-backend-file,id=ram,size=%dM,share=on,"
        "mem-path=/proc/self/fd/%d -machine memory-backend=ram "
        "-netdev %s %s %s %s %s",
        machine[place], (int)(LM_RAM_SIZE / MiB), (int)(LM_RAM_SIZE / MiB),
        t->ram_fd, netdev,
        place == LM_BEHIND_IOMMU ?
        "-device intel-iommu,device-iotlb=on,intremap=on,aw-bits=48" : "",
        place == LM_ON_ROOT_PORT || place == LM_BEHIND_IOMMU ?
        "-device pcie-root-port,id=rp,chassis=1,slot=1,addr=3" : "",
        device ?: "", more ?: "");
    for (i = 0; i < LM_NET_FDS && fd[i] >= 0; i++) {
        close(fd[i]);
    }
    /* The next QEMU must not inherit it */
    g_assert_cmpint(fcntl(t->ram_fd, F_SETFD, FD_CLOEXEC), ==, 0);

    t->bus = qpci_new_pc(t->qts, NULL);
    return t;
}

uint8_t lm_pci_cap(LMTest *t, uint8_t cfg_type)
{
    uint8_t cap = 0;

    while ((cap = qpci_find_capability(t->dev, PCI_CAP_ID_VNDR, cap))) {
        if (qpci_config_readb(t->dev, cap +
                              offsetof(struct virtio_pci_cap, cfg_type)) ==
            cfg_type) {
            return cap;
        }
    }
    g_error("no virtio structure of type %u", cfg_type);
}

static uint64_t lm_pci_structure(LMTest *t, uint8_t cfg_type)
{
    uint8_t cap = lm_pci_cap(t, cfg_type);

    return LM_BAR_ADDR +
           qpci_config_readl(t->dev, cap +
                             offsetof(struct virtio_pci_cap, offset));
}

/* What is behind the root port can be reached */
void lm_pci_map_root_port(LMTest *t)
{
    g_autofree QPCIDevice *rp = qpci_device_find(t->bus, QPCI_DEVFN(3, 0));

    qpci_config_writeb(rp, PCI_SECONDARY_BUS, 1);
    qpci_config_writeb(rp, PCI_SUBORDINATE_BUS, 1);
    qpci_config_writew(rp, PCI_MEMORY_BASE, LM_BAR_ADDR >> 16);
    qpci_config_writew(rp, PCI_MEMORY_LIMIT, 0xefff);
    qpci_config_writew(rp, PCI_COMMAND,
                       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Find the device and its structures, also after an FLR */
void lm_pci_map(LMTest *t)
{
    int devfn = QPCI_DEVFN(4, 0);
    uint8_t notify, bar;

    if (t->place == LM_ON_ROOT_PORT || t->place == LM_BEHIND_IOMMU) {
        lm_pci_map_root_port(t);
        devfn = QPCI_DEVFN(32, 0);
    }
    g_free(t->dev);
    t->dev = qpci_device_find(t->bus, devfn);
    g_assert_nonnull(t->dev);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_DEVICE_ID), ==,
                    0x1040 + VIRTIO_ID_NET);

    notify = lm_pci_cap(t, VIRTIO_PCI_CAP_NOTIFY_CFG);
    bar = PCI_BASE_ADDRESS_0 + 4 *
          qpci_config_readb(t->dev, notify +
                            offsetof(struct virtio_pci_cap, bar));
    qpci_config_writel(t->dev, bar, 0xffffffff);
    t->bar_size = -(qpci_config_readl(t->dev, bar) & PCI_BASE_ADDRESS_MEM_MASK);
    qpci_config_writel(t->dev, bar, LM_BAR_ADDR);
    qpci_config_writel(t->dev, bar + 4, 0);
    qpci_config_writew(t->dev, PCI_COMMAND,
                       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

    t->common = lm_pci_structure(t, VIRTIO_PCI_CAP_COMMON_CFG);
    t->isr = lm_pci_structure(t, VIRTIO_PCI_CAP_ISR_CFG);
    t->config = lm_pci_structure(t, VIRTIO_PCI_CAP_DEVICE_CFG);
    t->notify = lm_pci_structure(t, VIRTIO_PCI_CAP_NOTIFY_CFG);
    t->notify_mult = qpci_config_readl(t->dev, notify +
                                       sizeof(struct virtio_pci_cap));
    t->lm = t->notify +
            qpci_config_readl(t->dev, notify +
                              offsetof(struct virtio_pci_cap, length));
}

LMTest *lm_new(LMPlace place, const char *props)
{
    LMTest *t = lm_spawn(place, props, NULL, lm_net_dgram);

    if (props) {
        lm_pci_map(t);
    }
    return t;
}

/* One whose device the test looks for itself */
LMTest *lm_new_unmapped(LMPlace place, const char *props)
{
    return lm_spawn(place, props, NULL, lm_net_dgram);
}

/* One on a tap, or NULL if there can be none: then the test is skipped */
static LMTest *lm_spawn_tap(LMPlace place, const char *props,
                            char *(*net)(LMTest *t, int *fd))
{
    LMTest *t = lm_spawn(place, props, NULL, net);

    if (t) {
        lm_pci_map(t);
    } else {
        g_test_skip("no right to make a tap");
    }
    return t;
}

LMTest *lm_new_tap(LMPlace place, const char *props)
{
    return lm_spawn_tap(place, props, lm_net_tap);
}

/* The same with two queues, for two queue pairs */
LMTest *lm_new_tap_pairs(LMPlace place, const char *props)
{
    return lm_spawn_tap(place, props, lm_net_tap_pairs);
}

/*
 * A QEMU that waits for the migration of @src's. It goes on with the driver's
 * state that @src has at this moment.
 */
LMTest *lm_new_incoming(const LMTest *src, const char *props)
{
    LMTest *t = lm_spawn(src->place, props, "-incoming defer", lm_net_dgram);
    unsigned n;

    t->next_page = src->next_page;
    t->iova = src->iova;
    t->bar_size = src->bar_size;
    t->common = src->common;
    t->isr = src->isr;
    t->config = src->config;
    t->notify = src->notify;
    t->notify_mult = src->notify_mult;
    t->lm = src->lm;
    t->features = src->features;
    t->base = src->base;
    t->end = src->end;
    t->ctrl_tag = src->ctrl_tag;
    for (n = 0; n < LM_MAX_QUEUES; n++) {
        t->vq[n] = src->vq[n];
        t->vq[n].t = t;
    }
    return t;
}

void lm_free(LMTest *t)
{
    qtest_quit(t->qts);
    qpci_free_pc(t->bus);
    g_free(t->dev);
    close(t->net);
    close(t->ram_fd);
    munmap(t->ram, LM_RAM_SIZE);
    munmap(t->snapshot, LM_RAM_SIZE);
    g_free(t->props);
    g_free(t);
}

/* LM registers */

uint32_t lm_read(LMTest *t, uint64_t reg)
{
    return qtest_readl(t->qts, t->lm + reg);
}

void lm_write(LMTest *t, uint64_t reg, uint32_t val)
{
    qtest_writel(t->qts, t->lm + reg, val);
}

void lm_suspend(LMTest *t)
{
    lm_write(t, VIRTIO_LM_DEV_CTRL, VIRTIO_LM_DEV_CTRL_SUSPEND);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_SUSPENDED,
                    !=, 0);
}

void lm_resume(LMTest *t)
{
    lm_write(t, VIRTIO_LM_DEV_CTRL, 0);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_STATUS) & VIRTIO_LM_STATUS_SUSPENDED,
                    ==, 0);
}

/*
 * Let QEMU's main loop turn until a kick has gone through an eventfd and a
 * bottom half: each read takes at least one turn.
 */
void lm_settle(LMTest *t)
{
    unsigned i;

    for (i = 0; i < 4; i++) {
        lm_read(t, VIRTIO_LM_STATUS);
    }
}

/* Have the mailbox run a command with @len bytes of @data */
void lm_ctrl_run(LMTest *t, uint16_t tag, uint8_t class, uint8_t cmd,
                 const void *data, unsigned len)
{
    g_autofree uint8_t *bytes = g_malloc0(ROUND_UP(2 + len, 4));
    unsigned i;

    bytes[0] = class;
    bytes[1] = cmd;
    if (len) {
        memcpy(bytes + 2, data, len);
    }
    for (i = 0; i < 2 + len; i += 4) {
        lm_write(t, VIRTIO_LM_CTRL_DATA + i, ldl_le_p(bytes + i));
    }
    lm_write(t, VIRTIO_LM_CTRL_RUN,
             tag << VIRTIO_LM_CTRL_TAG_SHIFT | (2 + len));
}

/* The same with a new tag; its ack */
uint8_t lm_ctrl(LMTest *t, uint8_t class, uint8_t cmd, const void *data,
                unsigned len)
{
    uint16_t tag = ++t->ctrl_tag;
    uint32_t status;

    lm_ctrl_run(t, tag, class, cmd, data, len);
    status = lm_read(t, VIRTIO_LM_CTRL_STATUS);
    g_assert_cmphex(status & ~VIRTIO_LM_CTRL_ACK_MASK, ==,
                    tag << VIRTIO_LM_CTRL_TAG_SHIFT | VIRTIO_LM_CTRL_DONE);
    return status & VIRTIO_LM_CTRL_ACK_MASK;
}

uint8_t lm_add_vlan(LMTest *t, uint16_t vid)
{
    vid = cpu_to_le16(vid);
    return lm_ctrl(t, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid,
                   sizeof(vid));
}

/* What a monitor knows of the filters */
QDict *lm_rx_filter(LMTest *t)
{
    QDict *rsp = qtest_qmp(t->qts, "{'execute': 'query-rx-filter',"
                           " 'arguments': {'name': 'net0'}}");
    const QListEntry *first = qlist_first(qdict_get_qlist(rsp, "return"));
    QDict *filter = qobject_to(QDict, qlist_entry_obj(first));

    qobject_ref(filter);
    qobject_unref(rsp);
    return filter;
}

/* How many entries a table of the filters has */
unsigned lm_filter_len(LMTest *t, const char *table)
{
    QDict *filter = lm_rx_filter(t);
    unsigned len = qlist_size(qdict_get_qlist(filter, table));

    qobject_unref(filter);
    return len;
}

uint32_t lm_ring_state(LMTest *t, unsigned n)
{
    return lm_read(t, VIRTIO_LM_RING_STATE(n));
}

/* Guest memory */

void *lm_ptr(LMTest *t, uint64_t iova)
{
    g_assert_cmphex(iova - t->iova, <, LM_RAM_SIZE);
    return t->ram + (iova - t->iova);
}

/* @n pages that nobody else has, in the device's DMA address space */
uint64_t lm_pages(LMTest *t, unsigned n)
{
    uint64_t addr = t->next_page;

    t->next_page += n * LM_PAGE;
    g_assert_cmphex(t->next_page, <=, LM_RAM_SIZE);
    return t->iova + addr;
}

/* Dirty log */

void lm_log_at(LMTest *t, uint64_t base, uint64_t end)
{
    t->base = base;
    t->end = end;
    lm_write(t, VIRTIO_LM_BASE_ADDR_LOW, base);
    lm_write(t, VIRTIO_LM_BASE_ADDR_HIGH, base >> 32);
    lm_write(t, VIRTIO_LM_END_ADDR_LOW, end);
    lm_write(t, VIRTIO_LM_END_ADDR_HIGH, end >> 32);
    lm_write(t, VIRTIO_LM_LOGGING_CTRL, VIRTIO_LM_LOGGING_ON);
    g_assert_cmphex(lm_read(t, VIRTIO_LM_LOGGING_CTRL), ==,
                    VIRTIO_LM_LOGGING_ON);
}

/* With a bitmap for all of memory, that neither starts nor ends a page */
void lm_log_start(LMTest *t)
{
    uint64_t size = (t->iova + LM_RAM_SIZE) / LM_PAGE / 8;
    uint64_t base = lm_pages(t, size / LM_PAGE + 2) + 100;

    lm_log_at(t, base, base + size);
}

/*
 * Make sure that each write of the device to the rings changes something. To
 * be called while it does not process them.
 */
void lm_poison(LMTest *t)
{
    unsigned n;

    for (n = 0; n < LM_MAX_QUEUES; n++) {
        LMQueue *q = &t->vq[n];
        uint8_t *used;

        if (!q->num) {
            continue;
        }
        used = lm_ptr(t, q->used);
        if (lm_packed(t)) {
            memset(used, 0xa5, sizeof(struct vring_packed_desc_event));
            continue;
        }
        memset(used + offsetof(struct vring_used, ring), 0xa5,
               q->num * sizeof(struct vring_used_elem) + 2);
        if (!lm_event_idx(t)) {
            stw_le_p(used, VRING_USED_F_NO_NOTIFY);
        }
    }
}

/* The next extent of memory that is not a hole, from *@start; false if none */
static bool lm_next_extent(LMTest *t, uint64_t *start, uint64_t *end)
{
    off_t data = lseek(t->ram_fd, *start, SEEK_DATA);

    if (data < 0) {
        g_assert_cmpint(errno, ==, ENXIO);
        return false;
    }
    *start = QEMU_ALIGN_DOWN(data, LM_PAGE);
    *end = MIN(ROUND_UP(lseek(t->ram_fd, data, SEEK_HOLE), LM_PAGE),
               LM_RAM_SIZE);
    return true;
}

/* Remember memory, with a bitmap that is clear */
void lm_snapshot(LMTest *t)
{
    uint64_t start, end;

    if (t->end) {
        memset(lm_ptr(t, t->base), 0, t->end - t->base);
    }
    for (start = 0; lm_next_extent(t, &start, &end); start = end) {
        memcpy(t->snapshot + start, t->ram + start, end - start);
    }
}

bool lm_logged(LMTest *t, uint64_t iova)
{
    uint64_t page = iova / LM_PAGE;

    return *(uint8_t *)lm_ptr(t, t->base + page / 8) & 1 << page % 8;
}

/* Whether the page at @iova differs from the snapshot, but for the bitmap */
bool lm_written(LMTest *t, uint64_t iova)
{
    uint64_t page = QEMU_ALIGN_DOWN(iova, LM_PAGE) - t->iova;
    uint64_t a;

    if (!memcmp(t->ram + page, t->snapshot + page, LM_PAGE)) {
        return false;
    }
    for (a = page; a < page + LM_PAGE; a++) {
        if ((a + t->iova < t->base || a + t->iova >= t->end) &&
            t->ram[a] != t->snapshot[a]) {
            return true;
        }
    }
    return false;
}

/*
 * The log says what a comparison of memory with the snapshot says, page by
 * page. Returns how many were written.
 */
unsigned lm_check_log(LMTest *t)
{
    uint64_t start, end, addr, byte;
    unsigned written = 0, logged = 0;

    lm_settle(t);
    for (start = 0; lm_next_extent(t, &start, &end); start = end) {
        for (addr = t->iova + start; addr < t->iova + end; addr += LM_PAGE) {
            bool differs = lm_written(t, addr);

            if (differs != lm_logged(t, addr)) {
                g_error("page 0x%" PRIx64 " is %s", addr,
                        differs ? "written and not logged" :
                        "logged and not written");
            }
            written += differs;
        }
    }
    for (byte = t->base; byte < t->end; byte++) {
        logged += ctpop8(*(uint8_t *)lm_ptr(t, byte));
    }
    /* Neither holes nor what is not memory at all */
    g_assert_cmpuint(logged, ==, written);
    return written;
}

/* Not a byte of memory changed */
void lm_assert_untouched(LMTest *t)
{
    uint64_t start, end, addr;

    lm_settle(t);
    for (start = 0; lm_next_extent(t, &start, &end); start = end) {
        for (addr = start; addr < end; addr += LM_PAGE) {
            if (memcmp(t->ram + addr, t->snapshot + addr, LM_PAGE)) {
                g_error("page 0x%" PRIx64 " was written", t->iova + addr);
            }
        }
    }
}

GRand *lm_rand(void)
{
    const char *env = g_getenv("VIRTIO_LM_SEED");
    unsigned int seed = g_random_int();

    if (env) {
        g_assert_cmpint(qemu_strtoui(env, NULL, 0, &seed), ==, 0);
    }
    g_test_message("VIRTIO_LM_SEED=%u", seed);
    return g_rand_new_with_seed(seed);
}
