"""The frame of pages for people, and what their forms send."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.downstream.server.pages import NOWHERE, page, page_headers, parameters


def test_a_title_is_text_and_nothing_else() -> None:
    made = page("<script>a</script> {b}", "<p>{c}</p>", "end").decode()
    assert "<script>" not in made
    assert made.count("&lt;script&gt;a&lt;/script&gt; {b}") == 2
    assert "<p>{c}</p>" in made
    assert "<footer>end</footer>" in made
    assert "<footer>" not in page("a", "b").decode()


@pytest.mark.parametrize(("form_action", "referrer"), [(NOWHERE, "no-referrer"), ("'self'", "same-origin")])
def test_a_page_is_framed_by_nobody_runs_nothing_and_sends_forms_where_it_says(form_action: str, referrer: str) -> None:
    headers = page_headers(form_action)
    policy = headers["Content-Security-Policy"]
    assert f"form-action {form_action};" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["Referrer-Policy"], headers["X-Frame-Options"], headers["Cache-Control"]) == (referrer, "DENY", "no-store")


def test_of_parameters_the_first_counts_and_of_too_many_none() -> None:
    assert parameters("a=1&a=2&b=%20") == {"a": "1", "b": " "}
    assert len(parameters("&".join(f"p{number}=1" for number in range(20)))) == 20
    assert parameters("&".join(f"p{number}=1" for number in range(21))) == {}
