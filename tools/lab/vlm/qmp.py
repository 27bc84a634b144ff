# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client (docs/interop/qmp-spec.rst in QEMU), as small as the lab needs it."""
import json
import socket
import time

from .config import PATIENCE


# for a server that is about to listen
LISTENS_SECONDS = 60


class QMPError(Exception):
    """QEMU answered with an error, or not at all."""


class QMP:
    """One connection to a QMP server at a socket path or a (host, port)."""

    def __init__(self, address, timeout=PATIENCE):
        end = time.monotonic() + min(timeout, LISTENS_SECONDS)
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        while True:
            self.sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                self.sock.settimeout(timeout)
                self.sock.connect(address)
                break
            except OSError as err:
                self.sock.close()
                if time.monotonic() > end:
                    raise QMPError(f"nobody listens at {address} for QMP: {err}") from err
                time.sleep(0.2)
        self.file = self.sock.makefile("rw", encoding="utf-8", newline="\n")
        self.events = []
        self._read()
        self.cmd("qmp_capabilities")

    def _read(self):
        try:
            line = self.file.readline()
        except OSError as err:
            raise QMPError(f"QMP connection lost: {err}") from err
        if not line:
            raise QMPError("QMP connection closed: QEMU is gone")
        return json.loads(line)

    def cmd(self, command, /, **args):
        """Run a command; events that come in between are kept in .events."""
        message = {"execute": command}
        if args:
            message["arguments"] = {k.replace("_", "-"): v for k, v in args.items()}
        try:
            self.file.write(json.dumps(message) + "\n")
            self.file.flush()
        except OSError as err:
            raise QMPError(f"QMP connection lost: {err}") from err
        while True:
            answer = self._read()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QMPError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def close(self):
        self.file.close()
        self.sock.close()
