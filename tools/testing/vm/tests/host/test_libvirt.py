# SPDX-License-Identifier: GPL-2.0
"""libvirt, as Debian has it: what its operations do to the GUID and the generation."""
import re
import subprocess
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import conftest
import pytest
from harness import host, kernels, packages
from harness.archive import Archive
from harness.guest import Guest
from harness.libvirt_host import EXAMPLES, SMALL, Domain, Libvirtd, example, libvirt

pytestmark = [pytest.mark.hosts, pytest.mark.kernels("6.1-cloud")]
each_kernel = pytest.mark.kernels(*kernels.FULL)

KINDS = ("genid-automatic", "genid-given")
# The one in genid-given.xml, and its bytes: the first three fields are little-endian.
GIVEN, GIVEN_BYTES = "00112233-4455-6677-8899-aabbccddeeff", "33221100554477668899aabbccddeeff"
OTHER = "deadbeef-4455-6677-8899-aabbccddeeff"
WAYS = ("read", "poll", "map", "uevent")
# Elements that libvirt refuses, with what it says, and what the schema is about.
WRONG = {
    "two": ("<genid/><genid/>", "XML error: element 'genid' can only appear once"),
    "no UUID": ("<genid>nonsense</genid>", "internal error: malformed genid element"),
    "in braces": (f"<genid>{{{GIVEN}}}</genid>", "internal error: malformed genid element"),
    "too short": (f"<genid>{GIVEN[:-1]}</genid>", "internal error: malformed genid element"),
    "blank": ("<genid> </genid>", "internal error: malformed genid element"),
}
SCHEMAS = Path("/usr/share/libvirt/schemas")
# Examples that are too new for some schemas, and how a schema that knows them says so.
NEWER = {"launch-security-sev-snp": "<value>sev-snp</value>",
         "launch-security-tdx": "<value>tdx</value>", "hardware-uuid": '"hwuuid"'}
# Arguments: the schemas, in whose place, an example.
VALIDATE = ('mount --bind "$1" "$2" && exec virt-xml-validate "$3" domain')


@pytest.fixture
def libvirtd(logs):
    with Libvirtd(logs) as daemon:
        yield daemon


@pytest.fixture
def define(request, kernel, libvirtd, logs):
    """Gives a function that defines a domain from a description."""
    domains = request.node.stash[conftest.GUESTS] = []

    def define_domain(description: ET.Element) -> Domain:
        domains.append(Domain(libvirtd, kernel, description, logs,
                              f"guest{len(domains) or ''}"))
        return domains[-1]

    yield define_domain
    for domain in domains:
        if request.node.stash.get(conftest.FAILED, False):
            domain.kill()
        else:
            domain.close()


@pytest.fixture(params=KINDS)
def domain(request, define) -> Domain:
    """A domain that runs, with the modules loaded."""
    started = define(example(request.param))
    started.create()
    started.load_modules()
    return started


def in_memory(guid: str) -> str:
    """The GUID's bytes as QEMU's specification has them, in hexadecimal."""
    return uuid.UUID(guid).bytes_le.hex()


def settled_generation(guest: Guest) -> int:
    """The generation after all that the last event brings; the driver is gone then."""
    guest.unload_backend()
    return guest.generation()


def expect_new_generation(domain: Domain, before: str) -> None:
    """Fails unless the GUID is another one, and has counted once."""
    assert domain.genid != before
    assert domain.guid_in_memory() == in_memory(domain.genid)
    assert settled_generation(domain) == 1


@each_kernel
@pytest.mark.short
def test_given_guid_is_in_memory_with_little_endian_fields(define):
    domain = define(example("genid-given"))
    domain.create()
    domain.load_modules()
    assert domain.genid == GIVEN
    assert domain.guid_in_memory() == GIVEN_BYTES


def test_automatic_guids_differ_and_are_in_memory(define):
    first, domain = define(example("genid-automatic")), define(example("genid-automatic"))
    assert first.genid != domain.genid
    domain.create()
    domain.load_modules()
    assert domain.guid_in_memory() == in_memory(domain.genid)


def test_domain_without_genid_has_no_device(define):
    description = example("genid-automatic")
    description.remove(description.find("genid"))
    domain = define(description)
    domain.create()
    domain.load_modules()
    assert domain.genid is None
    assert domain.run("cat /sys/class/misc/sysgenid/source") == "none\n"
    assert domain.status("map_hardware") == 1


