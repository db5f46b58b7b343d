"""Compare the installed packages with the known vulnerabilities: ``make audit``.

    python tests/audit.py SITE_PACKAGES

pip-audit does the work; this says what came of it. Exit code 1: a package has a known
vulnerability. Where no database of vulnerabilities can be reached nothing was audited, which is
said, and is no failure: the code has not become worse by it.
"""

from __future__ import annotations

import json
import subprocess
import sys


def verdict(answer: str, said: str) -> tuple[int, str]:
    """What came of an audit.

    Args:
        answer: what pip-audit printed on stdout: JSON, if it came to an end.
        said: what it printed on stderr.

    Returns:
        The exit code, and a text.
    """
    try:
        audited = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return 0, f"NOT AUDITED: no database of vulnerabilities could be asked from here ({last})"
    lines = []
    for package in audited:
        for found in package.get("vulns", []):
            known = ", ".join([found["id"], *found.get("aliases", [])])
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {known}; fixed in {fixed}")
    passed = [package["name"] for package in audited if "skip_reason" in package]
    if audited and len(passed) == len(audited):
        return 0, f"NOT AUDITED: the database knows none of the packages ({len(passed)})"
    lines.append(f"{len(audited) - len(passed)} packages audited")
    if passed:
        lines[-1] += f"; not in the database: {', '.join(passed)}"
    return int(len(lines) > 1), "\n".join(lines)


def main(directory: str) -> int:
    """Audit the packages in a directory."""
    command = [sys.executable, "-m", "pip_audit", "--path", directory, "--format", "json"]
    made = subprocess.run(
        [*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    code, text = verdict(made.stdout, made.stderr)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
