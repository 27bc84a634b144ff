# SPDX-License-Identifier: GPL-2.0-only
project = "virtio-lm"
extensions = []
master_doc = "index"
exclude_patterns = ["_build"]
html_theme = "alabaster"
