# SPDX-License-Identifier: GPL-2.0
"""Static checks of the sources.

The kernel's own tools come from linux-source-6.12. test_build.py checks the warnings of
gcc and sparse on every kernel.
"""
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import built_kernels, host, kernels, packages

KERNEL_CODE = ("compat", "drivers", "include")
# Only compat/ names kernel versions, and defines macros of newer kernels.
COMPAT_IGNORES = "LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_UNUSED"
# These scripts need an OCaml compiler. One checks bitmaps of one chip, the other
# pointers compared with 0, which sparse warns of as well.
NO_COCCI = ("check_bq27xxx_data.cocci", "badzero.cocci")


def files(*patterns: str) -> list[str]:
    """Returns the project's files that match the patterns."""
    return [str(path.relative_to(host.ROOT)) for pattern in patterns
            for path in sorted(host.ROOT.glob(pattern))]


def printed_by(*argv: str | Path, **options) -> str:
    """Returns a program's output, whatever its exit status."""
    done = subprocess.run(argv, cwd=host.ROOT, capture_output=True, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, check=False, **options)
    return (done.stdout + done.stderr).strip()


def checkpatch(*argv: str) -> str:
    packages.install(("perl",))
    return printed_by("perl", kernels.source() / "scripts/checkpatch.pl",
                      "--no-tree", "--strict", "--terse", "--no-summary", *argv)


def test_checkpatch_is_clean():
    sources = files(*(f"{top}/**/{name}" for top in KERNEL_CODE
                      for name in ("*.[ch]", "Kconfig", "Makefile")))
    compat = [name for name in sources if name.startswith("compat/")]
    assert not checkpatch("-f", *[name for name in sources if name not in compat])
    assert not checkpatch("--ignore", COMPAT_IGNORES, "-f", *compat)


def test_clang_is_clean(tmp_path):
    tree = built_kernels.clang_tree()
    for top in (*KERNEL_CODE, "Kbuild", "VERSION"):
        path = host.ROOT / top
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / top)
    objects = [name[:-1] + "o" for name in files("drivers/**/*.c", "compat/*.c")]
    printed = host.run(["make", "-C", tree, "LLVM=1", "W=1", f"M={tmp_path}", *objects],
                       "compiling with clang")
    assert all((tmp_path / name).exists() for name in objects)
    assert not re.search(r"warning: |error: ", printed), printed


def options(script: Path) -> list[str]:
    """Returns the options that a Coccinelle script asks for."""
    found = re.search(r"^//+#? *Options: *(.*)", script.read_text(encoding="utf-8"), re.M)
    return found[1].split() if found else []


def cocci_report(script: Path) -> str:
    said = printed_by("spatch", "-D", "report", "--no-show-diff", "--very-quiet", "--cocci-file",
                      script, *options(script), "-I", "include",
                      *[word for top in KERNEL_CODE for word in ("--dir", top)])
    # These lines are about the script itself.
    return "\n".join(line for line in said.splitlines() if not line.startswith("warning: line"))


def test_coccinelle_is_clean():
    packages.install(("coccinelle",))
    scripts = sorted((built_kernels.tree() / "scripts/coccinelle").rglob("*.cocci"))
    assert len(scripts) > 50
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(cocci_report, [path for path in scripts if path.name not in NO_COCCI])
    assert not "\n".join(filter(None, reports))


def test_kernel_doc_is_complete():
    assert not printed_by("perl", kernels.source() / "scripts/kernel-doc", "-none", "-Wall",
                          *files("drivers/**/*.c", "include/linux/*.h", "compat/*.c"))


def test_cppcheck_is_clean():
    packages.install(("cppcheck",))
    sources = [name for name in files("tools/**/*.c") if not re.search(
        r"MODULE_LICENSE", (host.ROOT / name).read_text(encoding="utf-8"))]
    harness = kernels.source() / "tools/testing/selftests"
    assert not printed_by(
        "cppcheck", "-q", "-j2", "--std=c11", "--enable=warning,performance,portability",
        "--inline-suppr", f"--suppress=*:{harness}/*", "-Iinclude/uapi", f"-I{harness}", *sources)
