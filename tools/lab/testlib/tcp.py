# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP between L0 and L2, as fast as it goes, for a while: L2's end is busybox's nc, which listens all the time."""
import fcntl
import socket
import struct
import time

from vlm.l1 import LabError
from vlm.l2 import l2

# L2 takes and drops what comes to the first port, and sends zeros from the second
SINK, SOURCE = 5001, 5002
LISTEN = ("while :; do busybox nc -l -p {} </dev/null >/dev/null 2>&1; done &", SINK), \
         ("while :; do busybox nc -l -p {} </dev/zero >/dev/null 2>&1; done &", SOURCE)
# until the window has grown
WARM_SECONDS = 1
CONNECT_SECONDS = 60
CHUNK = bytes(1 << 16)
# what of the bytes that were written the other end has not acknowledged (tcp(7), SIOCOUTQ)
SIOCOUTQ = 0x5411


def listen(l1):
    """Have the L2 in that L1 listen."""
    for line, port in LISTEN:
        l2.console(l1, line.format(port))


def connect(port, address):
    """To L2, at that address of its. Its nc listens again a moment after the last connection."""
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            conn = socket.create_connection((address, port), timeout=5)
            conn.settimeout(0.1)
            return conn
        except OSError as err:
            if time.monotonic() > end:
                raise LabError(f"L2 does not listen at port {port} within {CONNECT_SECONDS} s: {err}") from err
            time.sleep(0.1)


def acknowledged(conn, sent):
    """Of what was sent."""
    return sent - struct.unpack("i", fcntl.ioctl(conn, SIOCOUTQ, bytes(4)))[0]


def rate(port, seconds, address):
    """The MiB/s of a connection to that port of L2, over so many seconds."""
    conn = connect(port, address)
    count = 0
    begin = mark = None
    start = time.monotonic()
    try:
        while (now := time.monotonic()) < start + WARM_SECONDS + seconds:
            if begin is None and now >= start + WARM_SECONDS:
                begin, mark = now, acknowledged(conn, count) if port == SINK else count
            try:
                count += conn.send(CHUNK) if port == SINK else len(conn.recv(len(CHUNK)))
            except TimeoutError:
                pass
        return ((acknowledged(conn, count) if port == SINK else count) - mark) / (time.monotonic() - begin) / 2**20
    finally:
        conn.close()


def to_l2(seconds, address=l2.address):
    """How fast L2 takes what it is sent."""
    return rate(SINK, seconds, address)


def from_l2(seconds, address=l2.address):
    """How fast L2 sends."""
    return rate(SOURCE, seconds, address)
