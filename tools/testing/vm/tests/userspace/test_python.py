# SPDX-License-Identifier: GPL-2.0
"""python3-sysgenid in clones: threads, asyncio, and reseeded generators."""
from pathlib import Path

import pytest
from harness import build, host, packages
from harness.guest import Guest

LIB = host.ROOT / "tools/lib/sysgenid"
NEEDED = ("python3", "python3-numpy")
PYTHON = "/usr/bin/python3"
# A guest does not need these large parts of the standard library.
LEFT_OUT = ("__pycache__", "test", "idlelib", "lib2to3", "tkinter", "ensurepip", "pydoc_data",
            "distutils")
# This program watches in each way, and draws for each line of input.
PROGRAM = """
import asyncio, os, random, sys, threading
import sysgenid

sysgenid.open()
seen = sysgenid.Seen()
assert seen.changed() and seen.changed(), "not remembered yet"
seen.remember()
assert not seen.changed() and seen.is_current() and not sysgenid.changed()

def called(number):
    if number == 1 and not failed:
        failed.append(1)
        raise RuntimeError("adjusting fails")
    sysgenid.reseed_random()
    print("thread", number, flush=True)

def forked(number):
    print("child" if os.getpid() != parent else "parent", number, flush=True)

async def follow():
    print("watching", flush=True)
    async for number in sysgenid.changes():
        print("asyncio", number, flush=True)

failed, parent = [], os.getpid()
sysgenid.on_change(called)
sysgenid.on_change(forked, tracked=True)
cancelled = sysgenid.on_change(lambda number: print("cancelled", flush=True))
cancelled.cancel()
if os.fork() == 0:
    threading.Event().wait()
random.seed(1)
threading.Thread(target=lambda: asyncio.run(follow()), daemon=True).start()
for line in sys.stdin:
    assert seen.changed() and not seen.is_current() and sysgenid.changed()
    seen.remember()
    sysgenid.remember()
    assert seen.is_current() and not sysgenid.changed()
    print("drew", random.getrandbits(64), sysgenid.generation(), flush=True)
"""


def add_python(image) -> None:
    """Adds this machine's Python, its standard library and our module."""
    packages.install(NEEDED)
    image.program("usr/bin/python3", Path(PYTHON))
    library = Path(host.run([PYTHON, "-c", "import os; print(os.__file__)"],
                            "asking Python").strip()).parent
    for path in sorted(library.rglob("*")):
        name = path.relative_to(library)
        if path.is_file() and not set(name.parts) & set(LEFT_OUT) and "config-" not in str(name):
            image.file(f"usr/lib/{library.name}/{name}", path)
    ctypes = next((library / "lib-dynload").glob("_ctypes.*"))
    for word in host.run(["ldd", ctypes], "listing libraries").split():
        if word.startswith("/"):
            image.file(word, Path(word).resolve())
    image.file("usr/lib/python3/dist-packages/sysgenid.py", LIB / "python/sysgenid.py")
    output = host.BUILD / "python"
    host.run(["make", "-s", "-C", LIB, f"OUTPUT={output}"], "building the library")
    image.file("usr/lib/libsysgenid.so.1", (output / "libsysgenid.so.1").resolve())
    image.file("test/program.py", PROGRAM)


@pytest.fixture(scope="session")
def python_image(kernel):
    with host.locked("python", host.BUILD):
        image = build.new_image(kernel)
        add_python(image)
        return image.write(build.directory(kernel) / "python.cpio")


def wait_watching(guest: Guest, program) -> None:
    program.wait_for("^watching$", 60)
    # The parent and the child have one tracked callback each.
    guest.run("until grep -q 2 /sys/class/misc/sysgenid/watchers; do sleep 0.1; done")


def test_every_way_detects_clone(boot, python_image):
    guest = boot(image=python_image, memory=512)
    guest.load_modules()
    guest.run("mkfifo /run/ask")
    program = guest.start("/usr/bin/python3 /test/program.py <> /run/ask 2>&1")
    wait_watching(guest, program)
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        draws = set()
        for clone in clones:
            copy = clone.program(program)
            for word in ("asyncio", "thread", "parent", "child"):
                copy.wait_for(f"^{word} 1$", 60)
            assert "RuntimeError: adjusting fails" in copy.output
            # Both watchers have acknowledged, so the child has a descriptor of its own.
            clone.run("until grep -q 0 /sys/class/misc/sysgenid/outdated; do sleep 0.1; done")
            clone.run("echo > /run/ask")
            draws.add(copy.wait_for(r"^drew (\d+) 1$")[1])
            assert "cancelled" not in copy.output
        assert len(draws) == 2


RESEED = """
import random, numpy, sysgenid
random.seed(1), numpy.random.seed(1)
before = random.getstate(), numpy.random.get_state()[1].tolist()
sysgenid.reseed_random()
assert random.getstate() != before[0] and numpy.random.get_state()[1].tolist() != before[1]
"""


def test_reseed_random_seeds_numpy_too(tmp_path):
    packages.install(NEEDED)
    host.run(["make", "-s", "-C", LIB, f"OUTPUT={tmp_path}"], "building the library")
    host.run([PYTHON, "-c", RESEED], "reseeding",
             env={"PYTHONPATH": str(LIB / "python"), "LD_LIBRARY_PATH": str(tmp_path),
                  "PYTHONDONTWRITEBYTECODE": "1"})


# A file stands in for the device; the library polls it once a second.
IN_CALLBACKS = """
import os, threading, time, sysgenid
source = os.open(os.environ["SYSGENID_DEVICE"], os.O_RDWR)
adjusted, called, ended = [], threading.Event(), []

def adjust(number):
    if not called.is_set():
        called.set()
    release.wait()
    adjusted.append((os.getpid(), number))

def cancel(number):
    cancelled.cancel()
    ended.append(cancelled._thread)
    raise RuntimeError("after the cancelling")

threading.excepthook = lambda args: os._exit(3)
release = threading.Event()
sysgenid.on_change(adjust)
cancelled = sysgenid.on_change(cancel)
os.pwrite(source, b"\\x09\\0\\0\\0", 0)
assert called.wait(10)
time.sleep(0.5)
child = os.fork()
release.set()
for _ in range(100):
    if (os.getpid(), 9) in adjusted:
        break
    time.sleep(0.1)
else:
    os._exit(4)
if child:
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(100):
        if ended:
            break
        time.sleep(0.1)
    ended[0].join()
os._exit(0)
"""


def test_callback_may_fork_and_cancel(tmp_path):
    """The child runs the callback that its parent had not finished."""
    packages.install(NEEDED)
    host.run(["make", "-s", "-C", LIB, f"OUTPUT={tmp_path}"], "building the library")
    (tmp_path / "source").write_bytes(bytes(4096))
    host.run([PYTHON, "-c", IN_CALLBACKS], "forking and cancelling",
             env={"PYTHONPATH": str(LIB / "python"), "LD_LIBRARY_PATH": str(tmp_path),
                  "PYTHONDONTWRITEBYTECODE": "1", "SYSGENID_DEVICE": str(tmp_path / "source")})
