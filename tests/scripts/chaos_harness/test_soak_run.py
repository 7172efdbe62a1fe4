"""What a soak is told to do is checked before anything starts; what it does, see faults/test_chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.scripts.chaos_harness import soak_run


@pytest.mark.parametrize("warm_up", ["10", "-1"])
def test_a_warm_up_leaves_some_of_the_soak_to_be_weighed(
    warm_up: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        soak_run.main(["--seconds", "10", f"--warm-up={warm_up}", "--report", str(tmp_path / "soak")])
    assert refused.value.code == 2
    assert f"--warm-up: found {warm_up}; allowed: from 0 to less than --seconds, which is 10" in capsys.readouterr().err
    assert not (tmp_path / "soak").exists()
