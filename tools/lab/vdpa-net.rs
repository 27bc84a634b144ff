// SPDX-License-Identifier: GPL-2.0-or-later
//! vdpa-net NODE IP: drive the vDPA network device at NODE with rust-vmm's vhost crate, by the calls of
//! cloud-hypervisor in their order, and answer ARP and echo requests for IP, with the device's own MAC.
//!
//! The end of stdin ends it: the device is suspended, and reset. A line on stdin ends it as a live
//! migration does: the device is suspended, and closed as it is.

use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use vhost::vdpa::VhostVdpa;
use vhost::vhost_kern::vdpa::VhostKernVdpa;
use vhost::vhost_kern::vhost_binding::VHOST_BACKEND_F_SUSPEND;
use vhost::vhost_kern::VhostKernFeatures;
use vhost::{VhostBackend, VringConfigData};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

type Memory = GuestMemoryMmap<()>;
type Failure = Box<dyn std::error::Error>;

const ID_NET: u32 = 1;
// VIRTIO_NET_F_MAC, STATUS, VIRTIO_F_VERSION_1, ACCESS_PLATFORM
const FEATURES: u64 = (1 << 5) | (1 << 16) | (1 << 32) | (1 << 33);
// ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK
const STATUS: u8 = 1 | 2 | 4 | 8;
const CONFIG_STATUS: u32 = 6;

// Each queue has a MiB: its three rings, and a buffer for each of its descriptors. Both are less than
// the memory that a process may lock by default. Not from 0 on: the driver takes a ring at 0 for one
// whose address nobody has set.
const SPAN: u64 = 1 << 20;
const START: u64 = 1 << 20;
const LENGTH: u64 = 2 * SPAN;
const SIZE: u16 = 256;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x3000;
const BUFFER: usize = 2048;
const HEADER: usize = 12;
const DESC_F_WRITE: u16 = 2;

/// Make a call of the crate; an error tells which one failed.
macro_rules! call {
    ($vdpa:ident.$name:ident($($arg:expr),*)) => {
        $vdpa.$name($($arg),*).map_err(|err| format!("{}: {err}", stringify!($name)))
    };
}

/// A split virtqueue of the guest that we are; descriptor n always has buffer n.
struct Queue<'a> {
    mem: &'a Memory,
    index: usize,
    base: u64,
    free: Vec<u16>,
    avail: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

impl<'a> Queue<'a> {
    fn new(mem: &'a Memory, index: usize) -> Result<Self, Failure> {
        Ok(Queue {
            mem,
            index,
            base: START + index as u64 * SPAN,
            free: (0..SIZE).collect(),
            avail: 0,
            used: 0,
            kick: EventFd::new(libc::EFD_NONBLOCK)?,
            call: EventFd::new(libc::EFD_NONBLOCK)?,
        })
    }

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.base + offset)
    }

    fn buffer(&self, id: u16) -> GuestAddress {
        self.at(BUFFERS + u64::from(id) * BUFFER as u64)
    }

    /// All that the device is told of it before it is enabled.
    fn set_up(&self, vdpa: &VhostKernVdpa<&Memory>, max: u16) -> Result<(), Failure> {
        let config = VringConfigData {
            queue_max_size: max,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: self.base,
            avail_ring_addr: self.base + AVAIL,
            used_ring_addr: self.base + USED,
            log_addr: None,
        };
        call!(vdpa.set_vring_num(self.index, SIZE))?;
        call!(vdpa.set_vring_addr(self.index, &config))?;
        call!(vdpa.set_vring_base(self.index, 0))?;
        call!(vdpa.set_vring_call(self.index, &self.call))?;
        call!(vdpa.set_vring_kick(self.index, &self.kick))?;
        Ok(())
    }

    /// Give the device a descriptor, whose buffer it is to read or to write.
    fn give(&mut self, id: u16, len: usize, flags: u16) -> Result<(), Failure> {
        let desc = self.at(u64::from(id) * 16);
        self.mem.write_obj(self.buffer(id).0, desc)?;
        self.mem.write_obj(len as u32, GuestAddress(desc.0 + 8))?;
        self.mem.write_obj(flags, GuestAddress(desc.0 + 12))?;
        let slot = AVAIL + 4 + u64::from(self.avail % SIZE) * 2;
        self.mem.write_obj(id, self.at(slot))?;
        self.avail = self.avail.wrapping_add(1);
        self.mem
            .store(self.avail, self.at(AVAIL + 2), Ordering::Release)?;
        Ok(())
    }

    /// A descriptor that the device has used, and how much of it was written.
    fn take(&mut self) -> Result<Option<(u16, usize)>, Failure> {
        if self.mem.load::<u16>(self.at(USED + 2), Ordering::Acquire)? == self.used {
            return Ok(None);
        }
        let slot = self.at(USED + 4 + u64::from(self.used % SIZE) * 8);
        let [id, len] = self.mem.read_obj::<[u32; 2]>(slot)?;
        if id >= SIZE.into() || len as usize > BUFFER {
            return Err(format!(
                "queue {}: descriptor {id} of {len} bytes is used",
                self.index
            )
            .into());
        }
        self.used = self.used.wrapping_add(1);
        Ok(Some((id as u16, len as usize)))
    }

    /// The notifications until now are seen.
    fn seen(&self) {
        let _ = self.call.read();
    }
}

