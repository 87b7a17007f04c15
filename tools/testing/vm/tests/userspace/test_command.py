# SPDX-License-Identifier: GPL-2.0
"""The command sysgenid(8) and the library's examples, in guests."""
import json

import pytest
from harness import userspace

pytestmark = pytest.mark.kernels("6.1-cloud", "6.12-cloud")

WATCHED = "[ $(cat /sys/class/misc/sysgenid/watchers) = 1 ]"
NO_DEVICE, PERMISSION, TIMEOUT, USAGE = 3, 4, 5, 2
COMMANDS = ("status", "get", "wait", "watch", "run", "trigger", "wait-watchers", "wait-settled")


@pytest.fixture(scope="module")
def image(kernel):
    return userspace.make_image(kernel)


@pytest.fixture
def bare(boot, image):
    """A guest with our programs, and no modules loaded."""
    return boot(image=image)


@pytest.fixture
def guest(bare):
    bare.load_modules()
    return bare


def eventually(guest, condition: str) -> None:
    """Waits until a shell command in the guest succeeds."""
    guest.run(f"until {condition}; do sleep 0.02; done")


def fails(guest, script: str) -> tuple[int, str]:
    program = guest.start(script)
    return program.wait(), program.output


def test_get_and_trigger_print_generation(guest):
    assert guest.run("sysgenid get") == "0\n"
    assert guest.run("sysgenid trigger") == "1\n"
    assert guest.run("sysgenid trigger --min 7") == "7\n"
    assert json.loads(guest.run("sysgenid get --json")) == {"generation": 7}
    assert json.loads(guest.run("sysgenid trigger --json")) == {"generation": 8}


def test_clone_ends_wait(guest):
    waiting = guest.start("echo waits; sysgenid wait")
    watching = guest.start("echo waits; sysgenid watch --json")
    waiting.wait_for("waits")
    watching.wait_for("waits")
    eventually(guest, "[ $(ls -l /proc/[0-9]*/fd | grep -c eventpoll) = 2 ]")
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.program(waiting).wait() == 0
        assert clone.program(waiting).output == "waits\n1\n"
        clone.program(watching).wait_for(r'^{ ?"generation": 1 ?}$')


def test_wait_from_another_generation_returns_at_once(guest):
    assert guest.run("sysgenid wait --from 4") == "0\n"
    assert fails(guest, "sysgenid wait --from 0 --timeout 0.1") == (TIMEOUT, "")
    code, said = fails(guest, "sysgenid wait --json --timeout 0.1")
    assert code == json.loads(said)["status"] == TIMEOUT


def test_watch_runs_command_for_each_change(guest):
    watch = guest.start("sysgenid watch -- sh -c 'echo now $SYSGENID_GENERATION; exit 3'")
    eventually(guest, "ls -l /proc/[0-9]*/fd | grep -q eventpoll")
    for number in (1, 2):
        guest.run("sysgenid trigger")
        watch.wait_for(f"^now {number}$")
        watch.wait_for(f"generation {number}: sh ended with 3")
    assert watch.status is None


def test_watch_ends_with_its_reader(guest):
    watch = guest.start("sysgenid watch | head -n 1; echo over")
    eventually(guest, "ls -l /proc/[0-9]*/fd | grep -q eventpoll")
    guest.run("sysgenid trigger")
    assert watch.wait() == 0
    assert watch.output == "1\nover\n"


@pytest.mark.parametrize("command", ["watch", "run -- true"])
def test_signal_ends_waiting_command(guest, command):
    waiting = guest.start(f"exec sysgenid {command}")
    eventually(guest, "ls -l /proc/[0-9]*/fd | grep -q eventpoll")
    guest.run("kill -INT $(pidof sysgenid)")
    assert waiting.wait() != 0
    assert waiting.output == ""
    assert guest.run("cat /sys/class/misc/sysgenid/watchers") == "0\n"


def test_waiting_command_outlives_backend_and_pins_sysgenid(guest):
    waiting = guest.start("sysgenid wait")
    watching = guest.start("sysgenid watch")
    eventually(guest, "[ $(ls -l /proc/[0-9]*/fd | grep -c eventpoll) = 2 ]")
    guest.unload_backend()
    assert guest.status("rmmod sysgenid") != 0
    assert "source        none (only sysgenid trigger" in guest.run("sysgenid status")
    guest.run("sysgenid trigger")
    assert waiting.wait() == 0
    watching.wait_for("^1$")
    guest.load_backend()
    guest.run("sysgenid trigger")
    watching.wait_for("^2$")


