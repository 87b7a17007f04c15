# SPDX-License-Identifier: GPL-2.0
"""Processes that use /dev/sysgenid, checkpointed and restored by CRIU with our plugin."""
from dataclasses import replace

import pytest
from harness import containers, host, kernels

pytestmark = [pytest.mark.kernels(*containers.RELEASES), pytest.mark.hosts]

TIMEOUT, PERMISSION = 5, 4
CAP_CHECKPOINT_RESTORE = 40     # linux/capability.h
HOOKS = "/etc/containers/oci/hooks.d"
PROGRAM = "/test/use_until_restored"
# CRIU's messages without the plugin.
REFUSALS = {"mapped": "Can't handle non-regular mapping on",
            **dict.fromkeys(("read", "poll", "epoll", "tracked"),
                            "Can't dump file 3 of that type [20")}


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel, with more time, as a whole system starts."""
    return replace(kernels.get(request.param), patience=3, memory=1024)


@pytest.fixture(scope="module")
def image(kernel, tmp_path_factory):
    return containers.make_image(kernel, tmp_path_factory.mktemp("criu") / "criu.cpio")


@pytest.fixture
def guest(boot, image, kernel):
    guest = boot(image=image, root=containers.make_root(kernel))
    guest.run("mkdir /run/empty; until test -c /dev/sysgenid; do sleep 0.1; done;"
              "sysgenid wait-settled", 120)
    return guest


class Process:
    """A process in a guest, below a parent that stays until it ends."""

    def __init__(self, guest, name: str, command: str, said: str | None):
        self.guest, self.at = guest, f"/run/{name}"
        guest.run(f"mkdir -p {self.at}/images && mkfifo {self.at}/ask")
        guest.start(f"cd {self.at}; setsid {command} <> ask > out 2>&1 & echo $! > pid; wait")
        guest.run(f"until test -s {self.at}/pid; do sleep 0.1; done", 60)
        if said:
            self.wait_for(said)

    def out(self) -> str:
        return self.guest.run(f"cat {self.at}/out")

    def wait_for(self, said: str) -> str:
        """Waits until it has said so; returns all that it has said."""
        self.guest.run(f"until grep -qs '{said}' {self.at}/out; do sleep 0.1; done", 60)
        return self.out()

    def _criu(self, command: str, log: str, check: bool) -> str:
        done = self.guest.start(f"cd {self.at} && criu {command} -D images -o {log} -v4")
        said = f"{done.wait(120)}\n" + self.guest.run(
            f"grep -e Error -e sysgenid {self.at}/images/{log} || true")
        assert not check or said.startswith("0\n"), f"{done.output}\n{said}"
        return said

    def checkpoint(self, options: str = "", check: bool = True) -> str:
        """Saves and ends it; returns CRIU's exit status, and what its log says of errors."""
        said = self._criu(f"dump -t $(cat pid) {options}", "dump.log", check)
        self.guest.run(f"cd {self.at} && cp -p out out.saved")
        return said

    def restore(self, options: str = "", check: bool = True) -> str:
        """Restores it; its output is again as it was at the checkpoint."""
        self.guest.run(f"cd {self.at} && cp -p out.saved out")
        return self._criu(f"restore -d {options}", "restore.log", check)

    def kill(self) -> None:
        self.guest.run(f"cd {self.at} && kill -KILL $(cat pid) &&"
                       " while test -e /proc/$(cat pid); do sleep 0.05; done")

    def fdinfo(self) -> str:
        return self.guest.run(f"cat /proc/$(cat {self.at}/pid)/fdinfo/3")


@pytest.fixture(params=REFUSALS)
def process(guest, request):
    return Process(guest, request.param, f"{PROGRAM} {request.param}", "^ready 0")


def test_without_the_plugin_criu_refuses_and_the_process_goes_on(guest, process):
    said = process.checkpoint("-L /run/empty", check=False)
    assert REFUSALS[process.at.rpartition("/")[2]] in said, said
    guest.run("sysgenid trigger")
    process.wait_for("^new 1")


