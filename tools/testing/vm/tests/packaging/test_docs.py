# SPDX-License-Identifier: GPL-2.0
"""The documentation: the site builds, its links are valid, and it is complete."""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from harness import host, kernels

DOCUMENTATION = host.ROOT / "Documentation"
TEXTS = [*sorted(host.ROOT.glob("*.md")), *sorted(DOCUMENTATION.rglob("*.rst"))]
# Sphinx generates these pages, whose links lead to tested pages.
GENERATED = {"genindex.html", "search.html"}


class Page(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.places, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("img", "script") and "src" in found:
            self.links.append(found["src"])
        elif tag == "object" and "data" in found:
            self.links.append(found["data"])


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """The pages that `make docs` builds; a warning of Sphinx is an error."""
    with host.locked("docs", host.BUILD / "locks"):
        host.run(["make", "-s", "-C", host.ROOT, "docs"], "building the documentation")
        return {path: Page(path) for path in sorted((host.BUILD / "docs").rglob("*.html"))
                if path.name not in GENERATED}


def test_site_links_are_valid(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, place = unquote(link).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.exists() or (place and target in site
                                       and place not in site[target].places):
                broken.append(f"{path.name}: {link}")
    assert len(site) > 20 and not broken


def test_search_finds_every_page(site):
    index = (host.BUILD / "docs/searchindex.js").read_text(encoding="utf-8")
    for path in DOCUMENTATION.rglob("*.rst"):
        assert f'"{path.relative_to(DOCUMENTATION).with_suffix("")}"' in index, path


def test_named_files_exist():
    missing = []
    for text in TEXTS:
        content = text.read_text(encoding="utf-8")
        named = set(re.findall(r"\bDocumentation/[\w/.-]+\w", content))
        if text.suffix == ".md":
            named |= set(re.findall(r"\]\(([^)#:]+)\)", content))
        missing += [f"{text.name}: {name}" for name in sorted(named)
                    if not (host.ROOT / name).exists()]
    assert not missing


# The range of kernels, as a text states it.
RANGE = re.compile(r"\b(\d+)\.(\d+) to (?:the newest backport of Debian 13, which is )?(\d+)\.(\d+)\b")


def test_texts_and_dkms_state_range_of_tested_kernels():
    ranges = {}
    for text in TEXTS:
        for found in RANGE.findall(" ".join(text.read_text(encoding="utf-8").split())):
            ranges.setdefault(tuple(map(int, found)), set()).add(text.name)
    assert list(ranges.values()) == [{"README.md", "NEWS.md", "guarantees.rst"}], ranges
    (*oldest, major, minor), = ranges
    tested = [re.match(r"(\d+)\\\.(\d+)", stock.release) for stock in kernels.STOCK.values()]
    assert oldest == min([int(part) for part in found.groups()] for found in tested if found)
    newest = kernels.natural(kernels.fetched(kernels.NEWEST_SOURCE)[0]["release"])
    assert [major, minor] <= newest[1::2], "a text promises a kernel that is not tested"

    pattern = re.search(r'^BUILD_EXCLUSIVE_KERNEL="(.*)"$', (host.ROOT / "dkms.conf").read_text(), re.M)
    tries = {release: bool(re.match(pattern[1], f"{release}.0-1-amd64")) for release in (
        "5.19", f"{oldest[0]}.{oldest[1] - 1}", f"{oldest[0]}.{oldest[1]}", f"{major}.{minor}",
        f"{major}.{minor + 1}", f"{major + 1}.0", "10.0")}
    assert list(tries.values()) == [False] * 2 + [True] * 5, tries


def selects(expression: str, test: str) -> bool:
    """Evaluates an expression of pytest's -k for the name of a test."""
    return eval(re.sub(r"\b(?!(?:and|or|not)\b)[\w-]+", lambda word: str(word[0] in test),
                       expression))


def test_commands_in_texts_select_tests():
    listed = host.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-m",
                       "not debian and not long"], "listing the tests",
                      cwd=host.ROOT / "tools/testing/vm")
    tests = [line for line in listed.splitlines() if "::" in line]
    expressions = {(text.name, quoted or word) for text in TEXTS for quoted, word in
                   re.findall(r'\bT=(?:"([^"]+)"|([\w-]+))', text.read_text(encoding="utf-8"))}
    assert len(expressions) > 10
    assert not [(text, expression) for text, expression in sorted(expressions)
                if not any(selects(expression, test) for test in tests)]


def test_site_has_every_manual_page():
    pages = [path for path in host.ROOT.glob("tools/**/man/*.[38]")
             if not path.read_text(encoding="utf-8").startswith(".so ")]
    assert len(pages) > 5
    for path in pages:
        page = DOCUMENTATION / "man" / f"{path.name}.rst"
        assert f".. manpage:: {path.relative_to(host.ROOT)}\n" in page.read_text(encoding="utf-8")


# Calls with the format of a message; C joins adjacent strings.
STRING = r'"((?:[^"\\]|\\.)*)"'
KERNEL = re.compile(r"\b(?:dev_err_probe|dev_err_once|dev_warn|dev_info|pr_\w+)\s*\(([^;]*?)" + STRING)
# Messages about a wrong command line (EXIT_USAGE) are not in the documentation.
COMMAND = re.compile(r'\b(?:die\((?!EXIT_USAGE)[^";]*|return\s+)((?:' + STRING + r"\s*)+)")
EVENT = re.compile(r'\breport\(LOG_\w+,\s*"([\w-]+)"')
REASON = re.compile(r'return "([^"]* [^"]*)";')


def sources(*patterns: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for pattern in patterns
                     for path in sorted(host.ROOT.glob(pattern)))


def parts(message: str) -> list[str]:
    """Returns the constant parts of a message's format."""
    message = message.replace("\\n", "").removeprefix("sysgenid: ")
    return [part for part in re.split(r"%[-#+ 0-9.]*[a-z]*[a-zA-Z]|\s*[:,]\s*$", message)
            if len(part.strip(" :(),[]")) > 3]


def missing(messages: list[str]) -> list[str]:
    """Returns the messages that the page on troubleshooting lacks."""
    page = " ".join((DOCUMENTATION / "troubleshooting.rst").read_text(encoding="utf-8").split())
    return [message for message in messages
            if not all(part.strip() in page for part in parts(message))]


def test_troubleshooting_has_every_driver_message():
    text = sources("drivers/**/*.c", "compat/*.c")
    messages = [found[1].removeprefix(": ") for found in KERNEL.findall(text)]
    messages += REASON.findall(sources("compat/look.c"))
    assert len(messages) > 25
    assert not missing(messages)


def test_troubleshooting_has_every_command_message():
    text = sources("tools/sysgenid/*.c")
    messages = ["".join(re.findall(STRING, found[0])) for found in COMMAND.findall(text)]
    messages = [message for message in messages if " " in message]
    assert len(messages) > 25
    assert not missing(messages)


def test_troubleshooting_has_every_overseer_event():
    events = sorted(set(EVENT.findall(sources("tools/sysgenid/*.c"))))
    assert len(events) > 12
    page = (DOCUMENTATION / "troubleshooting.rst").read_text(encoding="utf-8")
    assert not [event for event in events if f"``{event}``" not in page]


def test_troubleshooting_has_library_message():
    assert "clone detection unavailable: " in sources("tools/lib/sysgenid/log.c")
    assert not missing(["clone detection unavailable: "])
