# SPDX-License-Identifier: GPL-2.0-or-later
"""L2 on its way from one L1 to another."""
import dataclasses
import time

from .config import PATIENCE
from .l1 import LabError
from .l2 import l2
from .machine import Q35

# a sync of the log, which tells how many pages the device has dirtied since the last one
PAGES_EVENT = "vhost_vdpa_log_sync"
BANDWIDTH = 128 << 20
# between two questions: L2's QEMU takes the time for an answer from L2
POLL_SECONDS = 0.2
ENDED = ("completed", "failed", "cancelled")


@dataclasses.dataclass
class Migrated:
    """What one migration took."""
    source: str
    destination: str
    dirty_log: str          # how it was done: device, svq, or unknown to L2's QEMU
    total_ms: int           # by the source's own account
    downtime_ms: int
    ram_bytes: int
    dirty_sync_count: int
    unserved_ms: float      # from the source's last suspend to the destination's last ring enable; -1 where
                            # that is unknown, as with events of two devices, which traces do not tell apart
    device_pages: int       # that the device dirtied, by its log; -1 without it

    def __str__(self):
        way = {"device": "device log", "svq": "shadow virtqueues"}.get(self.dirty_log, self.dirty_log)
        return (f"{self.source} -> {self.destination}, {way}: {self.total_ms / 1000:.1f} s in all, "
                f"downtime {self.downtime_ms} ms, {self.ram_bytes / 2**20:.0f} MiB sent in "
                f"{self.dirty_sync_count} passes")


def set_capabilities(conn, names):
    """Switch the migration capabilities of those names on, and all others off."""
    on = [c["capability"] for c in conn.cmd("query-migrate-capabilities") if c["state"]]
    conn.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": name in names} for name in dict.fromkeys([*on, *names])])


def wait_migrated(conn):
    """Until a migration at that QEMU, of either direction, is completed."""
    end = time.monotonic() + PATIENCE
    while (info := conn.cmd("query-migrate")).get("status") != "completed":
        if info.get("status") in ENDED:
            raise LabError(f"migration {info['status']}: {info.get('error-desc', 'no reason is given')}")
        if time.monotonic() > end:
            raise LabError(f"migration not completed within {PATIENCE} s: {info}")
        time.sleep(POLL_SECONDS)


class Migration:
    """guest on its way from one L1 to another, step by step. Use as a context manager.

    capabilities are switched on at both ends, and return-path: without it a migration is "completed"
    when all is sent, whatever the destination makes of that. All others are off. parameters are set
    at the source, as QMP names them.
    to_be: how L2 will migrate from the destination. nic, machine: the destination's, as for l2.start().
    stopped: the destination's QEMU is stopped before it can answer.
    """

    def __init__(self, src, dst, capabilities=(), to_be=None, nic=None, machine=Q35, stopped=False,
                 guest=l2, **parameters):
        self.guest = guest
        self.src = src
        self.dst = dst
        self.way = guest.dirty_log(src)
        guest.start(dst, incoming=True, dirty_log=to_be, nic=nic, machine=machine)
        self.there = guest.qmp(dst)
        self.here = guest.qmp(src)
        # they keep what an earlier migration has set
        for conn in self.here, self.there:
            set_capabilities(conn, ("return-path", *capabilities))
        self.cmd("migrate-set-parameters", **{"max_bandwidth": BANDWIDTH, **parameters})
        uri = f"tcp:{dst.address}:{guest.migration_port}"
        self.there.cmd("migrate-incoming", uri=uri)
        if stopped:
            dst.sh(f"kill -STOP $(cat {guest.pid_file})")
        self.begin = time.time()
        self.pages = len(guest.traced(src, PAGES_EVENT))
        self.cmd("migrate", uri=uri)

    def cmd(self, command, /, **args):
        """Run a command of the source's QEMU."""
        return self.here.cmd(command, **args)

    def info(self):
        """What the source tells of the migration."""
        return self.cmd("query-migrate")

    def wait(self, *states, seconds=PATIENCE, reached=lambda info: True):
        """Wait until the migration is in one of those states, and reached(info); the info."""
        end = time.monotonic() + seconds
        while True:
            info = self.info()
            if info.get("status") in states and reached(info):
                return info
            if info.get("status") in ENDED:
                raise LabError(f"migration {info['status']}, not {' or '.join(states)}: "
                               f"{info.get('error-desc', self.guest.complaint(self.src))}")
            if time.monotonic() > end:
                self.cmd("migrate_cancel")
                raise LabError(f"migration not {' or '.join(states)} within {seconds} s: {info}")
            time.sleep(POLL_SECONDS)

    def finish(self):
        """Wait for its good end; the source's QEMU ends. What it took."""
        info = self.wait("completed")
        end = time.monotonic() + PATIENCE
        while (status := self.there.cmd("query-status")["status"]) != "running":
            if time.monotonic() > end:
                raise LabError(f"L2 did not run on in {self.dst.name}, it is {status}: "
                               f"{self.guest.complaint(self.dst)}")
            time.sleep(POLL_SECONDS)
        suspends = self.src.events("virtio_lm_suspend", since=self.begin)
        enables = self.dst.events("virtio_lm_queue_enabled", since=self.begin)
        alone = suspends and enables and all(len({rest.split()[1] for *_, rest in events}) == 1
                                             for events in (suspends, enables))
        unserved = (enables[-1][0] - suspends[-1][0]) * 1000 if alone else -1
        pages = [int(line.rsplit(" ", 1)[1]) for line in self.guest.traced(self.src, PAGES_EVENT)[self.pages:]]
        self.guest.stop(self.src)
        return Migrated(self.src.name, self.dst.name, self.way, info["total-time"],
                        info["downtime"], info["ram"]["transferred"],
                        info["ram"]["dirty-sync-count"], unserved, sum(pages) if pages else -1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.here.close()
        self.there.close()


def migrate(src, dst, to_be=None, nic=None, machine=Q35, guest=l2, **parameters):
    """Move a running L2 from one L1 to another. to_be: how it will migrate from there. nic, machine: as
    for start()."""
    with Migration(src, dst, to_be=to_be, nic=nic, machine=machine, guest=guest, **parameters) as migration:
        return migration.finish()
