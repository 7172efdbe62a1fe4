"""What the audit of CI lets pass: what was reviewed, with a reason, and no more."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(test_id: str, file: str) -> dict[str, Any]:
    return {"filename": f"./{file}", "line_number": 7, "test_id": test_id, "issue_text": "is unsafe"}


def test_a_finding_passes_only_where_it_was_reviewed_and_a_review_only_where_it_is_found(audit: ModuleType) -> None:
    reviews = [{"test": "B1", "file": "a/*", "reason": "r"}, {"test": "B2", "file": "b.py", "reason": "r"}]
    assert list(audit.unexpected_code([found("B1", "a/x.py"), found("B2", "b.py")], reviews)) == []
    problems = list(audit.unexpected_code([found("B1", "b.py"), found("B2", "b.py")], reviews))
    assert problems == ["b.py:7: B1 is unsafe", "audit_exceptions.toml: B1 of a/* is found no more: take it out"]


def test_an_advisory_passes_only_where_it_was_reviewed_by_any_of_its_names(audit: ModuleType) -> None:
    advisory = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
    packages = [{"name": "x", "version": "1.0", "vulns": [advisory]}, {"name": "y", "skip_reason": "not found"}]
    assert list(audit.unexpected_advisories(packages, [{"id": "CVE-1"}])) == []
    assert list(audit.unexpected_advisories(packages, [{"id": "CVE-2"}])) == ["x 1.0: PYSEC-1, mended in 2.0"]
    assert audit.unread(packages) == ["y"]


def test_all_that_the_gateway_installs_is_asked_about_and_no_tool_of_its_tests(audit: ModuleType) -> None:
    names = {each.partition("==")[0] for each in audit.installed_requirements("mcp-gateway", ("otel",))}
    assert {"tornado", "aiohttp", "yarl", "multidict", "cffi", "opentelemetry-sdk"} <= names
    assert not names & {"pytest", "hypothesis", "mypy", "ruff", "bandit", "mcp"}


def test_every_exception_has_its_reason_and_a_file_that_is_there() -> None:
    exceptions = tomllib.loads((ROOT / ".ci" / "audit_exceptions.toml").read_text())
    for each in exceptions["code"]:
        assert each.keys() == {"test", "file", "reason"}
        assert len(each["reason"]) > 20
        assert each["file"] == "*" or list(ROOT.glob(each["file"]))
    for each in exceptions.get("advisory", ()):
        assert each.keys() == {"id", "reason"}
