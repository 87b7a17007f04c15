# SPDX-License-Identifier: GPL-2.0
"""TAP, the Test Anything Protocol, as kselftest prints it."""
import re


def failures(output: str) -> list[str]:
    """Returns the failures in a program's TAP output, one line each."""
    wrong = re.findall(r"^# .*(?::\d+:|terminated).*$|^not ok .*$", output, re.M)
    plan = re.search(r"^1\.\.(\d+)$", output, re.M)
    if not plan:
        return wrong + ["it announced no tests"]
    ran = len(re.findall(r"^(?:not )?ok \d+", output, re.M))
    if ran != int(plan[1]):
        wrong.append(f"it announced {plan[1]} tests and ran {ran}")
    return wrong
