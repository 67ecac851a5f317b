"""One round's aggregation jobs, built and run in one process as the engine would issue them.

No agreement, no messages: just `protocol.jobs.run` and the values that pass from one job to the next.
The benchmark times these jobs, and the tests hold them against plain arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from attrs import define, evolve, field

from protocol import jobs
from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.codec import digest
from protocol.context import Index, RoundContext
from protocol.jobs import (
    AggregateJob,
    AggregateResult,
    ContributeJob,
    ContributeResult,
    DealJob,
    DealResult,
    DisputeJob,
    DisputeResult,
    VerifyJob,
    VerifyResult,
)
from protocol.params import Masking, ProtocolParams, Setup
from protocol.secrets import (
    RoundSecrets,
    dealt_round_seed,
    dealt_u_seed,
    dealt_z_root,
    issue_packages,
    joint_z_root,
    z_root_hash,
)
from protocol.sharing import Dealing, PinnedShares, ShareKind, open_box

Float32Vec = npt.NDArray[np.float32]

ROUND = 1


@define
class Rehearsal:
    """The state of a round under way; made by `rehearse`. Peers are indices into the proposers."""

    context: RoundContext
    secrets: tuple[RoundSecrets, ...] = field(repr=False)
    z_root: bytes = field(repr=False)
    model_digest: bytes
    blobs: dict[bytes, bytes] = field(repr=False)
    dealings: dict[Index, Dealing] = field(factory=dict, repr=False)
    contributions: dict[Index, ContributeResult] = field(factory=dict, repr=False)
    weights: dict[Index, int] = field(factory=dict)

    def put(self, data: bytes) -> bytes:
        """Keep a blob; its digest."""
        name = blob_digest(data)
        self.blobs[name] = data
        return name

    def read(self, name: bytes) -> bytes:
        """The `ReadBlob` of this round."""
        return self.blobs[name]

    # -- phase 1 ---------------------------------------------------------------------------

    def deal_job(self, dealer: Index) -> DealJob:
        """Phase 1 of one dealer."""
        return DealJob(self.context, dealer, self.secrets[dealer])

    def deal(self, dealer: Index) -> Dealing:
        """Run the dealer's job and keep its dealing."""
        result = jobs.run(self.deal_job(dealer), self.read)
        assert isinstance(result, DealResult)
        self.dealings[dealer] = result.dealing
        return result.dealing

    def pin_sharers(self, sharers: Sequence[Index]) -> None:
        """U1, and the hidden points that follow from it."""
        context = evolve(self.context, sharers=tuple(sorted(sharers)))
        self.context = context
        if context.params.setup is Setup.KEY_AGREEMENT:
            zs = [self.secrets[index].z for index in context.sharers]
            self.z_root = joint_z_root(context.network, context.round, zs)

    # -- phase 2 ---------------------------------------------------------------------------

    def contribute_job(
        self, proposer: Index, update: Float32Vec, weight: int, residual: Float32Vec | None = None
    ) -> ContributeJob:
        """Phase 2 of one proposer; `update` and `residual` float32[d], `weight` its sample count."""
        return ContributeJob(
            self.context,
            proposer,
            self.secrets[proposer],
            self.z_root,
            update,
            weight,
            self.model_digest,
            residual,
        )

    def contribute(
        self, proposer: Index, update: Float32Vec, weight: int, residual: Float32Vec | None = None
    ) -> ContributeResult:
        """Run the proposer's job, keep its result and its upload."""
        result = jobs.run(self.contribute_job(proposer, update, weight, residual), self.read)
        assert isinstance(result, ContributeResult)
        self.put(result.upload)
        self.contributions[proposer] = result
        self.weights[proposer] = weight
        return result

    # -- phase 3 ---------------------------------------------------------------------------

    def pinned_shares(self, dealer: Index, kind: ShareKind, holders: Sequence[Index]) -> PinnedShares:
        """What these holders release of a dealer's secret, out of their opened boxes."""
        dealing = self.dealings[dealer]
        packages = {
            holder: open_box(
                self.context,
                dealer,
                holder,
                self.secrets[holder].seal_key,
                dealing.boxes[holder],
                dealing.roots,
            )
            for holder in holders
        }
        pinned = {
            ShareKind.MASK: self.context.mask_publics[dealer],
            ShareKind.SELF: dealing.hashes[0],
            ShareKind.CHECK: dealing.hashes[1],
        }
        shares = tuple(package.held(holder, kind) for holder, package in packages.items())
        return PinnedShares(dealer, shares, dealing.roots[kind], pinned[kind])

    def aggregate_job(self, contributors: Sequence[Index]) -> AggregateJob:
        """The shares come from the first `threshold` members of U2."""
        members = tuple(sorted(contributors))
        holders = members[: self.context.threshold]
        double = self.context.params.masking is Masking.DOUBLE
        dropped = [index for index in self.context.sharers if index not in members]
        return AggregateJob(
            self.context,
            members,
            tuple(self.contributions[index].upload_digest for index in members),
            tuple(self.pinned_shares(i, ShareKind.SELF, holders) for i in members) if double else (),
            tuple(self.pinned_shares(i, ShareKind.MASK, holders) for i in dropped),
        )

    def aggregate(self, contributors: Sequence[Index]) -> AggregateResult:
        """Run the aggregator's job and keep its sum."""
        result = jobs.run(self.aggregate_job(contributors), self.read)
        assert isinstance(result, AggregateResult)
        self.put(result.sum)
        return result

    # -- phase 4 ---------------------------------------------------------------------------

    def verify_job(self, contributors: Sequence[Index], claim: AggregateResult) -> VerifyJob:
        """What everyone checks of a claim, once all of U2 have revealed."""
        members = tuple(sorted(contributors))
        return VerifyJob(
            context=self.context,
            contributors=members,
            sum_digest=claim.sum_digest,
            self_seeds=claim.self_seeds,
            mask_secrets=claim.mask_secrets,
            check_seeds=tuple(self.secrets[index].check_seed for index in members),
            z_root=self.z_root,
            commitments=tuple(self.contributions[index].commitment for index in members),
            challenge_seeds=tuple(self.secrets[index].challenge_seed for index in members),
            weights=tuple(self.weights[index] for index in members),
            model_digest=self.model_digest,
        )

    def verify(self, job: VerifyJob) -> VerifyResult:
        """Run it."""
        result = jobs.run(job, self.read)
        assert isinstance(result, VerifyResult)
        return result

    def dispute_job(self, job: VerifyJob) -> DisputeJob:
        """The dispute over a claim, with the uploads as contributed and the H(z) that they should pin."""
        hash_z = z_root_hash(self.context.network, self.context.round, self.z_root)
        uploads = tuple(self.contributions[index].upload_digest for index in job.contributors)
        return DisputeJob(job, uploads, (hash_z,) * len(uploads))

    def dispute(self, job: DisputeJob) -> DisputeResult:
        """Run it."""
        result = jobs.run(job, self.read)
        assert isinstance(result, DisputeResult)
        return result


