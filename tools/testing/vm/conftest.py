# SPDX-License-Identifier: GPL-2.0
"""The choice of kernels, and fixtures that boot guests and close them.

A test that takes `kernel`, `guest` or `boot` runs once with each kernel of kernels.FULL.
With --more-kernels, a test marked `every_kernel` runs with each kernel of kernels.MORE;
with --short-kernels, those of them marked `short` run with each kernel of kernels.SHORT.
"""
import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
from harness import acpi_tables, build, built_kernels, host, kernels, kvm
from harness.guest import Guest, Options, Saved, accelerator, go

# The controller sets these options for the workers of pytest-xdist.
SHARED = ("full", "kernels", "booted")
FAILED = pytest.StashKey[bool]()
GUESTS = pytest.StashKey[list]()
# All guests have this GUID, and their clones another.
GUID = "2b7d3c50-7f0e-4d2c-9a55-0d6f0b8f6c11"


def pytest_addoption(parser):
    parser.addoption("--kernel", action="append", metavar="NAME", dest="kernels",
                     help=f"run with this kernel only (repeatable): {', '.join(kernels.PROVIDERS)}")
    parser.addoption("--every-stock-kernel", action="store_true",
                     help="run every test with each stock kernel of this architecture, and tests "
                     "marked every_kernel with the others")
    parser.addoption("--more-kernels", action="store_true",
                     help=f"run tests marked every_kernel with {', '.join(kernels.MORE)}")
    parser.addoption("--short-kernels", action="store_true",
                     help="run tests marked short and every_kernel with "
                     f"{', '.join(kernels.SHORT)}, too")
    parser.addoption("--nested", action="store_true", help="this machine is that of "
                     "harness/kvm.py: build nothing, and have longer time limits")
    parser.addoption("--no-guests", action="store_true", help="run only the tests without a guest")


def choose_kernels(config) -> None:
    """Sets option.full and option.kernels to the kernels that the tests run with."""
    option = config.option
    option.missing = {}
    if option.no_guests:
        option.full = option.kernels = []
        return
    more = kernels.MORE if option.more_kernels or option.every_stock_kernel else ()
    option.full = option.kernels or [
        name for name, stock in kernels.STOCK.items()
        if (option.every_stock_kernel and stock.architecture not in kernels.CROSS)
        or (not more and name in kernels.FULL)]
    more = more or (kernels.SHORT if option.short_kernels else ())
    option.kernels = option.full + [name for name in more if name not in option.full]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Passes what the controller has set to a worker process; a hook of pytest-xdist."""
    for name in SHARED:
        node.workerinput[name] = getattr(node.config.option, name)


def leave_out_missing(option) -> None:
    """Leaves out kernels of kernels.MORE that are not available; an error under CI."""
    for name in [name for name in option.kernels if name not in option.full]:
        try:
            kernels.get(name)
        except host.SetupError as error:
            if os.environ.get("CI") == "true":
                raise
            option.kernels.remove(name)
            option.missing[name] = str(error)


def pytest_configure(config):
    """Fetches and builds everything once, before any worker process starts."""
    config.addinivalue_line("markers", "kernels(*names): the only kernels that the test is for")
    config.addinivalue_line("markers", "every_kernel: runs with kernels.MORE, too")
    config.addinivalue_line("markers", "short: the most important of these; make check")
    config.addinivalue_line("markers", "built_in(name): runs with that kernel of OVERLAYS, too; "
                            "by default the one with both drivers")
    config.addinivalue_line("markers", "whole_tree: builds a part of a kernel tree")
    config.addinivalue_line("markers", "series: works on each patch of a series; make check-overlay")
    config.addinivalue_line("markers", "debian: needs a whole Debian; make check-debian")
    config.addinivalue_line("markers", "hosts: needs a host other than the harness; make check-hosts")
    config.addinivalue_line("markers", "long: a longer form of another test; make check-long")
    if hasattr(config, "workerinput"):
        for name in SHARED:
            setattr(config.option, name, config.workerinput[name])
        return
    choose_kernels(config)
    config.option.booted = str(host.BUILD / f"booted-{os.getpid()}")
    if config.option.collectonly:
        return
    try:
        with host.full_disk_is_setup_error():
            if config.option.kernels:
                accelerator()
            leave_out_missing(config.option)
            if not config.option.nested:
                build.prepare(config.option.kernels)
    except host.SetupError as error:
        pytest.exit(f"error: {error}", returncode=1)


def pytest_unconfigure(config):
    """Removes the snapshots that the workers shared, and those of killed runs."""
    if hasattr(config, "workerinput"):
        return
    for directory in host.BUILD.glob("booted-*"):
        pid = directory.name.removeprefix("booted-")
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        only, every = map(metafunc.definition.get_closest_marker, ("kernels", "every_kernel"))
        option = metafunc.config.option
        names = [name for name in (option.kernels if every else option.full)
                 if not only or name in only.args]
        metafunc.parametrize("kernel", names, indirect=True, scope="session")


def fits(item) -> bool:
    """Returns whether the test is for its kernel.

    Kernels with built-in drivers lack the modules that most tests load. All built kernels lack
    hardware-reduced ACPI's drivers.
    """
    params = item.callspec.params if hasattr(item, "callspec") else {}
    kernel, built_in = params.get("kernel"), item.get_closest_marker("built_in")
    option = item.config.option
    if option.short_kernels and kernel and kernel not in option.full:
        return bool(item.get_closest_marker("short"))
    if kernel in built_kernels.OVERLAYS:
        if not built_in or kernel != (*built_in.args, built_kernels.OVERLAY)[0]:
            return False
    return params.get("delivery") != "ged" or kernel in kernels.STOCK


def pytest_collection_modifyitems(items):
    """Leaves out the tests that run with none of the chosen kernels."""
    items[:] = [item for item in items if fits(item) and not any(
        "empty parameter set" in mark.kwargs.get("reason", "")
        for mark in item.iter_markers("skip"))]


@pytest.fixture(scope="session")
def kernel(request):
    kernel = kernels.get(request.param)
    return kvm.slower(kernel) if request.config.option.nested else kernel


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Passes a failure to the fixtures, and shows the guests' logs.

    What this machine lacks is one sentence, without a traceback.
    """
    report = (yield).get_result()
    if report.failed:
        error = host.as_setup_error(call.excinfo and call.excinfo.value)
        if isinstance(error, host.SetupError):
            report.longrepr = f"error: {error}"
        item.stash[FAILED] = True
        for guest in family(item):
            report.sections.append((f"kernel log of {guest.name}", guest.log_end()))


