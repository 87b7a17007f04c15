# SPDX-License-Identifier: GPL-2.0
"""Sphinx directive `manpage`: a manual page of this tree, with links and search.

    .. manpage:: tools/sysgenid/man/sysgenid.8

pandoc reads the page; its sections become sections of the document.
"""
import os
import re
import subprocess

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.nodes import nested_parse_with_titles


def to_rst(path: str) -> str:
    """The manual page as reStructuredText, with links to the pages that we have."""
    env_tree = os.environ["srctree"]
    # Wide, so that no cell of a table is cut within a word that is marked up.
    text = subprocess.run(
        ["pandoc", "--from=man", "--to=rst", "--columns=240", os.path.join(env_tree, path)],
        check=True, stdout=subprocess.PIPE, text=True).stdout

    def link(found: re.Match) -> str:
        name = f"{found[1]}.{found[2]}"
        known = os.path.exists(os.path.join(env_tree, "Documentation/man", f"{name}.rst"))
        return f":doc:`{found[1]}({found[2]}) </man/{name}>`" if known else found[0]

    return re.sub(r"\*\*([\w-]+)\*\*\\ \((\d)\)", link, text)


class ManPage(Directive):
    """Includes a manual page."""
    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0]
        self.state.document.settings.record_dependencies.add(
            os.path.join(os.environ["srctree"], path))
        lines = StringList(to_rst(path).splitlines(), source=path)
        node = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, lines, node)
        return node.children


def setup(app) -> dict:
    app.add_directive("manpage", ManPage)
    return {"parallel_read_safe": True}
