# SPDX-License-Identifier: GPL-2.0-only
import os
import re

project = "virtio-lm"
with open(os.path.join(os.path.dirname(__file__), "../dkms.conf"), encoding="ascii") as _file:
    release = re.search(r'^PACKAGE_VERSION="(.*)"$', _file.read(), re.M)[1]
extensions = []
master_doc = "index"
exclude_patterns = ["_build"]
html_theme = "alabaster"
