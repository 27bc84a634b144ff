# SPDX-License-Identifier: GPL-2.0-or-later
"""A vDPA device as its administrator sees it: vdpa(8) of iproute2, and which bus driver has the device."""
import json

# Feature bits by the names that vdpa(8) has for them
NAMED = {
    0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
    9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO",
    15: "MRG_RXBUF", 16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA",
    21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 24: "NOTIFY_ON_EMPTY", 27: "ANY_LAYOUT",
    28: "RING_INDIRECT_DESC", 29: "RING_EVENT_IDX", 32: "VERSION_1", 33: "ACCESS_PLATFORM", 34: "RING_PACKED",
    35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV", 38: "NOTIFICATION_DATA", 57: "HASH_REPORT", 60: "RSS",
    61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
}
# and those that it has none for: it says bit_40, and in JSON the number alone
NAMELESS = {
    6: "GSO", 40: "RING_RESET", 50: "DEVICE_STATS", 52: "VQ_NOTF_COAL", 53: "NOTF_COAL", 54: "GUEST_USO4",
    55: "GUEST_USO6", 56: "HOST_USO", 59: "GUEST_HDRLEN",
}
BITS = {name: bit for bit, name in (NAMED | NAMELESS).items()}


def mask(names):
    """Feature bits, by their names."""
    return sum(1 << BITS[name] for name in names)


def printed(features):
    """Feature bits as vdpa(8) prints them in JSON."""
    return [NAMED.get(bit, bit) for bit in range(64) if features >> bit & 1]


def once(pairs):
    """A JSON object in which no key comes twice."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"a key comes twice: {keys}")
    return dict(pairs)


def shows(l1, words):
    """What `vdpa` with those words prints, and what it prints with -jp."""
    return l1.sh(f"vdpa {words}"), json.loads(l1.sh(f"vdpa -jp {words}"), object_pairs_hook=once)


# what vdpa(8) begins a line for
LINES = "supported_classes", "max_supported_vqs", "dev_features", "negotiated_features"


def text(value):
    """A value of JSON as vdpa(8) prints it otherwise."""
    if isinstance(value, list):
        return " ".join(f"bit_{word}" if isinstance(word, int) else word for word in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def plain(section, entries):
    """What it prints where it prints {section: entries} as JSON: the values of `dev show` have a blank between
    them, the others' one behind each."""
    lines = ""
    for name, fields in entries.items():
        words = [f"\n  {key} {text(value)}" if key in LINES else f"{key.strip()} {text(value)}"
                 for key, value in fields.items()]
        if section == "dev":
            lines += f"{name}: {' '.join(words)}\n"
        else:
            lines += f"{name}: {''.join(word if word[0] == chr(10) else word + ' ' for word in words)}\n"
    return lines


def bind(l1, driver, name="vdpa0"):
    """Give the vDPA device to that driver of the vDPA bus."""
    l1.sh(f"""cd /sys/bus/vdpa/devices/{name}
        [ ! -e driver ] || echo {name} >driver/unbind
        echo {driver} >driver_override
        echo {name} >/sys/bus/vdpa/drivers/{driver}/bind""")
