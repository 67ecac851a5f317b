"""Test vectors for other implementations (docs/PROTOCOL.md section 8): `flocknode vectors DIR`.

Everything here follows from labels and the protocol's own functions, so the files are the same wherever they
are made, and a change in them is a change of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flocknode.vectors import agreement, algebra, masked_sum, rehearsal, secrecy, stake
from flocknode.vectors.values import Document, render

BUILDERS: Mapping[str, Callable[[], Document]] = {
    "prg.json": algebra.prg,
    "ntt.json": algebra.transforms,
    "shamir.json": algebra.sharing,
    "encoding.json": masked_sum.encoding,
    "masking.json": masked_sum.masks,
    "interpolation.json": masked_sum.interpolation,
    "commitment.json": masked_sum.commitments,
    "sealing.json": secrecy.sealing,
    "dealing.json": secrecy.dealing,
    "hashing.json": agreement.hashing,
    "sortition.json": agreement.sortition,
    "beacon.json": agreement.beacon,
    "gamma.json": stake.gamma,
    "judgement.json": stake.judgement,
    "pace.json": stake.pace,
    "statements.json": agreement.statements,
    "blocks.json": agreement.blocks,
    "round.json": rehearsal.whole_round,
}


def write_vectors(directory: Path) -> list[Path]:
    """Write all files into `directory`, made if it is missing; returns their paths. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, build in BUILDERS.items():
        path = directory / name
        path.write_text(render(build()), encoding="ascii", newline="\n")
        paths.append(path)
    return paths