def numbers_after_restore(clone, programs) -> list[str]:
    """Returns what the examples print for their second line of input."""
    for name in programs:
        clone.run(f"echo > /tmp/{name}")
    return [clone.program(program).wait_for(
        r"^[0-9a-f]{16}.*\n(?:generation 1: .*\n)?([0-9a-f]{16}.*)\n")[1]
            for program in programs.values()]


def test_examples_never_repeat_numbers_in_clones(guest):
    programs = {}
    for name in ("prng", "daemon"):
        guest.run(f"mkfifo /tmp/{name}")
        programs[name] = guest.start(f"exec example-{name} < /tmp/{name}")
        guest.start(f"exec sleep 1000 > /tmp/{name}")
        guest.run(f"echo > /tmp/{name}")
        programs[name].wait_for(r"^[0-9a-f]{16}.*\n")
    drawn = []
    with guest.snapshot() as snap:
        for guid in (snap.options.guid, snap.options.guid, None, None):
            with snap.restore(guid) as clone:
                drawn.append(numbers_after_restore(clone, programs))
    assert drawn[0] == drawn[1], "inconclusive: clones with the same GUID differ too"
    assert len({number for pair in drawn[1:] for number in pair}) == 6


def test_status_names_outdated_watcher(guest):
    guest.run("mkfifo /tmp/in")
    daemon = guest.start("exec example-daemon < /tmp/in")
    guest.start("exec sleep 1000 > /tmp/in")
    eventually(guest, WATCHED)
    pid = int(guest.run("pidof example-daemon"))
    guest.run(f"kill -STOP {pid} && sysgenid trigger")
    status = json.loads(guest.run("sysgenid status --json"))
    assert (status["generation"], status["outdated"]) == (1, 1)
    assert status["waiting_for"][0] | {"fd": 0} == {
        "pid": pid, "fd": 0, "acknowledged": 0, "name": "example-daemon"}
    assert f"waiting for   example-daemon, pid {pid}, " in guest.run("sysgenid status")
    code, said = fails(guest, "sysgenid wait-watchers --timeout 0.1")
    assert code == TIMEOUT and f"example-daemon, pid {pid}" in said
    guest.run(f"kill -CONT {pid} && sysgenid wait-watchers")
    daemon.wait_for("generation 1: new prefix")
    assert "watchers      1 tracked, 0 outdated\n" in guest.run("sysgenid status")


def test_run_acknowledges_only_success(guest):
    run = guest.start("sysgenid run -- sh -c 'echo try; test -e /tmp/good'")
    eventually(guest, WATCHED)
    guest.run("sysgenid trigger")
    run.wait_for("generation 1 is not acknowledged: sh ended with 1")
    assert fails(guest, "sysgenid wait-watchers --timeout 0.1")[0] == TIMEOUT
    guest.run("touch /tmp/good")
    guest.run("sysgenid wait-watchers")
    assert run.output.count("try") >= 2


def test_run_of_missing_program_ends(guest):
    run = guest.start("sysgenid run -- /nowhere")
    eventually(guest, WATCHED)
    guest.run("sysgenid trigger")
    assert run.wait() == 127
    assert "/nowhere: No such file or directory" in run.output


def test_unprivileged_user_may_only_look(guest):
    def as_nobody(command):
        return fails(guest, f"su nobody -c '{command}'")

    assert as_nobody("sysgenid get") == (0, "0\n")
    code, said = as_nobody("sysgenid trigger")
    assert code == PERMISSION and "no permission: starting a generation" in said
    code, said = as_nobody("sysgenid run -- true")
    assert code == PERMISSION and "group sysgenid" in said
    waiting = guest.start("su nobody -c 'sysgenid wait --from 0'")
    guest.run("sysgenid trigger")
    assert waiting.wait() == 0


@pytest.mark.parametrize("command", ["status", "get", "wait", "watch", "run -- true", "trigger",
                                     "wait-watchers", "wait-settled", "hooks run"])
def test_missing_module_is_named(bare, command):
    code, said = fails(bare, f"sysgenid {command}")
    assert code == NO_DEVICE and "module not loaded: modprobe vmgenid" in said


def test_error_is_one_json_object(bare):
    for command in set(COMMANDS) - {"run"}:
        code, said = fails(bare, f"sysgenid {command} --json")
        error = json.loads(said)
        assert code == error["status"] == NO_DEVICE and "module not loaded" in error["error"]
        code, said = fails(bare, f"sysgenid {command} --json --frobnicate")
        assert code == USAGE and json.loads(said)["status"] == USAGE
    assert fails(bare, "sysgenid run cat --json")[1].startswith("sysgenid: module not loaded")


