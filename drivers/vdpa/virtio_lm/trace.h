/* SPDX-License-Identifier: GPL-2.0-or-later */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_lm_vdpa

#if !defined(_VIRTIO_LM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VIRTIO_LM_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>
#include <linux/vdpa.h>
#include <uapi/linux/vhost_types.h>

TRACE_EVENT(virtio_lm_status,
	    TP_PROTO(struct device *dev, u8 from, u8 to, int ret),
	    TP_ARGS(dev, from, to, ret),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u8, from)
			     __field(u8, to)
			     __field(int, ret)
	    ),
	    TP_fast_assign(__assign_str(dev);
			   __entry->from = from;
			   __entry->to = to;
			   __entry->ret = ret;
	    ),
	    TP_printk("%s 0x%02x -> 0x%02x ret=%d",
		      __get_str(dev), __entry->from, __entry->to, __entry->ret)
);

DECLARE_EVENT_CLASS(virtio_lm_ring,
		    TP_PROTO(struct device *dev, u16 device_idx, u32 ring, int ret),
		    TP_ARGS(dev, device_idx, ring, ret),
		    TP_STRUCT__entry(__string(dev, dev_name(dev))
				     __field(u16, device_idx)
				     __field(u32, ring)
				     __field(int, ret)
		    ),
		    TP_fast_assign(__assign_str(dev);
				   __entry->device_idx = device_idx;
				   __entry->ring = ring;
				   __entry->ret = ret;
		    ),
		    TP_printk("%s vq=%u avail=0x%04x used=0x%04x ret=%d",
			      __get_str(dev), __entry->device_idx, __entry->ring & 0xffff,
			      __entry->ring >> 16, __entry->ret)
);

DEFINE_EVENT(virtio_lm_ring, virtio_lm_get_ring,
	     TP_PROTO(struct device *dev, u16 device_idx, u32 ring, int ret),
	     TP_ARGS(dev, device_idx, ring, ret)
);

DEFINE_EVENT(virtio_lm_ring, virtio_lm_set_ring,
	     TP_PROTO(struct device *dev, u16 device_idx, u32 ring, int ret),
	     TP_ARGS(dev, device_idx, ring, ret)
);

DECLARE_EVENT_CLASS(virtio_lm_switch,
		    TP_PROTO(struct device *dev, s64 us, int ret),
		    TP_ARGS(dev, us, ret),
		    TP_STRUCT__entry(__string(dev, dev_name(dev))
				     __field(s64, us)
				     __field(int, ret)
		    ),
		    TP_fast_assign(__assign_str(dev);
				   __entry->us = us;
				   __entry->ret = ret;
		    ),
		    TP_printk("%s us=%lld ret=%d", __get_str(dev), __entry->us, __entry->ret)
);

DEFINE_EVENT(virtio_lm_switch, virtio_lm_suspend,
	     TP_PROTO(struct device *dev, s64 us, int ret),
	     TP_ARGS(dev, us, ret)
);

DEFINE_EVENT(virtio_lm_switch, virtio_lm_resume,
	     TP_PROTO(struct device *dev, s64 us, int ret),
	     TP_ARGS(dev, us, ret)
);

TRACE_EVENT(virtio_lm_command,
	    TP_PROTO(struct device *dev, u8 class, u8 cmd, u32 len, s64 us, int ret),
	    TP_ARGS(dev, class, cmd, len, us, ret),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u8, class)
			     __field(u8, cmd)
			     __field(u32, len)
			     __field(s64, us)
			     __field(int, ret)
	    ),
	    TP_fast_assign(__assign_str(dev);
			   __entry->class = class;
			   __entry->cmd = cmd;
			   __entry->len = len;
			   __entry->us = us;
			   __entry->ret = ret;
	    ),
	    TP_printk("%s class=%u cmd=%u len=%u us=%lld ret=%d", __get_str(dev),
		      __entry->class, __entry->cmd, __entry->len, __entry->us, __entry->ret)
);

#ifdef VHOST_VDPA_LOG_FAULT
TRACE_EVENT(virtio_lm_log_start,
	    TP_PROTO(struct device *dev, unsigned int nranges, u64 first, u64 last, s64 us,
		     int ret),
	    TP_ARGS(dev, nranges, first, last, us, ret),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(unsigned int, nranges)
			     __field(u64, first)
			     __field(u64, last)
			     __field(s64, us)
			     __field(int, ret)
	    ),
	    TP_fast_assign(__assign_str(dev);
			   __entry->nranges = nranges;
			   __entry->first = first;
			   __entry->last = last;
			   __entry->us = us;
			   __entry->ret = ret;
	    ),
	    TP_printk("%s nranges=%u first=0x%llx last=0x%llx us=%lld ret=%d", __get_str(dev),
		      __entry->nranges, __entry->first, __entry->last, __entry->us,
		      __entry->ret)
);

TRACE_EVENT(virtio_lm_log_read,
	    TP_PROTO(struct device *dev, u64 iova, u64 length, u32 flags, s64 us, int ret),
	    TP_ARGS(dev, iova, length, flags, us, ret),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u64, iova)
			     __field(u64, length)
			     __field(u32, flags)
			     __field(s64, us)
			     __field(int, ret)
	    ),
	    TP_fast_assign(__assign_str(dev);
			   __entry->iova = iova;
			   __entry->length = length;
			   __entry->flags = flags;
			   __entry->us = us;
			   __entry->ret = ret;
	    ),
	    TP_printk("%s iova=0x%llx length=0x%llx flags=0x%x us=%lld ret=%d", __get_str(dev),
		      __entry->iova, __entry->length, __entry->flags, __entry->us,
		      __entry->ret)
);

DEFINE_EVENT(virtio_lm_switch, virtio_lm_log_stop,
	     TP_PROTO(struct device *dev, s64 us, int ret),
	     TP_ARGS(dev, us, ret)
);
#endif

TRACE_EVENT(virtio_lm_write,
	    TP_PROTO(struct device *dev, u32 offset, u32 value),
	    TP_ARGS(dev, offset, value),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u32, offset)
			     __field(u32, value)
	    ),
	    TP_fast_assign(__assign_str(dev);
			   __entry->offset = offset;
			   __entry->value = value;
	    ),
	    TP_printk("%s 0x%03x = 0x%08x", __get_str(dev), __entry->offset, __entry->value)
);

#endif /* _VIRTIO_LM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
