# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual functions of virtio-net-pci, where L1's QEMU has them."""
import subprocess

from . import tap

# What makes the lab's function a virtual one, after its other properties. Its physical one is PHYSICAL
VIRTUAL = "addr=0x0.0x1,sriov-pf=pf"


def lost(number, where, more=""):
    """QEMU's words for a function of a kind that the lab itself has none of; what it sends is lost."""
    return (f" -netdev socket,id=lost{number},udp=127.0.0.1:9,localaddr=127.0.0.1:{9000 + number}"
            f" -device virtio-net-pci,netdev=lost{number},romfile=,{where},vdpa=on,iommu_platform=on{more}")


# a physical function comes after its virtual ones
PHYSICAL = lost(0, "bus=rp1,addr=0x0.0x0,id=pf", ",ats=on")


def there():
    """QEMU's virtio-net has virtual functions from 10.1 on."""
    return "sriov-pf" in subprocess.run([tap.config().qemu, "-device", "virtio-net-pci,help"], text=True,
                                        stdout=subprocess.PIPE, check=True).stdout


def make(l1):
    """Have the lab's first function, which is physical, make a virtual one: it is the lab's from then on."""
    l1.sh(f"echo 1 >/sys/bus/pci/devices/{l1.pci(0)}/sriov_numvfs")