def test_restored_process_sees_a_new_generation(guest, process):
    """Each restore of one checkpoint is a new generation for it, before it runs."""
    process.checkpoint()
    assert guest.generation() == 0
    for generation in (1, 2):
        process.restore()
        said = process.wait_for(f"^new {generation}")
        if process.at.endswith("/mapped"):
            assert f"new {generation} stale 0\n" in said
        else:
            process.kill()
        assert guest.generation() == generation


def test_restored_process_is_waited_for_if_it_was_tracked(guest):
    process = Process(guest, "tracked", f"{PROGRAM} tracked", "^ready 0")
    before = process.fdinfo()
    process.checkpoint()
    guest.run("sysgenid wait-watchers --timeout=10")
    process.restore()
    process.wait_for("^new 1")
    assert [line for line in process.fdinfo().splitlines() if not line.startswith("ino")] == [
        line for line in before.splitlines() if not line.startswith("ino")]
    assert guest.status("sysgenid wait-watchers --timeout=1") == TIMEOUT
    guest.run(f"kill -USR1 $(cat {process.at}/pid)")
    process.wait_for("^acknowledged 1")
    guest.run("sysgenid wait-watchers --timeout=10")


def draw(process: Process) -> str:
    """A number that a restored generator gives, which is killed then."""
    process.restore()
    process.guest.run(f"echo > {process.at}/ask; until [ $(wc -l < {process.at}/out) = 2 ];"
                      " do sleep 0.1; done", 60)
    process.kill()
    return process.out().split()[1]


def test_program_with_the_library_gives_no_number_twice(guest):
    process = Process(guest, "prng", "/test/example-prng", None)
    guest.run(f"echo > {process.at}/ask")
    process.wait_for("^[0-9a-f]*$")
    process.checkpoint()
    # Without this file the plugin assumes that nothing uses the device.
    guest.run(f"mv {process.at}/images/sysgenid.img {process.at}")
    same = {draw(process) for _ in range(2)}
    assert len(same) == 1, "inconclusive: they differ without a new generation, too"
    guest.run(f"mv {process.at}/sysgenid.img {process.at}/images")
    assert len(same | {draw(process) for _ in range(2)}) == 3


@pytest.fixture
def podman(guest):
    """The guest, with an image for containers, which has our programs."""
    guest.run("mount -t tmpfs tmpfs /var/lib/containers && mkdir -p /run/image/bin &&"
              "cp /usr/bin/busybox /run/image/bin && cp -r /test /run/image &&"
              "tar -C /run/image -c . | podman import -q - test", 120)
    return guest


def test_podman_restores_a_container_with_a_new_generation(podman):
    podman.run(f"podman run -d --name one --network=host --device /dev/sysgenid test"
               f" {PROGRAM} tracked && until podman logs one | grep 'ready 0'; do :; done", 120)
    podman.run("podman container checkpoint one", 120)
    assert podman.generation() == 0
    podman.run("podman container restore one &&"
               " until podman logs one | grep 'new 1'; do :; done", 120)
    assert podman.status("sysgenid wait-watchers --timeout=1") == TIMEOUT
    podman.run("podman kill -s USR1 one && sysgenid wait-watchers --timeout=60", 120)
    assert podman.generation() == 1


def test_hook_gives_a_container_a_new_generation_that_does_not_hold_the_device(podman):
    hook = (host.ROOT / "tools/criu/oci-hook.json").read_text(encoding="utf-8")
    podman.run(f"mkdir -p {HOOKS} && cat > {HOOKS}/sysgenid.json <<'end'\n{hook}end\n")
    generations = []
    for command in (f"run -d --name one --hooks-dir {HOOKS} --network=host test"
                    " /bin/busybox sleep 1000", "container checkpoint one", "container restore one"):
        podman.run(f"podman {command}", 120)
        generations.append(podman.generation())
    assert generations == [0, 0, 1]


def test_one_capability_is_enough_for_the_trigger(guest):
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert guest.status(f"{nobody} sysgenid trigger") == PERMISSION
    only = "checkpoint_restore"
    nobody += f" --inh-caps=-all,+{only} --ambient-caps=+{only}"
    held = guest.run(f"{nobody} grep CapEff /proc/self/status").split()[1]
    assert int(held, 16) == 1 << CAP_CHECKPOINT_RESTORE
    guest.run(f"{nobody} sysgenid trigger")
    assert guest.generation() == 1
