"""bandit over the product, pip-audit over what it installs; what was reviewed and kept stands in `audit_exceptions.toml`.

A finding without an exception fails, and so does an exception without a finding: reviews end with what they were about.
Advisories that cannot be read fail nothing, but it is said which packages they were to be read for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
EXCEPTIONS: Final = Path(__file__).with_name("audit_exceptions.toml")
_PACKAGES: Final = ("actors", "config", "scripts", "transports")
_TIMEOUT_S: Final = 50
_READING_TIMEOUT_S: Final = 600  # to read our own code, however busy the machine

Table = Mapping[str, Any]


def unexpected_code(results: Iterable[Table], exceptions: Sequence[Table]) -> Iterator[str]:
    """What bandit found and nobody has reviewed, and reviews of what it finds no more.

    exceptions: {"test", "file", "reason"}; the file may be a pattern.
    """
    used: set[int] = set()
    for result in results:
        file = str(Path(result["filename"]))
        matching = {at for at, each in enumerate(exceptions) if each["test"] == result["test_id"] and fnmatch(file, each["file"])}
        used |= matching
        if not matching:
            yield f"{file}:{result['line_number']}: {result['test_id']} {result['issue_text']}"
    for at, each in enumerate(exceptions):
        if at not in used:
            yield f"{EXCEPTIONS.name}: {each['test']} of {each['file']} is found no more: take it out"


def unexpected_advisories(dependencies: Iterable[Table], exceptions: Sequence[Table]) -> Iterator[str]:
    """Advisories that nobody has reviewed. exceptions: {"id", "reason"}; the id may be an alias.

    One that is found no more is not told of: it may be that its package could not be asked about.
    """
    reviewed = {each["id"] for each in exceptions}
    for package in dependencies:
        for advisory in package.get("vulns", ()):
            if not reviewed & {advisory["id"], *advisory.get("aliases", ())}:
                fixed = ", ".join(advisory.get("fix_versions", ())) or "no version yet"
                yield f"{package['name']} {package['version']}: {advisory['id']}, mended in {fixed}"


def unread(dependencies: Iterable[Table]) -> list[str]:
    """The packages whose advisories could not be read."""
    return [package["name"] for package in dependencies if "skip_reason" in package]


def installed_requirements(name: str, extras: Sequence[str]) -> Iterator[str]:
    """What is installed of what a distribution needs, and of what that needs, as NAME==VERSION."""
    waiting, seen = [(name, tuple(extras))], set()
    while waiting:
        distribution, wanted = waiting.pop()
        for text in metadata.requires(distribution) or ():
            needed = Requirement(text)
            if needed.marker is not None and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            key = needed.name.lower().replace("_", "-"), tuple(sorted(needed.extras))
            if key not in seen:
                seen.add(key)
                yield f"{key[0]}=={metadata.version(needed.name)}"
                waiting.append((needed.name, key[1]))


def _bandit() -> list[Table]:
    command = [sys.executable, "-m", "bandit", "-q", "-r", *_PACKAGES, "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_READING_TIMEOUT_S, check=False)
    report = json.loads(done.stdout)
    assert not report["errors"], report["errors"]
    results: list[Table] = report["results"]
    return results


def _pip_audit() -> tuple[list[Table], str]:
    """(what it says of each package, why it could not ask)."""
    pinned = sorted(set(installed_requirements("mcp-gateway", ("otel",))))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(pinned))
        requirements.flush()
        command = [sys.executable, "-m", "pip_audit", "-r", requirements.name, "--no-deps", "--disable-pip", "-f", "json"]
        command += ["--progress-spinner", "off", "--timeout", "5"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return [], f"no answer in {_TIMEOUT_S} s"
    if done.returncode not in (0, 1):
        raise SystemExit(f"pip-audit failed: {done.stderr}")
    try:
        found: list[Table] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return [], (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return found, ""


def main() -> int:
    exceptions = tomllib.loads(EXCEPTIONS.read_text())
    problems = list(unexpected_code(_bandit(), exceptions.get("code", ())))
    dependencies, failure = _pip_audit()
    problems += unexpected_advisories(dependencies, exceptions.get("advisory", ()))
    for problem in problems:
        print(problem)
    missing = unread(dependencies)
    if failure or missing:
        whom = "every package" if failure or len(missing) == len(dependencies) else ", ".join(missing)
        why = f" ({failure})" if failure else ""
        print(f"NOTE: advisories could not be read for {whom}{why}: known flaws were not looked for there")
    read_count = len(dependencies) - len(missing)
    print(f"audit: {len(problems)} findings that nobody has reviewed; advisories of {read_count} packages were read")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
