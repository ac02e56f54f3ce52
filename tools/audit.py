"""Known vulnerabilities of what is installed, by pip-audit; fails also where nobody could say.

pip-audit itself ends with 0 when the index knows none of the packages, as a mirror without PyPI's vulnerability data.
"""

import json
import subprocess
import sys


def verdict(dependencies: list[dict[str, object]]) -> list[str]:
    """What stands against a clean answer, in lines: each vulnerability, or that nothing was audited.

    Args:
        dependencies: pip-audit's JSON, ``dependencies``.
    """
    audited = [one for one in dependencies if "skip_reason" not in one]
    if not audited:
        return [f"none of {len(dependencies)} packages was audited: the index has no vulnerability data for them"]
    return [
        f"{one['name']} {one['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no release'}"
        for one in audited
        for found in one["vulns"]
    ]


def main() -> int:
    """Exit code 1 with what was found."""
    words = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True)
    if not done.stdout:
        sys.exit(done.stderr or f"pip-audit ended with {done.returncode} and no answer")
    dependencies = json.loads(done.stdout)["dependencies"]
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    print(f"audited {len(dependencies) - len(skipped)} of {len(dependencies)} packages")
    if skipped:
        print(f"not audited: {', '.join(skipped)}")
    against = verdict(dependencies)
    print("\n".join(against) if against else "no known vulnerability")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
