# SPDX-License-Identifier: GPL-2.0
"""Sphinx: the same pages that a kernel tree would have, and the site around them.

`make docs` sets srctree to this tree and KERNEL to a kernel's, whose kernel-doc
and Sphinx extensions read the comments and turn the paths of pages into links.
"""
import os
import sys
from pathlib import Path

kernel = os.environ["KERNEL"]
srctree = Path(os.environ["srctree"])
sys.path[:0] = [os.path.join(kernel, "Documentation/sphinx"), str(srctree / "Documentation/sphinx")]

project = "sysgenid and vmgenid"
release = (srctree / "VERSION").read_text(encoding="utf-8").strip()
extensions = ["kerneldoc", "automarkup", "manpage", "sphinx.ext.graphviz"]
kerneldoc_bin = os.path.join(kernel, "scripts/kernel-doc")
kerneldoc_srctree = str(srctree)
primary_domain = "c"
highlight_language = "none"
exclude_patterns = ["sphinx"]
graphviz_output_format = "svg"
# Without "D": two hyphens begin an option, and do not make a dash.
smartquotes_action = "qe"
html_theme = "furo"
# The furo of Debian 12 was built without the rules for browsers that prefer a dark
# page. These are its own colours; as options they get such rules.
html_theme_options = {"dark_css_variables": {
    "color-foreground-primary": "#ffffffcc",
    "color-foreground-secondary": "#9ca0a5",
    "color-foreground-muted": "#81868d",
    "color-foreground-border": "#666666",
    "color-background-primary": "#131416",
    "color-background-secondary": "#1a1c1e",
    "color-background-hover": "#1e2124ff",
    "color-background-hover--transparent": "#1e212400",
    "color-background-border": "#303335",
    "color-background-item": "#444",
    "color-brand-primary": "#6cb6ff",
    "color-brand-content": "#6cb6ff",
    "color-highlighted-background": "#083563",
    "color-highlight-on-target": "#333300",
    "color-api-keyword": "#9ca0a5",
    "color-admonition-background": "#18181a",
}}
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