def test_start_after_destroy_keeps_the_guid(define):
    """libvirt makes an automatic GUID once, when the domain is defined."""
    domain = define(example("genid-automatic"))
    domain.create()
    before = domain.genid
    domain.destroy()
    domain.create()
    domain.load_modules()
    assert domain.genid == before
    assert domain.guid_in_memory() == in_memory(before)
    assert settled_generation(domain) == 0


def test_reset_keeps_the_guid(define):
    domain = define(example("genid-automatic"))
    domain.create()
    before = domain.genid
    domain.reset()
    domain.load_modules()
    assert domain.genid == before
    assert domain.guid_in_memory() == in_memory(before)
    assert settled_generation(domain) == 0


def test_suspend_and_resume_do_not_bump(domain):
    before = domain.genid
    domain.managed.suspend()
    domain.managed.resume()
    assert domain.guid_in_memory() == in_memory(before)
    assert settled_generation(domain) == 0


@each_kernel
@pytest.mark.short
def test_restore_bumps_once(domain, logs):
    """For a GUID that was given, too: libvirt replaces it."""
    watchers = [domain.start(f"wait_generation {way}") for way in WAYS]
    for watcher in watchers:
        watcher.wait_for(r"^watching 0$")
    before = domain.genid
    domain.restore(domain.save(logs / "saved"))
    for watcher in watchers:
        domain.program(watcher).wait_for("^woken 1$")
    expect_new_generation(domain, before)


def test_two_restores_have_different_guids_and_draws(domain, logs):
    guids, draws = {domain.genid}, set()
    saved = domain.save(logs / "saved")
    for _ in range(2):
        domain.restore(saved)
        guids.add(domain.genid)
        draws.add(domain.run("cat /proc/sys/kernel/random/uuid"))
        assert domain.guid_in_memory() == in_memory(domain.genid)
        assert settled_generation(domain) == 1
        domain.destroy()
    assert len(guids) == 3
    assert len(draws) == 2


def test_start_after_managed_save_bumps_once(domain):
    before = domain.genid
    domain.create_from(domain.managed_save())
    expect_new_generation(domain, before)


def test_cold_start_after_a_restore_has_the_defined_guid(domain, logs):
    before = domain.genid
    domain.restore(domain.save(logs / "saved"))
    assert domain.genid != before
    domain.destroy()
    domain.create()
    domain.load_modules()
    assert domain.guid_in_memory() == in_memory(before)


@pytest.mark.parametrize("state", ["running", "shut off"])
def test_revert_bumps_once(state, domain):
    """Each revert to the same snapshot has a GUID of its own."""
    snapshot = domain.take_snapshot()
    guids = {domain.genid}
    assert domain.generation() == 0
    for count in (2, 3):
        if state == "shut off":
            domain.destroy()
        domain.revert(snapshot)
        guids.add(domain.genid)
        assert len(guids) == count
        assert domain.guid_in_memory() == in_memory(domain.genid)
        assert domain.generation() == 1
    assert settled_generation(domain) == 1


@each_kernel
@pytest.mark.short
def test_live_migration_does_not_bump(domain, libvirtd, logs):
    watchers = [domain.start(f"wait_generation {way}") for way in WAYS]
    for watcher in watchers:
        watcher.wait_for(r"^watching 0$")
    before = domain.genid
    with Libvirtd(logs, "other", libvirtd) as other:
        domain.migrate(other)
        assert domain.genid == before
        assert domain.guid_in_memory() == in_memory(before)
        assert all(domain.program(watcher).status is None for watcher in watchers)
        for watcher in watchers:
            domain.program(watcher).kill()
        assert settled_generation(domain) == 0
        domain.close()


