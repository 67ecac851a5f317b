"""How an adapter is called: `python -m sim.bench.peers.<adapter> SPEC RESULT`, both JSON.

Only the standard library: p2pfl's adapter runs without flocknode's dependencies, and imports this too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def adapt(measure: Callable[[Json], Json]) -> None:
    """Measure what the spec asks for; the result appears whole or not at all."""
    spec, result = Path(sys.argv[1]), Path(sys.argv[2])
    measured = measure(json.loads(spec.read_text()))
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(measured))
    partial.replace(result)
