# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of tools/lab/tests share."""
