"""What handlers ask of a request follows the backends and routes that run."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.ports.request_terms import RequestTerms
from tests.doubles.running_cell import cell_settings

SLOW = {"name": "slow", "builtin": "demo", "request_timeout": 500.0}
QUICK = {"name": "quick", "builtin": "demo", "request_timeout": 0.5}


@pytest.mark.parametrize(("backends", "timeout_s"), [((), 60.0), ((QUICK,), 60.0), ((QUICK, SLOW), 500.0), ((SLOW,), 500.0)])
def test_a_request_may_take_as_long_as_the_slowest_backend(backends: tuple[dict[str, object], ...], timeout_s: float) -> None:
    assert RequestTerms(cell_settings(backends)).timeout_s == timeout_s
    terms = RequestTerms(cell_settings([SLOW]))
    terms.take(cell_settings(backends))
    assert terms.timeout_s == timeout_s


def test_headers_are_looked_at_that_routes_or_limits_name_now() -> None:
    headers = {"X-Tenant": "t", "X-Team": "u"}
    route = {"pattern": "*", "backend": "slow", "hash_on": "header:x-tenant|ip"}
    limits = {"key": "header:x-team"}
    terms = RequestTerms(cell_settings([SLOW], limits=limits))
    assert terms.hash_keys.of_connection(headers, "", "1") == {"ip": "1", "header:x-team": "u"}
    terms.take(cell_settings([SLOW], [route], limits=limits))
    assert terms.hash_keys.of_connection(headers, "", "1") == {"ip": "1", "header:x-team": "u", "header:x-tenant": "t"}
    terms.take(cell_settings([SLOW], limits=limits))
    assert terms.hash_keys.of_connection(headers, "", "1") == {"ip": "1", "header:x-team": "u"}
