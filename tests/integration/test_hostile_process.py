"""Empty, shortest, longest and senseless messages of one member end no process and hold up no round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flocknode.demo.threads import POOLS

SCRIPT = Path(__file__).with_name("hostile_network.py")
TIMEOUT_S = 120


@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("mode", ["push", "gossipsub"])
def test_a_hostile_member_ends_no_process(tmp_path: Path, mode: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), mode],
        env={**os.environ, **dict.fromkeys(POOLS, "1")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["linked"] == 4
    assert found["exit_codes"] == [0] * 4
    assert found["rounds"] >= 3
    assert found["failed"] == [0] * 4
    # Every node heard something of it, and held it against the member.
    assert all(found["rejected"])
    assert all(found["penalised"])
