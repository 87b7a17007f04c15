# SPDX-License-Identifier: GPL-2.0
"""Finds the lines of a kernel's log that report a bug or a failure."""
import re

FINDING = re.compile("|".join((
    r"\bBUG\b", r"WARNING: ", r"\bOops\b", r"Call Trace", r"Kernel panic",
    r"general protection fault", r"[Uu]nable to handle", r"divide error",
    r"KASAN", r"KCSAN", r"KFENCE", r"KMSAN", r"UBSAN",
    r"kmemleak: (\d+ new suspected|.*disabled)", r"unreferenced object", r"ODEBUG:",
    r"soft lockup", r"hard LOCKUP", r"blocked for more than", r"detected stall",
    r"self-detected stall", r"rcu: INFO", r"workqueue lockup", r"hogged CPU",
    r"possible .*deadlock", r"lockdep", r"inconsistent lock state", r"bad unlock balance",
    r"held lock freed", r"lock held when returning", r"suspicious RCU usage",
    r"sleeping function called", r"scheduling while atomic", r"DEBUG_LOCKS_WARN_ON",
    r"refcount_t:", r"corruption", r"leaked", r"Out of memory", r"page allocation failure",
    r"nobody cared", r"Unbalanced", r"\bcut here\b",
    r"Initramfs unpacking failed",
)))
# A healthy guest's boot prints these lines.
HARMLESS = re.compile("|".join((
    r"Command line:", r"Spectre V2 : WARNING: ", r"kmemleak: Kernel memory leak detector initialized",
    r"kmemleak: Automatic memory scanning", r"lockdep: .*(initialized|MAX_|memory used)",
    r"Lock dependency validator", r"\.\.\. (MAX_|CLASSHASH|CHAINHASH)", r"KernelAddressSanitizer initialized",
    r"kasan: ", r"kcsan: ", r"kfence: initialized", r"RCU lockdep checking is enabled",
    r"running with lockdep", r"ACPI.*\(bug\)",
)))


# KCSAN reports races all over the kernel. A race concerns this project only if one of
# its modules is in either stack.
RACE = re.compile(r"BUG: KCSAN: .*?={60}", re.S)
# Queueing a running work item races inside the workqueue code: one side sets a flag
# atomically, the other reads the flags plainly.
WORKQUEUES = re.compile(r"data-race in (process_one_work|move_linked_works) / queue_work_on")
OURS = re.compile(r"\[(sysgenid|vm_generation_id|inject_bugs)\]")


def is_ours(race: str) -> bool:
    return bool(OURS.search(race)) and not WORKQUEUES.search(race)


def findings(log: str, expected: list[str]) -> list[str]:
    """Returns the log's lines that report a problem, except the expected ones."""
    log = RACE.sub(lambda race: race[0] if is_ours(race[0]) else "", log)
    return [line for line in log.splitlines()
            if FINDING.search(line) and not HARMLESS.search(line)
            and not any(re.search(pattern, line) for pattern in expected)]
