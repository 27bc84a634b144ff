# SPDX-License-Identifier: GPL-2.0-or-later
# The machines and devices that the lab and the qtests use

# machines: q35 for L1 and L2, pc for QEMU's own qtests, microvm for an L2 without PCI
CONFIG_Q35=y
CONFIG_I440FX=y
CONFIG_MICROVM=y
CONFIG_HPET=y
CONFIG_SERIAL_ISA=y

# IOMMUs of L1
CONFIG_VTD=y
CONFIG_AMD_IOMMU=y
CONFIG_VIRTIO_IOMMU=y

# what vdpa=on functions are plugged into
CONFIG_PCIE_PORT=y
CONFIG_PCIE_PCI_BRIDGE=y
CONFIG_PCI_BRIDGE=y
# what the tables of ACPI refer to
CONFIG_PXB=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y

# virtio
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_9P=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_SCSI=y
CONFIG_VIRTIO_RNG=y
CONFIG_VIRTIO_SERIAL=y
CONFIG_VIRTIO_BALLOON=y

# virtme-ng gives every guest a watchdog
CONFIG_WDT_IB6300ESB=y