def test_hardware_uuid_is_the_machines_or_is_refused(define, libvirtd):
    description = example("hardware-uuid")
    domain = define(description)
    shown = ET.fromstring(domain.managed.XMLDesc())
    known = shown.find("hwuuid") is not None
    if not known:   # before libvirt 11.6, which ignores it unless it validates
        with pytest.raises(libvirt.libvirtError, match="extra content: hwuuid"):
            libvirtd.connection.defineXMLFlags(ET.tostring(description, encoding="unicode"),
                                               libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.create()
    domain.load_modules()
    assert (domain.run("cat /sys/class/dmi/id/product_uuid").strip()
            == description.findtext("hwuuid" if known else "uuid"))
    assert domain.guid_in_memory() == in_memory(domain.genid)


# A domain's ABI

def with_genid(xml: str, element: str) -> str:
    changed, count = re.subn("<genid>.*</genid>", element, xml)
    assert count == 1
    return changed


CHANGED = {
    f"<genid>{OTHER}</genid>": f"Target domain genid {OTHER} does not match source ",
    "": "Target domain requested genid does not match source",
}


@pytest.mark.parametrize("element", CHANGED, ids=["another", "none"])
def test_saved_domain_refuses_another_genid(element, define, libvirtd, logs):
    domain = define(example("genid-given"))
    domain.create()
    saved = domain.save(logs / "saved")
    xml = with_genid(libvirtd.connection.saveImageGetXMLDesc(str(saved.what)), element)
    with pytest.raises(libvirt.libvirtError, match=CHANGED[element]):
        libvirtd.connection.restoreFlags(str(saved.what), xml)
    with pytest.raises(libvirt.libvirtError, match=CHANGED[element]):
        libvirtd.connection.saveImageDefineXML(str(saved.what), xml)


def test_migration_refuses_another_genid(define, libvirtd, logs):
    domain = define(example("genid-given"))
    domain.create()
    domain.load_modules()
    with Libvirtd(logs, "other", libvirtd) as other:
        for element, said in CHANGED.items():
            with pytest.raises(libvirt.libvirtError, match=said):
                domain.migrate(other, with_genid(
                    domain.managed.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), element))
    assert domain.guid_in_memory() == GIVEN_BYTES
    assert settled_generation(domain) == 0


def test_another_genid_that_is_defined_counts_from_the_next_start(define, libvirtd):
    domain = define(example("genid-given"))
    domain.create()
    domain.load_modules()
    libvirtd.connection.defineXML(
        with_genid(domain.managed.XMLDesc(), f"<genid>{OTHER}</genid>"))
    assert domain.guid_in_memory() == GIVEN_BYTES
    assert settled_generation(domain) == 0
    domain.destroy()
    domain.create()
    domain.load_modules()
    assert domain.guid_in_memory() == in_memory(OTHER)


# Bad input

@pytest.mark.short
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_genid_is_refused(wrong, libvirtd):
    element, said = WRONG[wrong]
    xml = with_genid((EXAMPLES / "genid-given.xml").read_text(encoding="utf-8"), element)
    with pytest.raises(libvirt.libvirtError) as refused:
        libvirtd.connection.defineXML(xml)
    assert str(refused.value) == said
    assert not libvirtd.connection.listAllDomains()


def test_save_to_a_full_disk_does_not_bump(domain):
    with pytest.raises(libvirt.libvirtError, match="No space left on device"):
        domain.managed.save(f"{SMALL}/saved")
    before = domain.genid
    assert domain.guid_in_memory() == in_memory(before)
    assert settled_generation(domain) == 0


def test_libvirtds_know_nothing_of_each_other(define, libvirtd, logs):
    places = [Path("/run/libvirt"), Path("/var/lib/libvirt"), Path("/etc/libvirt/qemu")]
    before = [place.exists() for place in places]
    define(example("genid-given"))
    with Libvirtd(logs, "other") as other:
        assert not other.connection.listAllDomains()
        assert other.connection.getHostname() == "other"
    assert len(libvirtd.connection.listAllDomains()) == 1
    assert [place.exists() for place in places] == before


# The documentation's examples

@pytest.fixture(scope="module")
def newest_schemas(tmp_path_factory) -> Path:
    """The schemas of the libvirt in Debian's testing."""
    directory = tmp_path_factory.mktemp("schemas")
    archive = Archive("testing")
    archive.refresh()
    package, = archive.download(["libvirt-common"], directory)
    host.run(["dpkg", "-x", package, directory], "unpacking libvirt's schemas")
    return directory / "usr/share/libvirt/schemas"


@pytest.mark.parametrize("name", [
    pytest.param(path.stem, marks=() if path.stem in NEWER else pytest.mark.short)
    for path in sorted(EXAMPLES.glob("*.xml"))])
def test_example_is_valid(name, request):
    path = EXAMPLES / f"{name}.xml"
    known = (SCHEMAS / "domaincommon.rng").read_text(encoding="utf-8")
    if NEWER.get(name, "") in known:
        host.run(["virt-xml-validate", path, "domain"], f"validating {path.name}")
    else:
        schemas = request.getfixturevalue("newest_schemas")
        packages.as_root(["unshare", "--mount", "sh", "-c", VALIDATE, "sh", str(schemas),
                          str(SCHEMAS), str(path)],
                         f"validating {path.name}")


def test_example_with_two_genids_is_not_valid(tmp_path):
    path = tmp_path / "two.xml"
    path.write_text(with_genid((EXAMPLES / "genid-given.xml").read_text(encoding="utf-8"),
                               WRONG["two"][0]), encoding="utf-8")
    done = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 3
    assert "Extra element genid in interleave" in done.stderr
