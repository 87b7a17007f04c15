# SPDX-License-Identifier: GPL-2.0
"""Measures the cost of a random draw through OpenSSL, on this machine.

Compares the provider's generator with OpenSSL's own. `make bench` runs it.
"""
import os
import tempfile
from pathlib import Path

from harness import host, packages

SIZES, THREADS = (16, 1024), (1, 8)
OUTPUT = host.BUILD / "openssl"
PLAIN = "openssl_conf = init\n[init]\n"


def main() -> None:
    packages.install(("gcc", "libc6-dev", "libssl-dev", "pkgconf", "make"))
    host.run(["make", "-s", "-C", host.ROOT / "tools/openssl", f"OUTPUT={OUTPUT}"],
             "building the provider")
    with tempfile.TemporaryDirectory() as directory:
        bench, plain, ours = (Path(directory) / name for name in ("bench", "plain.cnf", "ours.cnf"))
        host.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", bench,
                  host.ROOT / "tools/openssl/bench.c", "-lcrypto", "-pthread"], "building the bench")
        plain.write_text(PLAIN)
        ours.write_text(PLAIN + host.run([OUTPUT / "config", "block", plain, OUTPUT / "sysgenid.so"],
                                         "configuring OpenSSL"))
        print(f"{'OpenSSL, ns of CPU time for a draw':<36}{'CTR-DRBG':>12}{'SYSGENID':>12}")
        for size in SIZES:
            for threads in THREADS:
                found = dict(host.run([bench, str(size), str(threads)], "measuring",
                                      env=os.environ | {"OPENSSL_CONF": str(path)}).split()
                             for path in (plain, ours))
                print(f"{f'{size} bytes, {threads} threads':<36}"
                      f"{found['CTR-DRBG']:>12}{found['SYSGENID']:>12}", flush=True)


if __name__ == "__main__":
    host.main(main)
