# SPDX-License-Identifier: GPL-2.0
"""A small fleet: `make fleet` restores a larger one, and finds what is wrong with it."""
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import replace

import pytest

import fleet
from harness import host, packages
from harness.guest import new_guid

pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.hosts]

SAME = new_guid()
CLONES = 4


@pytest.fixture(scope="module")
def restored(kernel):
    """Four clones with GUIDs of their own, and then two with one GUID."""
    guids = [*(new_guid() for _ in range(CLONES)), SAME, SAME]
    logs = host.BUILD / "logs/test_fleet"
    with host.locked("test_fleet", host.BUILD / "locks"):
        shutil.rmtree(logs, ignore_errors=True)
        clones = fleet.restore(kernel, guids, logs, lambda done: None)
        shutil.rmtree(logs)
    return clones


@pytest.fixture
def good(restored):
    return restored[:CLONES]


@pytest.mark.short
def test_a_fleet_settles_and_draws_nothing_twice(good):
    assert not fleet.find_faults(good)
    assert all(0 < clone.seconds < fleet.PATIENCE for clone in good)
    found = {values.kind: len(set(values.values)) for values in fleet.collect(good)}
    assert found.pop("UUIDs") in range(CLONES * fleet.CPUS * 12, CLONES * fleet.CPUS * 13 + 1)
    each = fleet.DRAWS * CLONES
    assert found == {"GUIDs": CLONES, "draws, CPU 0": each, "draws, CPU 1": each,
                     "draws, all CPUs": 2 * each, "library, all CPUs": 2 * each}


def test_two_clones_with_one_guid_are_a_fault(restored):
    assert f"GUIDs: 1 value is there more than once, as {SAME}" in fleet.find_faults(restored)


def test_what_two_clones_drew_is_a_fault(good):
    guilty = replace(good[1], draws=good[0].draws, numbers=good[0].numbers, guid=(
        good[1].guid[:-2] + good[0].guid[-2:]))
    faults = fleet.find_faults([good[0], guilty, *good[2:]])
    assert [fault.partition(":")[0] for fault in faults] == [
        "UUIDs", "draws, all CPUs", "draws, CPU 0", "draws, CPU 1", "library, all CPUs"]
    assert all(" more than once, as " in fault for fault in faults)


def test_what_is_lost_is_a_fault(good):
    poor = replace(good[0], generation=0, state="pending", seconds=120,
                   numbers=[good[0].numbers[0][1:], good[0].numbers[1]],
                   draws=[good[0].draws[0], good[0].draws[1][:-1]])
    assert fleet.find_faults([poor, *good[1:]])[:2] == [
        "clone 1 has generation 0 instead of 1", "clone 1 is not settled after 120 s: pending"]
    count = fleet.DRAWS * CLONES
    for fault in (f"draws, CPU 1: {count - 1} values instead of {count}",
                  f"library, all CPUs: {2 * count - 1} values instead of {2 * count}"):
        assert fault in fleet.find_faults([poor, *good[1:]])


def test_summary_and_json_say_the_same(kernel, restored):
    lines = dict(fleet.summary(kernel, restored))
    said = json.loads(fleet.as_json(kernel, restored))
    for kind in said["values"]:
        assert lines[kind["kind"]] == f"{kind['distinct']} distinct of {kind['expected']}"
    assert lines["GUIDs"] == "5 distinct of 6"
    assert said["faults"] == fleet.find_faults(restored)
    assert lines["restore to settled"] == (f"median {said['seconds']['median']:.1f} s, "
                                           f"longest {said['seconds']['longest']:.1f} s")
    assert len(said["each"]) == len(restored)


def test_plot_is_an_image_with_each_clone(good, tmp_path):
    packages.install(packages.FLEET)
    fleet.plot(good, tmp_path / "new/settled.svg")
    image = xml.etree.ElementTree.parse(tmp_path / "new/settled.svg")
    assert image.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    uses = [group.findall(".//{http://www.w3.org/2000/svg}use") for group in image.iter()
            if group.get("id") == "clones"]
    assert [len(found) for found in uses] == [CLONES]


@pytest.mark.parametrize("clones, said", [
    ("1", "--clones 1: a fleet has 2 clones or more"),
    ("many", "argument --clones: invalid int value: 'many'")])
def test_a_fleet_that_is_none_is_refused(clones, said):
    done = subprocess.run([sys.executable, host.ROOT / "tools/testing/vm/fleet.py",
                           "--clones", clones], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr
