# SPDX-License-Identifier: GPL-2.0
"""The README's examples keep its promises in clones."""
import re

import pytest
from harness import build, host

pytestmark = pytest.mark.kernels("6.1-cloud", "6.12-cloud")

LIB = host.ROOT / "tools/lib/sysgenid"
OUTPUT = host.BUILD / "readme"
STRICT = ("-O2", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-Werror", "-static")
NAMES = ("library", "device")


def examples() -> dict[str, str]:
    """Returns the README's programs in C: the one with the library, then the other."""
    text = (host.ROOT / "README.md").read_text(encoding="utf-8")
    return dict(zip(NAMES, re.findall(r"^```c\n(.*?)^```$", text, re.M | re.S), strict=True))


@pytest.fixture(scope="module")
def image(kernel):
    with host.locked("readme", host.BUILD):
        OUTPUT.mkdir(exist_ok=True)
        host.run(["make", "-s", "-C", LIB, f"OUTPUT={OUTPUT}/lib", f"{OUTPUT}/lib/libsysgenid.a"],
                 "building the library")
        contents = build.new_image(kernel)
        for name, source in examples().items():
            (OUTPUT / f"{name}.c").write_text(source, encoding="utf-8")
            host.run(["gcc", *STRICT, f"-I{LIB}", "-o", OUTPUT / name, OUTPUT / f"{name}.c",
                      OUTPUT / "lib/libsysgenid.a"], f"compiling the README's example {name}")
            contents.file(f"test/readme-{name}", OUTPUT / name)
        return contents.write(build.directory(kernel) / "readme.cpio")


def next_id(guest, program, count: int) -> str:
    guest.run("echo > /run/ask")
    return program.wait_for(r"\A(?:[0-9a-f]{16}\n){%d}([0-9a-f]{16})$" % count)[1]


def test_library_example_never_repeats_identifier(boot, image):
    guest = boot(image=image)
    guest.load_modules()
    guest.run("mkfifo /run/ask")
    program = guest.start("/test/readme-library <> /run/ask")
    first, second = (next_id(guest, program, count) for count in (0, 1))
    assert int(second, 16) == int(first, 16) + 1
    with guest.snapshot() as snap:
        with snap.restore(snap.options.guid) as same:
            third = next_id(same, same.program(program), 2)
            assert int(third, 16) == int(second, 16) + 1, "there was no new generation"
        with snap.restore_all(None, None) as clones:
            drawn = {next_id(clone, clone.program(program), 2) for clone in clones}
    assert len(drawn | {third}) == 3


def test_device_example_adjusts_and_acknowledges(boot, image):
    guest = boot(image=image)
    guest.load_modules()
    program = guest.start("/test/readme-device")
    program.wait_for("^generation 0$")
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.program(program).wait_for("^adjusted to generation 1$")
        fd = clone.run("cat /proc/$(pidof readme-device)/fdinfo/* | grep acknowledged")
        assert fd.split() == ["sysgenid-acknowledged:", "1"]
