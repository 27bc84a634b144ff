# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab, from inside its tree: L1 guests, their network, L2 guests in them."""