def pytest_terminal_summary(terminalreporter):
    """Shows the tests' measurements, and the missing kernels."""
    for report in terminalreporter.getreports("passed"):
        for what, figures in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {what}: {figures}")
    for name, why in terminalreporter.config.option.missing.items():
        terminalreporter.write_line(f"NOT TESTED with the kernel {name}: {why}", red=True, bold=True)
    for report in terminalreporter.getreports("skipped"):
        if "hosts" in report.keywords:
            terminalreporter.write_line(f"NOT TESTED: {report.nodeid}: {report.longrepr[2]}",
                                        red=True, bold=True)


def pytest_report_header(config):
    return [f"{name}: Linux {kernels.get(name).release}" for name in config.option.kernels
            if not config.option.collectonly]


def family(item) -> list[Guest]:
    """Returns all guests that a test has started."""
    return [member for guest in item.stash.get(GUESTS, []) for member in guest.family()]


def boot_once(options: Options, logs: Path, name: str, directory: Path) -> Saved:
    """Boots a guest unless a worker has, and returns its snapshot in the shared directory."""
    key = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
    path, state = directory / key, directory / f"{key}.state"
    with host.locked(key, directory):
        if not state.exists():
            with Guest(options, logs, f"{name}-boot") as guest, guest.snapshot(path) as snap:
                state.write_bytes(pickle.dumps(snap.state))
    return Saved(path, pickle.loads(state.read_bytes()))


@pytest.fixture(scope="session")
def booted(pytestconfig) -> Path:
    """Returns the directory of the snapshots of freshly booted guests."""
    return Path(pytestconfig.option.booted)


@pytest.fixture
def logs(request):
    """The test's log directory, which stays if the test fails."""
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    directory = host.BUILD / "logs" / name
    with host.locked(name, host.BUILD / "locks"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        yield directory
        if not request.node.stash.get(FAILED, False):
            shutil.rmtree(directory)


@pytest.fixture
def boot(request, kernel, booted, logs):
    """Yields a function that starts a guest; its arguments are those of Options.

    Guests with the same options are booted once, and then restored from a snapshot, which
    is faster; fresh=True boots again. All guests are closed after the test, which fails on
    findings in their kernels' logs.
    """
    guests = request.node.stash[GUESTS] = []

    def start(fresh: bool = False, **changes) -> Guest:
        options = Options(kernel, **{"image": build.image(kernel), "guid": GUID, **changes})
        if options.icount and accelerator() == "kvm":
            pytest.skip("QEMU counts instructions with TCG only")
        name = f"guest{len(guests) or ''}"
        if fresh:
            guest = Guest(options, logs, name)
        else:
            guest = Guest(options, logs, name, boot_once(options, logs, name, booted))
            go(guest)
        guests.append(guest)
        return guest

    yield start
    for guest in family(request.node):
        if request.node.stash.get(FAILED, False):
            guest.kill()
        else:
            guest.close()


@pytest.fixture(params=["sci", "ged"])
def delivery(request, boot, kernel, booted) -> dict:
    """Options of a machine with ACPI events by the SCI, or by a Generic Event Device."""
    if request.param == "sci":
        return {}
    if kernel.architecture == "arm64":
        pytest.skip("arm64 guests have no ACPI, but an interrupt of the device")
    directory = booted / f"reduced-{kernel.name}"
    with host.locked(directory.name, booted):
        if not directory.exists():
            with host.making(directory) as temporary, boot() as plain:
                fadt = acpi_tables.hardware_reduced(acpi_tables.dump(plain, "FACP"))
                acpi_tables.archive(
                    temporary, fadt, acpi_tables.compiled(acpi_tables.EVENT_DEVICE, temporary))
    return {"acpi": directory / acpi_tables.ARCHIVE}


@pytest.fixture
def guest(boot) -> Guest:
    """A guest with one CPU and a generation ID, and without modules."""
    return boot()


@pytest.fixture
def two_cpus(boot) -> Guest:
    return boot(smp=2)