def rehearse(
    params: ProtocolParams, proposers: int, seed: bytes = b"", weights: Float32Vec | None = None
) -> Rehearsal:
    """A round in which nobody has spoken yet; everything random follows from `seed`.

    `weights`: float32[d] of the current model, zero by default.
    """
    network = digest("rehearsal network", seed)
    peers = tuple(sorted(digest("rehearsal peer", seed, bytes([i >> 8, i & 255])) for i in range(proposers)))
    u_seed, z_root = None, b""
    if params.setup is Setup.DEALER:
        packages = issue_packages(digest("rehearsal dealer", seed), peers)
        round_seeds = [dealt_round_seed(packages[peer], network, ROUND) for peer in peers]
        u_seed = dealt_u_seed(packages[peers[0]], network)
        z_root = dealt_z_root(packages[peers[0]], network, ROUND)
    else:
        round_seeds = [digest("rehearsal entropy", seed, peer) for peer in peers]
    secrets = tuple(RoundSecrets.derive(round_seed, network, ROUND) for round_seed in round_seeds)
    context = RoundContext(
        params=params,
        network=network,
        round=ROUND,
        beacon=digest("rehearsal beacon", seed),
        proposers=peers,
        mask_publics=tuple(secret.mask_public for secret in secrets),
        seal_publics=tuple(secret.seal_public for secret in secrets),
        threshold=2 * proposers // 3 + 1,
        u_seed=u_seed,
    )
    model = np.zeros(params.dimension, dtype=np.float32) if weights is None else weights
    blob = initial_checkpoint(params, model)
    name = blob_digest(blob)
    return Rehearsal(context, secrets, z_root, name, {name: blob})


def whole_round(
    rehearsal: Rehearsal,
    sharers: Sequence[Index],
    contributors: Sequence[Index],
    updates: Mapping[Index, Float32Vec],
    weights: Mapping[Index, int],
) -> tuple[AggregateResult, VerifyJob]:
    """Deal, contribute and aggregate: what is left is to verify."""
    for dealer in sharers:
        rehearsal.deal(dealer)
    rehearsal.pin_sharers(sharers)
    for proposer in sorted(contributors):
        rehearsal.contribute(proposer, updates[proposer], weights[proposer])
    claim = rehearsal.aggregate(contributors)
    return claim, rehearsal.verify_job(contributors, claim)