def test_every_command_has_help(bare):
    for arguments in ("--help", "-h", "help", *(f"{name} --help" for name in COMMANDS)):
        said = bare.run(f"sysgenid {arguments}")
        assert all(f"\n  {name} " in said for name in COMMANDS), arguments


def test_missing_device_is_named(boot, image):
    guest = boot(image=image, guid=None)
    code, said = fails(guest, "sysgenid status")
    assert code == NO_DEVICE and "not a guest with a generation ID device" in said
    guest.run("insmod /modules/sysgenid.ko")
    assert "source        none" in guest.run("sysgenid status")
    guest.run("rm /dev/sysgenid")
    code, said = fails(guest, "sysgenid get")
    assert code == NO_DEVICE and "though the module is loaded" in said


BAD_USAGE = {
    "": "a command is needed",
    "frobnicate": "unknown command frobnicate",
    "status --frobnicate": "unknown option --frobnicate",
    "get -x": "unknown option -x",
    "get -xy": "unknown option -x",
    "get --json=yes": "unknown option --json=yes",
    "get --min 3": "get takes no such option",
    "get more": "get takes no argument more",
    "wait --timeout": "--timeout needs a value",
    "wait --timeout=-1": "--timeout=-1: use seconds from 0",
    "wait --timeout=soon": "--timeout=soon: use seconds from 0",
    "trigger --min=": "--min=: use a number from 0 to 4294967295",
    "trigger --min=4294967296": "--min=4294967296: use a number",
    "trigger --min=-1": "--min=-1: use a number",
    "run": "run needs a program",
    "watch --json -- true": "exclude each other",
    "seal": "give --yes",
    "seal --json --yes": "seal prints JSON with --list only",
    "prepare --yes": "prepare takes no such option",
}


def test_bad_usage_is_named(bare):
    for arguments, sentence in BAD_USAGE.items():
        code, said = fails(bare, f"sysgenid {arguments}")
        assert code == USAGE and sentence in said, arguments


def test_too_large_minimum_is_refused(guest):
    code, said = fails(guest, "sysgenid trigger --min 4294967295")
    assert code == 1 and "--min=4294967295 exceeds the highest generation" in said
    guest.run("sysgenid trigger --min 4026531839")
    code, said = fails(guest, "sysgenid trigger")
    assert code == 1 and "no more generations can be started" in said


@pytest.mark.parametrize("command", ["get", "status", "status --json", "hooks --json", "--version"])
def test_full_output_is_error(guest, command):
    code, said = fails(guest, f"sysgenid {command} > /dev/full")
    assert code == 1 and "No space left on device" in said


def test_process_name_cannot_break_terminal_or_json(guest):
    guest.run(r"cp /sbin/sysgenid $(printf '/tmp/b\303\244\033[31m\377\342\202')")
    guest.start(r"exec /tmp/b*m* run -- false")
    eventually(guest, WATCHED)
    guest.run("sysgenid trigger")
    status = json.loads(guest.run("sysgenid status --json"))
    assert status["waiting_for"][0]["name"] == "b\u00e4?[31m???"
    assert "waiting for   b\u00e4?[31m???, pid" in guest.run("sysgenid status")


def test_nothing_settles_without_overseer(guest):
    code, said = fails(guest, "sysgenid wait-settled --timeout 0.1")
    assert code == TIMEOUT and "the overseer has not handled this generation" in said
    code, said = fails(guest, "sysgenid wait-settled --timeout 0.1 --json")
    assert code == TIMEOUT and json.loads(said)["settled"] is False
    assert "overseer      not running" in guest.run("sysgenid status")


def test_hooks_need_systemd(guest):
    guest.run("mkdir -p /etc/sysgenid/hooks.d; cp /bin/busybox /etc/sysgenid/hooks.d/10-hook")
    code, said = fails(guest, "sysgenid hooks run 10-hook")
    assert code == PERMISSION and "cannot connect to systemd, which runs the hooks" in said
    code, said = fails(guest, "sysgenid hooks walk")
    assert code == USAGE and "use hooks list or hooks run" in said


def test_overseer_needs_systemd(guest):
    code, said = fails(guest, "sysgenidd")
    assert code == 1 and "cannot connect to systemd, which runs the hooks" in said
