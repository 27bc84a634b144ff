# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames to a function, from L0, as many as it takes."""
import socket
import threading
import time

# bytes of each, and how many in a burst, of which there is one each millisecond
LONG, BURST = 1500, 48


class Sender(threading.Thread):
    """Sends frames to a MAC. Use as a context manager: leaving it ends that."""

    def __init__(self, mac):
        super().__init__(daemon=True)
        mac = bytes.fromhex(mac.replace(":", ""))
        # of an EtherType that is for experiments
        self.frame = (mac + bytes.fromhex("02000000000188b5")).ljust(LONG, b"x")
        self.on = True

    def run(self):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("br0", 0))
            while self.on:
                for _ in range(BURST):
                    sock.send(self.frame)
                time.sleep(0.001)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.on = False
        self.join()
