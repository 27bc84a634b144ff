# SPDX-License-Identifier: GPL-2.0-or-later
"""What a migration was made of, by the traces of both L1s' devices, which have one clock: L0's; and a picture of
it."""
import dataclasses

from vlm.l1 import LabError

from .bench import Picture

# of a picture, and of a traffic that one is made of
STEP_MS = 100

# a reset of a device that is suspended is traced as a resume
SUSPEND, RESUME, ENABLED, WRITE = ("virtio_lm_suspend", "virtio_lm_resume", "virtio_lm_queue_enabled",
                                   "virtio_lm_write")


def times(l1, name, begin):
    """When the L1's device has traced that, since then."""
    return [at for at, *_ in l1.events(name, since=begin)]


@dataclasses.dataclass
class Phases:
    """Times in seconds, by L0's clock."""
    begin: float            # QEMU is told to migrate
    # of the restart by shadow virtqueues; None without one
    restart: float          # the first suspend
    restarted: float        # the last queue is enabled again
    suspend: float          # of the source, the last one
    reset: float            # of the source
    first_write: float      # to the destination's registers
    enabled: float          # the last of its queues
    packet: float = None    # the first one from L2 after that

    @property
    def restart_ms(self):
        """How long shadow virtqueues stop the device at the beginning; 0 without them."""
        return (self.restarted - self.restart) * 1000 if self.restart else 0.0

    @property
    def unserved_ms(self):
        """How long no device serves L2."""
        return (self.enabled - self.suspend) * 1000

    @property
    def ours_ms(self):
        """What of that has the devices and their drivers at work, and L2's QEMU between their steps."""
        return (self.reset - self.suspend + self.enabled - self.first_write) * 1000

    @property
    def common_ms(self):
        """Between the two devices: QEMU's last pass over memory, its stream, its start of the destination."""
        return (self.first_write - self.reset) * 1000

    def named(self):
        """(from, to, name) of each."""
        parts = [(self.restart, self.restarted, "restart by shadow virtqueues")] if self.restart else []
        parts += [(self.suspend, self.reset, "source: suspend to reset"),
                  (self.reset, self.first_write, "last pass, stream"),
                  (self.first_write, self.enabled, "destination: start")]
        if self.packet:
            parts.append((self.enabled, self.packet, "to the first packet"))
        return parts


def first(found, after, what):
    """The first one of these times from then on."""
    later = [at for at in found if at >= after]
    if not later:
        raise LabError(f"{what} is not in the trace, after {after:.6f}")
    return later[0]


def of(migration):
    """The phases of a Migration that has ended well."""
    src, dst, begin = migration.src, migration.dst, migration.begin
    suspends = times(src, SUSPEND, begin)
    suspend = first(suspends[-1:], begin, f"{src.name}: a suspend")
    restarted = [at for at in times(src, ENABLED, begin) if at < suspend]
    reset = first(times(src, RESUME, begin), suspend, f"{src.name}: the reset of the suspended device")
    first_write = first(times(dst, WRITE, begin), reset, f"{dst.name}: a write to a register")
    enabled = first(times(dst, ENABLED, begin)[-1:], reset, f"{dst.name}: a queue that is enabled")
    return Phases(begin, suspends[0] if restarted else None, restarted[-1] if restarted else None, suspend, reset,
                  first_write, enabled)


def stopped_ms(l1, begin):
    """How long that L1's device has been stopped since then, by a migration that came to nothing: each time from
    a suspend to the last queue that is enabled after it, or the resume."""
    stops = []
    for at, name, _ in l1.events(SUSPEND, RESUME, ENABLED, since=begin):
        if name == SUSPEND:
            stops.append([at, at])
        elif stops:
            stops[-1][1] = at
    return sum(end - start for start, end in stops) * 1000


def first_packet(gaps, enabled):
    """When the first packet from L2 came after that: the end of the gap that its stop has left. None without one.
    gaps: Traffic.gaps("in", ...)."""
    return next((at for at, ms in gaps if at - ms / 1000 < enabled < at), None)


def picture(traffic, marks, end, title):
    """Packets of both directions, in steps of STEP_MS, from a second before the first mark to one after the end.
    That is to be in the past. marks: (from, to, name), as Phases.named() has them."""
    begin = min(first for first, _, _ in marks) - 1
    steps = traffic.steps(begin, end + 1)
    if not steps:
        raise LabError(f"the traffic's peer has told of no step between {begin:.1f} and {end + 1:.1f}")
    return Picture(f"{title}: packets in {STEP_MS} ms", "packets", STEP_MS / 1000,
                   {"to L2": [step["out"] for step in steps], "from L2": [step["in"] for step in steps]},
                   [(first - begin, last - begin, name) for first, last, name in marks])