/// Make the answer of a frame, if it is an ARP or echo request for us.
fn answer(frame: &mut [u8], mac: &[u8; 6], ip: &[u8; 4]) -> bool {
    if frame.len() < 42 {
        return false;
    }
    if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == *ip {
        frame[21] = 2;
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(mac);
        frame[28..32].copy_from_slice(ip);
    } else if frame[12..15] == [8, 0, 0x45]
        && frame[23] == 1
        && frame[30..35] == [ip[0], ip[1], ip[2], ip[3], 8]
    {
        frame.copy_within(26..30, 30);
        frame[26..30].copy_from_slice(ip);
        // the type was 8: the sum of the rest is as much more
        frame[34] = 0;
        let (sum, carry) = u16::from_be_bytes([frame[36], frame[37]]).overflowing_add(8 << 8);
        frame[36..38].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    } else {
        return false;
    }
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(mac);
    true
}

/// Answer what has come; how much of it was for us.
fn serve(rx: &mut Queue, tx: &mut Queue, mac: &[u8; 6], ip: &[u8; 4]) -> Result<u32, Failure> {
    let mut answered = 0;
    rx.seen();
    tx.seen();
    while let Some((id, _)) = tx.take()? {
        tx.free.push(id);
    }
    while let Some((id, len)) = rx.take()? {
        let mut data = [0; BUFFER];
        rx.mem.read_slice(&mut data[..len], rx.buffer(id))?;
        rx.give(id, BUFFER, DESC_F_WRITE)?;
        if len < HEADER || !answer(&mut data[HEADER..len], mac, ip) {
            continue;
        }
        data[..HEADER].fill(0);
        // as a network does where there is no room: it is lost
        if let Some(id) = tx.free.pop() {
            tx.mem.write_slice(&data[..len], tx.buffer(id))?;
            tx.give(id, len, 0)?;
            answered += 1;
        }
    }
    rx.kick.write(1)?;
    tx.kick.write(1)?;
    Ok(answered)
}

/// Does the configuration say that there is a link?
fn link(vdpa: &VhostKernVdpa<&Memory>) -> Result<u8, Failure> {
    let mut status = [0; 2];
    call!(vdpa.get_config(CONFIG_STATUS, &mut status))?;
    Ok(status[0] & 1)
}

