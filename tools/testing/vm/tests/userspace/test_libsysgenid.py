# SPDX-License-Identifier: GPL-2.0
"""The in-line check of libsysgenid, in clones."""
from harness.acpi_events import interrupted_cpu, load_modules, on_cpu
from harness.channel import Program
from harness.guest import Guest
from harness.stale import stale_looks

ASK = "/run/ask"
PREDICTABLE = {
    "cpu_flags": "-rdrand,-rdseed",
    "append": "random.trust_cpu=off random.trust_bootloader=off",
}


def release(clone: Guest, program: Program) -> str:
    """Returns the number that a clone of the generator releases, after computing it again."""
    copy = clone.program(program)
    clone.run(f"echo > {ASK}")
    if copy.wait_for(r"^computed\n(computed|[0-9a-f]{16})$")[1] == "computed":
        clone.run(f"echo > {ASK}")
    return copy.wait_for(r"^([0-9a-f]{16})$")[1]


def test_clone_releases_no_number_from_before_snapshot(boot):
    guest = boot(**PREDICTABLE)
    guest.load_modules()
    guest.run(f"mkfifo {ASK}")
    program = guest.start(f"example-prng steps <> {ASK} 2>&1")
    guest.run(f"echo > {ASK}")
    program.wait_for("^computed$")
    with guest.snapshot() as snap:
        with snap.restore_all(None, None) as clones:
            numbers = [release(clone, program) for clone in clones]
        with snap.restore_all(snap.options.guid, snap.options.guid) as clones:
            same = [release(clone, program) for clone in clones]
    assert same[0] == same[1], "inconclusive: clones with the same GUID differ too"
    assert len({*numbers, *same}) == 3


def test_inline_check_is_never_stale_on_other_cpu(two_cpus):
    """There, the mapped counter may be stale for a tick."""
    load_modules(two_cpus)
    watcher = on_cpu(1 - interrupted_cpu(two_cpus), "library_window library")
    assert set(stale_looks(two_cpus, two_cpus.start(watcher))) == {(0, 0)}
