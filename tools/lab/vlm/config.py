# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab is made of. cli/options.py says of each field that is an option what it means."""
import dataclasses

# For anything that a guest is to do, in seconds. It ends what hangs, and promises nothing about speed: on a busy host,
# or on the debug kernel, minutes are usual
PATIENCE = 600


@dataclasses.dataclass
class Config:
    """The configuration that the command line, the demonstration and the tests share."""
    qemu: str = ""
    # the folder of a kernel's images, as tools/lab/kernel makes it
    kernel: str = ""
    driver: str = ""
    simulator: str = ""
    log_modules: str = ""
    vdpa_modules: str = "log"
    # the folder that tools/lab/helpers makes
    tools: str = ""
    l2_qemu: str = ""
    dirty_log: str = "auto"
    l2_kernel: str = ""
    l2_initrd: str = ""
    l1s: int = 1
    cpus: int = 2
    memory: int = 1024
    devices: int = 1
    queues: int = 1
    # a stock QEMU as L2's VMM may want queues of 1024, whatever it is told: see lab.rst
    device_props: str = "iommu_platform=on,ats=on,vdpa=on,rx_queue_size=1024,tx_queue_size=1024"
    machine: str = "q35"
    iommu: str = "intel-iommu,intremap=on,device-iotlb=on,aw-bits=48"
    append: str = ""
    qemu_args: str = ""
    l2_memory: int = 256
    l2_append: str = ""
    l2_qemu_args: str = ""
    rate: int = 200
    pages: int = 2000
    accel: str = "auto"
    threads: str = "auto"
    # found out when the lab starts
    kvm: bool = False
