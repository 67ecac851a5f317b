"""What a simulation knows and no node does: contributions as meant, and what each voter measured."""

from __future__ import annotations

from attrs import define, field

from protocol.jobs import ContributeJob, ContributeResult, EvaluateJob, EvaluateResult, JobResult

ROUNDS_KEPT = 3


@define(eq=False)
class Notes:
    """Contributions of the last few rounds, by the digest of their upload and by (round, peer)."""

    _by_upload: dict[bytes, ContributeJob] = field(factory=dict, init=False)
    _by_peer: dict[tuple[int, bytes], ContributeJob] = field(factory=dict, init=False)

    _measured: dict[int, list[tuple[EvaluateJob, EvaluateResult]]] = field(factory=dict, init=False)

    def take_evaluation(self, node: int, job: EvaluateJob, result: EvaluateResult) -> None:
        """The node of this number has measured these losses; what it then says may be something else."""
        self._measured.setdefault(node, []).append((job, result))

    def measured_by(self, node: int) -> list[tuple[EvaluateJob, EvaluateResult]]:
        """All that a node has measured, in order."""
        return self._measured.get(node, [])

    def take(self, job: ContributeJob, result: JobResult) -> None:
        """A node has run this job; what it then says may be something else."""
        assert isinstance(result, ContributeResult)
        self._by_upload[result.upload_digest] = job
        self._by_peer[job.context.round, job.context.proposers[job.proposer]] = job
        self._forget_before(job.context.round - ROUNDS_KEPT)

    def of_upload(self, upload_digest: bytes) -> ContributeJob | None:
        """The contribution whose honest upload has this digest; None for one that was tampered with."""
        return self._by_upload.get(upload_digest)

    def of_peer(self, round_: int, peer: bytes) -> ContributeJob | None:
        """The contribution that a peer worked out last in a round."""
        return self._by_peer.get((round_, peer))

    def _forget_before(self, round_: int) -> None:
        for digest in [d for d, job in self._by_upload.items() if job.context.round < round_]:
            del self._by_upload[digest]
        for key in [key for key in self._by_peer if key[0] < round_]:
            del self._by_peer[key]
