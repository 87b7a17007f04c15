# SPDX-License-Identifier: GPL-2.0
"""Sphinx directive `manpage`: a manual page of this tree, with links and search.

    .. manpage:: tools/sysgenid/man/sysgenid.8

pandoc reads the page; its sections become sections of the document.
"""
import os
import re
import subprocess
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.nodes import nested_parse_with_titles


SRCTREE = Path(os.environ["srctree"])


def page_of(name: str) -> str | None:
    """The document with that manual page, which may be under another name; None: we have none."""
    for path in SRCTREE.glob(f"tools/**/man/{name}"):
        other = re.match(r"\.so man\d/(\S+)", path.read_text(encoding="utf-8"))
        return other[1] if other else name
    return None


def link(found: re.Match) -> str:
    page = page_of(f"{found[1]}.{found[2]}")
    return f":doc:`{found[1]}({found[2]}) </man/{page}>`" if page else found[0]


def to_rst(path: Path) -> str:
    """The manual page as reStructuredText, with links to the pages that we have."""
    # Wide, so that no cell of a table is cut within a word that is marked up.
    text = subprocess.run(["pandoc", "--from=man", "--to=rst", "--columns=240", path],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.sub(r"\*\*([\w-]+)\*\*\\ \((\d)\)", link, text)


class ManPage(Directive):
    """Includes a manual page."""
    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        path = SRCTREE / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(path))
        lines = StringList(to_rst(path).splitlines(), source=str(path))
        node = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, lines, node)
        return node.children


def setup(app) -> dict:
    app.add_directive("manpage", ManPage)
    return {"parallel_read_safe": True}
