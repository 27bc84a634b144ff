# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of tools/lab/lab, which run in the lab's tree."""
