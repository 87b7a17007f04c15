# SPDX-License-Identifier: GPL-2.0
"""Measures the cost of a random draw through OpenSSL, on this machine.

Compares the provider's generator with OpenSSL's own. `make bench` prints it.
"""
import os
import tempfile
from pathlib import Path

from harness import host, packages

SIZES, THREADS = (16, 1024), (1, 8)
GENERATORS = ("CTR-DRBG", "SYSGENID")
OUTPUT = host.BUILD / "openssl"
PLAIN = "openssl_conf = init\n[init]\n"


def measure() -> list[dict]:
    """Returns the CPU time of a draw in ns, by generator, for each size and thread count."""
    packages.install(("gcc", "libc6-dev", "libssl-dev", "pkgconf", "make"))
    host.run(["make", "-s", "-C", host.ROOT / "tools/openssl", f"OUTPUT={OUTPUT}"],
             "building the provider")
    host.progress("measuring OpenSSL")
    with tempfile.TemporaryDirectory() as directory:
        bench, plain, ours = (Path(directory) / name
                              for name in ("bench", "plain.cnf", "ours.cnf"))
        host.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", bench,
                  host.ROOT / "tools/openssl/bench.c", "-lcrypto", "-pthread"],
                 "building the bench")
        plain.write_text(PLAIN)
        block = host.run([OUTPUT / "config", "block", plain, OUTPUT / "sysgenid.so"],
                         "configuring OpenSSL")
        ours.write_text(PLAIN + block)
        result = []
        for size in SIZES:
            for threads in THREADS:
                found = dict(host.run([bench, str(size), str(threads)], "measuring",
                                      env=os.environ | {"OPENSSL_CONF": str(path)}).split()
                             for path in (plain, ours))
                result.append({"bytes": size, "threads": threads,
                               "ns": {name: int(found[name]) for name in GENERATORS}})
    return result


def show(result: list[dict]) -> None:
    print(f"{'OpenSSL, ns of CPU time for a draw':<36}"
          + "".join(f"{name:>12}" for name in GENERATORS))
    for row in result:
        plural = "s" * (row["threads"] > 1)
        print(f"{row['bytes']} bytes, {row['threads']} thread{plural}".ljust(36)
              + "".join(f"{row['ns'][name]:>12}" for name in GENERATORS))
