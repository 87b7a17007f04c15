# SPDX-License-Identifier: GPL-2.0
"""Sphinx: the same pages that a kernel tree would have, kernel-doc included.

`make docs` sets srctree to this tree and KERNEL to a kernel's, whose kernel-doc
and Sphinx extension read the comments.
"""
import os
import sys

kernel = os.environ["KERNEL"]
sys.path.insert(0, os.path.join(kernel, "Documentation/sphinx"))

project = "sysgenid and vmgenid"
extensions = ["kerneldoc"]
kerneldoc_bin = os.path.join(kernel, "scripts/kernel-doc")
kerneldoc_srctree = os.environ["srctree"]
primary_domain = "c"
highlight_language = "none"
html_theme = "alabaster"
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
