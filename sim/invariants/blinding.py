"""Blinding: a commitment that leaves an honest node is unreadable, and no two are blinded alike.

docs/PROTOCOL.md section 5.1: "Published is C_i + expand(rho_i, ...): unreadable until rho_i is out". The
harness knows C_i of every proposer and takes it off: what is left is the blinding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protocol.algebra import field as fp
from protocol.checkpoint import decode_checkpoint
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect
from protocol.jobs import ContributeJob
from protocol.messages import Kind
from protocol.params import ProtocolParams
from protocol.secagg.scheme import scheme_of
from sim.invariants.base import InvariantError
from sim.invariants.sums import meant
from sim.notes import Notes
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node


class Blinding:
    """Says nothing of networks that publish commitments in the clear. `seen` counts commitments."""

    def __init__(
        self, params: ProtocolParams, notes: Notes, blob_of: Callable[[bytes], bytes | None]
    ) -> None:
        self._blinded = params.blinded
        self._notes = notes
        self._blob_of = blob_of
        self._pads: dict[bytes, tuple[int, bytes]] = {}
        self.seen = 0

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not self._blinded or not node.honest:
            return
        for effect in performed:
            if isinstance(effect, Broadcast):
                for statement in own_statements(effect.data, node.peer):
                    if statement.kind is Kind.CONTRIBUTION and statement.envelope.payload:
                        self._check(node.index, statement)

    def _check(self, number: int, statement: Statement) -> None:
        job = self._notes.of_peer(statement.round, statement.sender)
        model = None if job is None else self._blob_of(job.model_digest)
        if job is None or model is None:
            return
        pad = self._pad(job, model, statement.envelope.payload)
        where = f"node {number}, round {statement.round}"
        if not any(pad):
            raise InvariantError(f"{where}: the commitment is published as it is")
        place = statement.round, statement.sender
        if self._pads.setdefault(pad, place) != place:
            raise InvariantError(f"{where}: the commitment is blinded like another one")
        self.seen += 1

    def _pad(self, job: ContributeJob, model: bytes, published: bytes) -> bytes:
        scheme = scheme_of(job.context)
        plain = scheme.commitment.commit(meant(job, decode_checkpoint(job.context.params, model)))
        return fp.to_bytes(fp.sub(scheme.read_commitment(published, "commitment"), plain))