fn run(node: &str, ip: &[u8; 4]) -> Result<(), Failure> {
    let mem = Memory::from_ranges(&[(GuestAddress(START), LENGTH as usize)])?;
    let mut vdpa = VhostKernVdpa::new(node, &mem).map_err(|err| format!("open: {err}"))?;
    call!(vdpa.set_owner())?;
    let id = call!(vdpa.get_device_id())?;
    let max = call!(vdpa.get_vring_num())?;
    let features = call!(vdpa.get_features())?;
    let backend = call!(vdpa.get_backend_features())?;
    // the crate picks the format of its messages for dma_map by it
    vdpa.set_backend_features_acked(backend);
    let range = call!(vdpa.get_iova_range())?;
    if id != ID_NET || max < SIZE || features & FEATURES != FEATURES {
        return Err(format!("device {id}, {max} descriptors, features {features:#x}").into());
    }
    if range.first > START || range.last < START + LENGTH - 1 {
        return Err(format!("IOVAs are {:#x}-{:#x}", range.first, range.last).into());
    }
    let host = mem.get_host_address(GuestAddress(START))?;
    call!(vdpa.dma_map(START, LENGTH, host, false))?;

    // all with a status of 0, and then all of the status at once
    let (mut rx, mut tx) = (Queue::new(&mem, 0)?, Queue::new(&mem, 1)?);
    let changed = EventFd::new(libc::EFD_NONBLOCK)?;
    call!(vdpa.set_features(FEATURES))?;
    call!(vdpa.set_backend_features(backend))?;
    rx.set_up(&vdpa, max)?;
    tx.set_up(&vdpa, max)?;
    call!(vdpa.set_config_call(&changed))?;
    call!(vdpa.set_vring_enable(0, true))?;
    call!(vdpa.set_vring_enable(1, true))?;
    call!(vdpa.set_status(STATUS))?;
    let status = call!(vdpa.get_status())?;
    if status != STATUS {
        return Err(format!("the device has status {status:#x}").into());
    }

    let mut mac = [0; 6];
    call!(vdpa.get_config(0, &mut mac))?;
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    let up = link(&vdpa)?;
    println!("vdpa-net: runs, mac {text}, link {up}, backend features {backend:#x}");
    for id in 0..SIZE {
        rx.give(id, BUFFER, DESC_F_WRITE)?;
    }
    rx.kick.write(1)?;

    let mut answered = 0;
    let mut fds = [
        0,
        rx.call.as_raw_fd(),
        tx.call.as_raw_fd(),
        changed.as_raw_fd(),
    ]
    .map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    while fds[0].revents == 0 {
        // SAFETY: it is an array of that length
        if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) } < 0 {
            return Err(format!("poll: {}", std::io::Error::last_os_error()).into());
        }
        if changed.read().is_ok() {
            println!("vdpa-net: link {}", link(&vdpa)?);
        }
        answered += serve(&mut rx, &mut tx, &mac, ip)?;
    }
    let leave = std::io::stdin().read(&mut [0; 80])? > 0;

    if backend & (1 << VHOST_BACKEND_F_SUSPEND) == 0 {
        return Err("the device cannot be suspended".into());
    }
    call!(vdpa.suspend())?;
    // the crate has the kernel write to a variable that it declares immutable: if both are 0,
    // though packets went through, a compiler has made use of that
    let bases = (
        call!(vdpa.get_vring_base(0))?,
        call!(vdpa.get_vring_base(1))?,
    );
    while rx.take()?.is_some() {}
    while tx.take()?.is_some() {}
    if !leave {
        call!(vdpa.set_vring_enable(0, false))?;
        call!(vdpa.set_vring_enable(1, false))?;
        call!(vdpa.set_status(0))?;
        call!(vdpa.dma_unmap(START, LENGTH))?;
    }
    let used = (rx.used, tx.used);
    println!("vdpa-net: answered {answered}, bases {bases:?}, used {used:?}");
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let Some(Ok(ip)) = args.get(2).map(|ip| ip.parse::<Ipv4Addr>()) else {
        eprintln!("usage: vdpa-net NODE IP");
        std::process::exit(2);
    };
    if let Err(err) = run(&args[1], &ip.octets()) {
        eprintln!("vdpa-net: {err}");
        std::process::exit(1);
    }
}
