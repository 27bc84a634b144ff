/*
 * A driver for virtio-net-pci,vdpa=on, for the tests of its live-migration
 * registers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef VIRTIO_LM_COMMON_H
#define VIRTIO_LM_COMMON_H

#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "hw/virtio/virtio-lm-regs.h"
#include "libqtest.h"
#include "libqos/pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_net.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define LM_PAGE 4096u
#define LM_RAM_SIZE (64 * MiB)
#define LM_DEADLINE_US (30 * G_USEC_PER_SEC)

/* What the device puts before each packet, with VIRTIO_F_VERSION_1 */
#define LM_HDR_LEN sizeof(struct virtio_net_hdr_v1)

#define LM_BIT(feature) (1ULL << (feature))

enum { LM_RX, LM_TX, LM_CVQ, LM_NUM_QUEUES };

/* With VIRTIO_NET_F_MQ there is a second pair where the control queue was */
enum { LM_RX1 = 2, LM_TX1, LM_MAX_QUEUES };

/* Where the device is */
typedef enum {
    LM_ON_ROOT_BUS,
    LM_ON_ROOT_PORT,
    LM_BEHIND_IOMMU,    /* on a root port as well */
    LM_ON_PC,           /* -machine pc, where libqos can eject it */
} LMPlace;

typedef struct LMSeg {
    uint64_t addr;
    uint32_t len;
    bool in;            /* the device writes it */
} LMSeg;

/* The driver's side of one virtqueue */
typedef struct LMQueue {
    struct LMTest *t;
    unsigned n;
    unsigned num;
    uint64_t desc;
    uint64_t avail;     /* packed: driver event suppression */
    uint64_t used;      /* packed: device event suppression */
    uint16_t next_desc;
    uint16_t avail_idx;
    bool avail_wrap;
    uint16_t used_idx;
    bool used_wrap;
    unsigned ndescs[1024];  /* packed, by buffer ID */
} LMQueue;

/**
 * struct LMTest - one QEMU, and the driver of its device
 * @ram: guest memory, shared with QEMU
 * @iova: what to add to an address in @ram to have the device's
 * @net: the other end of the device's backend, a packet per datagram
 * @base: DMA address of the bitmap that the test compares with memory
 * @end: DMA address one past its last byte
 */
typedef struct LMTest {
    QTestState *qts;
    LMPlace place;
    char *props;
    QPCIBus *bus;
    QPCIDevice *dev;
    int ram_fd;
    uint8_t *ram;
    uint8_t *snapshot;
    uint64_t next_page;
    uint64_t iova;
    int net;
    uint32_t bar_size;
    uint64_t common;
    uint64_t isr;
    uint64_t config;
    uint64_t notify;
    uint32_t notify_mult;
    uint64_t lm;
    uint64_t features;
    uint64_t base;
    uint64_t end;
    LMQueue vq[LM_MAX_QUEUES];
    uint16_t ctrl_tag;
} LMTest;

/* QEMU and PCI. @props follow "virtio-net-pci,", or no device if NULL */
LMTest *lm_new(LMPlace place, const char *props);
LMTest *lm_new_tap(LMPlace place, const char *props);
LMTest *lm_new_tap_pairs(LMPlace place, const char *props);
LMTest *lm_new_unmapped(LMPlace place, const char *props);
LMTest *lm_new_incoming(const LMTest *src, const char *props);
void lm_free(LMTest *t);
void lm_pci_map(LMTest *t);
void lm_pci_map_root_port(LMTest *t);
uint8_t lm_pci_cap(LMTest *t, uint8_t cfg_type);

/* LM registers */
uint32_t lm_read(LMTest *t, uint64_t reg);
void lm_write(LMTest *t, uint64_t reg, uint32_t val);
void lm_suspend(LMTest *t);
void lm_resume(LMTest *t);
void lm_settle(LMTest *t);
void lm_ctrl_run(LMTest *t, uint16_t tag, uint8_t class, uint8_t cmd,
                 const void *data, unsigned len);
uint8_t lm_ctrl(LMTest *t, uint8_t class, uint8_t cmd, const void *data,
                unsigned len);
uint8_t lm_add_vlan(LMTest *t, uint16_t vid);
QDict *lm_rx_filter(LMTest *t);
unsigned lm_filter_len(LMTest *t, const char *table);
uint32_t lm_ring_state(LMTest *t, unsigned n);

/* Guest memory, in the device's DMA addresses */
void *lm_ptr(LMTest *t, uint64_t iova);
uint64_t lm_pages(LMTest *t, unsigned n);

/* virtio */
uint8_t lm_status(LMTest *t);
void lm_set_status(LMTest *t, uint8_t status);
uint64_t lm_host_features(LMTest *t);
void lm_set_features(LMTest *t, uint64_t features);
void lm_negotiate(LMTest *t, uint64_t features);
bool lm_packed(LMTest *t);
bool lm_event_idx(LMTest *t);
void lm_queue_init(LMTest *t, unsigned n, unsigned num);
void lm_queue_enable(LMQueue *q);
void lm_driver_ok(LMTest *t);
void lm_start(LMTest *t, uint64_t features);
void lm_queue_set_state(LMQueue *q, uint32_t state);
uint16_t lm_add(LMQueue *q, const LMSeg *segs, unsigned num, bool indirect);
uint16_t lm_add_buf(LMQueue *q, uint64_t addr, uint32_t len, bool in);
void lm_kick(LMQueue *q);
bool lm_get_used(LMQueue *q, uint16_t *id, uint32_t *len);
void lm_tx_timer(LMTest *t);
uint16_t lm_next_used(LMQueue *q, uint32_t *len);
uint32_t lm_wait_used(LMQueue *q, uint16_t id);

/* Packets. @seq makes each one different */
void lm_fill(uint8_t *data, unsigned len, uint32_t seq);
uint16_t lm_add_tx(LMTest *t, unsigned len, uint32_t seq, unsigned num);
uint16_t lm_tx(LMTest *t, unsigned len, uint32_t seq);
void lm_expect_tx(LMTest *t, unsigned len, uint32_t seq);
void lm_expect_no_tx(LMTest *t);
void lm_send(LMTest *t, unsigned len, uint32_t seq);
uint64_t lm_add_rx(LMTest *t, uint32_t len, uint16_t *id);
void lm_expect_rx(LMTest *t, uint64_t addr, uint16_t id, unsigned len,
                  uint32_t seq);
unsigned lm_block_backend(LMTest *t, uint32_t seq, unsigned segs);

/* Dirty log */
void lm_log_at(LMTest *t, uint64_t base, uint64_t end);
void lm_log_start(LMTest *t);
void lm_poison(LMTest *t);
void lm_snapshot(LMTest *t);
bool lm_logged(LMTest *t, uint64_t iova);
bool lm_written(LMTest *t, uint64_t iova);
unsigned lm_check_log(LMTest *t);
void lm_assert_untouched(LMTest *t);

/* Random choices, from VIRTIO_LM_SEED if that is set */
GRand *lm_rand(void);

/* The tests, by concern */
void lm_add_log_tests(void);
void lm_add_suspend_tests(void);
void lm_add_migrate_tests(void);
void lm_add_iommu_tests(void);
void lm_add_hostile_tests(void);
void lm_add_ctrl_tests(void);

#endif
