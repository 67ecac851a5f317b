"""What a node owes the round: level-triggered, one function a phase (docs/PROTOCOL.md section 3).

After every event the engine calls `Duties.advance`. Each duty looks at what the ledger pins and what
the node holds, does what is due and was not done, and can be called again at any time. So a restarted
node takes up where it was, and messages may come in any order. Nothing here acts on a block that is
not final.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import define, evolve, field

from protocol import durable, keys
from protocol.codec import DecodeError, decode, digest, encode
from protocol.compose import vouchers_for
from protocol.context import RoundContext
from protocol.events import Fetch, JobDone, Penalise, PutBlob, RunJob
from protocol.jobs import (
    AggregateJob,
    AggregateResult,
    CheckUploadJob,
    CheckUploadResult,
    ContributeJob,
    ContributeResult,
    DealJob,
    DealResult,
    DisputeJob,
    DisputeResult,
    EvaluateJob,
    EvaluateResult,
    Job,
    TrainJob,
    TrainResult,
    VerifyJob,
    VerifyResult,
)
from protocol.ledger.state import LedgerState, Phase, PinnedContribution, RoundState
from protocol.local import PhaseClock, RoundMemory
from protocol.messages import (
    AggregateClaim,
    Complaint,
    Contribution,
    DealerEvidence,
    KeyAdvert,
    Kind,
    NamedSecret,
    Receipt,
    ReleasedShare,
    ReleaseStage,
    Reveal,
    SealedShares,
    SealedVote,
    ShareBundle,
    ShareOpening,
    ShareRelease,
    Statement,
    VoteOpening,
    Witness,
    ZReply,
    ZRequest,
    vote_hash,
)
from protocol.outbox import Outbox
from protocol.params import Challenge, Masking, Setup, Sparsify
from protocol.pool import Pool
from protocol.round import (
    Rules,
    check_seed_matches,
    claim_matches,
    pinned_value,
    round_context,
    z_root_from,
)
from protocol.secagg.scheme import UploadError, check_commitment, commitment_digest
from protocol.secagg.verification import Verdict
from protocol.secrets import (
    DealerPackage,
    RoundSecrets,
    dealt_round_seed,
    dealt_u_seed,
    dealt_z_root,
    secret_hash,
    z_root_hash,
)
from protocol.sharing import (
    DealerFault,
    HeldShare,
    PinnedShares,
    ShareError,
    ShareKind,
    SharePackage,
    check_package,
    open_box,
    package_for,
    rebuild,
    share_holds,
)

VOTE_FOR, ABSTAIN, VOTE_AGAINST = 1, 0, -1


@define(eq=False)
class Duties:
    """The working half of a node. `state_of` gives the ledger state after the last final block."""

    me: bytes
    rules: Rules
    pool: Pool
    outbox: Outbox
    entropy: Callable[[int], bytes]
    dealer: DealerPackage | None
    weight: int
    state_of: Callable[[], LedgerState]
    memory: RoundMemory = field(init=False)
    clock: PhaseClock = field(init=False)
    blobs: set[bytes] = field(factory=set, init=False)
    fetching: set[bytes] = field(factory=set, init=False)
    seeds: dict[int, bytes] = field(factory=dict, init=False)
    residual: durable.Residual | None = field(default=None, init=False)
    _context: tuple[int, RoundContext] | None = field(default=None, init=False)

    # -- shorthands ----------------------------------------------------------------------------

    @property
    def state(self) -> LedgerState:
        return self.state_of()

    @property
    def learning(self) -> RoundState:
        return self.state.learning

    @property
    def context(self) -> RoundContext:
        """Of the current round and height, with the dealer's U where there is one."""
        height = self.state.height
        if self._context is None or self._context[0] != height:
            context = round_context(self.state, self.rules)
            if self.dealer is not None:
                context = evolve(context, u_seed=dealt_u_seed(self.dealer, self.rules.network))
            self._context = (height, context)
        return self._context[1]

    def index(self, peer: bytes) -> int:
        return self.learning.proposers.index(peer)

    @property
    def is_proposer(self) -> bool:
        return self.me in self.learning.proposers

    @property
    def is_contributor(self) -> bool:
        return any(contribution.peer == self.me for contribution in self.learning.contributors)

    def round_seed(self, round_: int) -> bytes:
        """The seed of all my secrets of a round: drawn once, durable before anything of it is sent."""
        seed = self.seeds.get(round_)
        if seed is None:
            if self.rules.params.setup is Setup.DEALER and self.dealer is not None:
                seed = dealt_round_seed(self.dealer, self.rules.network, round_)
            else:
                seed = self.entropy(32)
            self.seeds[round_] = seed
            self.outbox.persist(durable.SECRET, durable.round_key(round_), seed)
        return seed

    def secrets(self, round_: int) -> RoundSecrets:
        return RoundSecrets.derive(self.round_seed(round_), self.rules.network, round_)

    def my_secrets(self) -> RoundSecrets:
        if self.memory.secrets is None:
            self.memory.secrets = self.secrets(self.memory.round)
        return self.memory.secrets

    def run(self, name: str, job: Job) -> None:
        """Start a job of this round once."""
        if name not in self.memory.started:
            self.memory.started.add(name)
            self.outbox.add(RunJob(f"{self.memory.round}/{name}", job))

    def want_blob(self, blob: bytes, holders: tuple[bytes, ...]) -> bool:
        """Is the blob held? If not, fetch it."""
        if blob in self.blobs:
            return True
        others = tuple(dict.fromkeys(peer for peer in holders if peer != self.me))
        if blob not in self.fetching and others:
            self.fetching.add(blob)
            self.outbox.add(Fetch(blob, others))
        return False

    def put_blob(self, blob: bytes, data: bytes) -> None:
        self.blobs.add(blob)
        self.outbox.add(PutBlob(blob, data))

    # -- what is due ---------------------------------------------------------------------------

    def advance(self) -> None:
        """Do everything that is due now."""
        self._advertise()
        self._want_model()
        phase = self.learning.phase
        if phase is Phase.SHARE:
            self._share()
        if phase in (Phase.SHARE, Phase.CONTRIBUTE) and self.is_proposer:
            self._train()
        if phase is Phase.CONTRIBUTE:
            self._contribute()
            self._take_uploads()
        if phase is Phase.AGGREGATE:
            self._release_unmasking()
            self._take_uploads()
            self._aggregate()
            self._take_sum()
        if phase in (Phase.BALLOT, Phase.RECOVER):
            self._reveal()
            self._release_checks()
            self._collect_seeds()
        if phase is Phase.BALLOT:
            self._verify()
            self._seal_vote()
        if phase is Phase.DISPUTE:
            self._dispute()
        if phase is Phase.VOTE:
            self._open_vote()

    # -- phase 0 -------------------------------------------------------------------------------

    @property
    def advert_round(self) -> int:
        """The round that adverts are collected for now."""
        return self.state.round + (self.learning.phase is not Phase.ADVERT)

    def _advertise(self) -> None:
        if self.me not in self.state.validators:
            return
        round_ = self.advert_round
        if self.pool.get(round_, Kind.KEY_ADVERT, self.me) is None:
            secrets = self.secrets(round_)
            self.outbox.publish(round_, Kind.KEY_ADVERT, KeyAdvert(secrets.mask_public, secrets.seal_public))

    def _want_model(self) -> None:
        self.want_blob(self.state.model_digest, self.state.validators)

    # -- phase 1 -------------------------------------------------------------------------------

    def _share(self) -> None:
        round_, memory = self.state.round, self.memory
        if not self.is_proposer:
            return
        if memory.dealt is None:
            self.run("deal", DealJob(self.context, self.index(self.me), self.my_secrets()))
        elif self.pool.get(round_, Kind.SHARE_BUNDLE, self.me) is None:
            dealing = memory.dealt.dealing
            self_hash, check_hash, z_hash = dealing.hashes
            self.outbox.publish(
                round_,
                Kind.SHARE_BUNDLE,
                ShareBundle(dealing.roots, self_hash, check_hash, z_hash, self.weight),
            )
            for holder in self.learning.proposers:
                self.send_box(holder)
        self._open_boxes()
        self._answer_complaints()
        self._take_share_openings()

    def send_box(self, holder: bytes) -> None:
        """Hand a holder its sealed shares (again)."""
        if self.memory.dealt is None or holder not in self.learning.proposers:
            return
        box = self.memory.dealt.dealing.boxes[self.index(holder)]
        if holder == self.me:
            self.memory.boxes[self.me] = box
        else:
            self.outbox.send(holder, self.state.round, Kind.SEALED_SHARES, SealedShares(box))

    def on_box(self, dealer: bytes, box: bytes) -> None:
        if dealer not in self.memory.packages:
            self.memory.boxes[dealer] = box

    def _open_boxes(self) -> None:
        round_, memory = self.state.round, self.memory
        for dealer in sorted(memory.boxes):
            bundle = self.pool.get(round_, Kind.SHARE_BUNDLE, dealer)
            if dealer not in self.learning.proposers or bundle is None or dealer in memory.packages:
                continue
            assert isinstance(bundle.body, ShareBundle)
            box = memory.boxes.pop(dealer)
            try:
                package = open_box(
                    self.context,
                    self.index(dealer),
                    self.index(self.me),
                    self.my_secrets().seal_secret,
                    box,
                    bundle.body.share_roots,
                )
            except ShareError as error:
                self.outbox.notify("bad_share", dealer=keys.peer_name(dealer), why=str(error))
                if self.pool.get(round_, Kind.COMPLAINT, self.me, 0, dealer) is None:
                    self.outbox.publish(round_, Kind.COMPLAINT, Complaint(dealer))
                continue
            self._keep_package(dealer, package, bundle.body)

    def _keep_package(self, dealer: bytes, package: SharePackage, bundle: ShareBundle) -> None:
        self.memory.packages[dealer] = package
        self.outbox.persist(durable.SHARE, durable.round_key(self.state.round, dealer), encode(package))
        self.take_z(dealer, package.z, bundle.hash_z)

    def take_z(self, dealer: bytes, z: bytes, hash_z: bytes) -> None:
        """Keep z_i if it is the one that its dealer pinned."""
        if secret_hash("z", self.rules.network, self.state.round, dealer, z) == hash_z:
            self.memory.zs[dealer] = z

    def _answer_complaints(self) -> None:
        round_ = self.state.round
        for statement in list(self.pool.of_kind(round_, Kind.COMPLAINT)):
            body, holder = statement.body, statement.sender
            assert isinstance(body, Complaint)
            if body.dealer != self.me or holder not in self.learning.proposers or self.memory.dealt is None:
                continue
            if self.pool.get(round_, Kind.SHARE_OPENING, self.me, 0, holder) is None:
                package = package_for(
                    self.context, self.index(self.me), self.index(holder), self.my_secrets()
                )
                self.outbox.publish(round_, Kind.SHARE_OPENING, ShareOpening(holder, encode(package)))

    def _take_share_openings(self) -> None:
        round_ = self.state.round
        for dealer in self.learning.proposers:
            opening = self.pool.get(round_, Kind.SHARE_OPENING, dealer, 0, self.me)
            bundle = self.pool.get(round_, Kind.SHARE_BUNDLE, dealer)
            if opening is None or bundle is None or dealer in self.memory.packages:
                continue
            assert isinstance(opening.body, ShareOpening)
            assert isinstance(bundle.body, ShareBundle)
            try:
                package = check_package(
                    self.context,
                    self.index(dealer),
                    self.index(self.me),
                    opening.body.package,
                    bundle.body.share_roots,
                )
            except ShareError as error:
                self.outbox.notify("bad_share_opening", dealer=keys.peer_name(dealer), why=str(error))
                continue
            self._keep_package(dealer, package, bundle.body)

    # -- phase 2 -------------------------------------------------------------------------------

    def _train(self) -> None:
        if self.state.model_digest not in self.blobs or self._own_contribution() is not None:
            return
        self.run(
            "train",
            TrainJob(self.state.round, self.state.model_digest, self.my_secrets().training_seed),
        )

    def _own_contribution(self) -> Statement | None:
        return self.pool.get(self.state.round, Kind.CONTRIBUTION, self.me)

    def z_root(self) -> bytes | None:
        """The joint z root as far as this node can know it before the reveal."""
        if self.rules.params.setup is Setup.DEALER:
            if self.dealer is None:
                return None
            return dealt_z_root(self.dealer, self.rules.network, self.state.round)
        zs = self.known_zs()
        return None if zs is None else z_root_from(self.state, self.rules, zs)

    def known_zs(self) -> tuple[bytes, ...] | None:
        """What a `Reveal` and a ballot block carry: every z_i of U1 (dealer: the one z root)."""
        if self.rules.params.setup is Setup.DEALER:
            root = self.z_root()
            return None if root is None else (root,)
        sharers = [bundle.peer for bundle in self.learning.sharers]
        if any(peer not in self.memory.zs for peer in sharers):
            return None
        return tuple(self.memory.zs[peer] for peer in sharers)

    def _contribute(self) -> None:
        round_, memory = self.state.round, self.memory
        sharers = [bundle.peer for bundle in self.learning.sharers]
        if self.me not in sharers or self._own_contribution() is not None:
            return
        z_root = self.z_root()
        if z_root is None or memory.trained is None:
            return
        if memory.contributed is None:
            self.run(
                "contribute",
                ContributeJob(
                    context=self.context,
                    proposer=self.index(self.me),
                    secrets=self.my_secrets(),
                    z_root=z_root,
                    update=memory.trained.update,
                    weight=self.weight,
                    model_digest=self.state.model_digest,
                    residual=self._residual_values(),
                ),
            )
            return
        result = memory.contributed
        self.put_blob(result.upload_digest, result.upload)
        memory.blobs.add(result.upload_digest)
        self.outbox.publish(
            round_,
            Kind.CONTRIBUTION,
            Contribution(
                result.commitment_digest,
                result.upload_digest,
                z_root_hash(self.rules.network, round_, z_root),
            ),
            payload=result.commitment,
        )

    def _residual_values(self) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
        if self.rules.params.sparsify is Sparsify.OFF or self.residual is None:
            return None
        return np.frombuffer(self.residual.values, dtype="<f4").astype(np.float32)

    def _take_uploads(self) -> None:
        """The active aggregator fetches, checks and acknowledges; voters witness what it leaves out."""
        if self.me == self.learning.aggregator:
            self._take_and_sign(witnessing=False)
        elif (
            self.me in self.learning.voters and self.clock.witness and self.learning.phase is Phase.CONTRIBUTE
        ):
            self._take_and_sign(witnessing=True)

    def _take_and_sign(self, *, witnessing: bool) -> None:
        state, memory = self.state, self.memory
        for bundle in self.learning.sharers:
            statement = self.pool.get(state.round, Kind.CONTRIBUTION, bundle.peer)
            if statement is None or not isinstance(statement.body, Contribution):
                continue
            if witnessing and vouchers_for(state, self.pool, bundle.peer):
                continue
            upload = statement.body.upload_digest
            if upload in memory.bad_uploads or not self.want_blob(upload, self._upload_holders(bundle.peer)):
                continue
            memory.blobs.add(upload)
            if upload not in memory.checked_uploads:
                self.run(f"check-upload/{upload.hex()}", CheckUploadJob(self.context, upload))
            elif witnessing:
                if self.pool.get(state.round, Kind.WITNESS, self.me, 0, bundle.peer) is None:
                    self.outbox.publish(state.round, Kind.WITNESS, Witness(bundle.peer, upload))
            elif self.learning.phase is Phase.CONTRIBUTE:
                attempt = self.learning.attempt
                if self.pool.get(state.round, Kind.RECEIPT, self.me, attempt, bundle.peer) is None:
                    self.outbox.publish(state.round, Kind.RECEIPT, Receipt(attempt, bundle.peer, upload))

    def _upload_holders(self, proposer: bytes) -> tuple[bytes, ...]:
        """Who may have an upload: its proposer, those who signed for it."""
        signers = [
            statement.sender
            for kind in (Kind.RECEIPT, Kind.WITNESS)
            for statement in self.pool.of_kind(self.state.round, kind)
            if getattr(statement.body, "proposer", None) == proposer
        ]
        return (proposer, *signers)

    # -- phase 3 -------------------------------------------------------------------------------

    def _release_unmasking(self) -> None:
        """Shares of b_i for U2 and of mask keys for U1 without U2, never both for one peer."""
        round_ = self.state.round
        attempt = int(ReleaseStage.UNMASK) * 128
        if not self.is_proposer or self.pool.get(round_, Kind.SHARE_RELEASE, self.me, attempt):
            return
        contributors = {contribution.peer for contribution in self.learning.contributors}
        wanted = []
        for bundle in self.learning.sharers:
            if bundle.peer not in contributors:
                wanted.append((bundle.peer, ShareKind.MASK))
            elif self.rules.params.masking is Masking.DOUBLE:
                wanted.append((bundle.peer, ShareKind.SELF))
        self._release(ReleaseStage.UNMASK, 0, wanted)

    def _release(self, stage: ReleaseStage, attempt: int, wanted: list[tuple[bytes, ShareKind]]) -> None:
        holder = self.index(self.me)
        shares = []
        for dealer, kind in wanted:
            package = self.memory.packages.get(dealer)
            if package is not None:
                held = package.held(holder, kind)
                shares.append(ReleasedShare(dealer, int(kind), held.share, held.proof))
        self.outbox.publish(self.state.round, Kind.SHARE_RELEASE, ShareRelease(stage, attempt, tuple(shares)))

    def count_releases(self) -> None:
        """Take the valid shares out of the releases that came in."""
        memory, learning = self.memory, self.learning
        if not learning.sharers:
            return
        for statement in self.pool.of_kind(self.state.round, Kind.SHARE_RELEASE):
            if statement.id in memory.counted_releases or statement.sender not in learning.proposers:
                continue
            memory.counted_releases.add(statement.id)
            assert isinstance(statement.body, ShareRelease)
            holder = self.index(statement.sender)
            for released in statement.body.shares:
                kind = ShareKind(released.share_kind)
                pinned = pinned_value(self.state, released.dealer, kind)
                if pinned is None:
                    continue
                held = HeldShare(holder, released.share, released.proof)
                if share_holds(self.context, self.index(released.dealer), kind, held, pinned[0]):
                    memory.shares.setdefault((kind, released.dealer), {})[holder] = held
                else:
                    self.outbox.add(Penalise(statement.sender, "released a share that is not the dealer's"))

    def pinned_shares(self, dealer: bytes, kind: ShareKind) -> PinnedShares | None:
        """At least T valid shares of a dealer's secret, if so many were released."""
        held = self.memory.shares.get((kind, dealer), {})
        pinned = pinned_value(self.state, dealer, kind)
        if pinned is None or len(held) < self.learning.threshold:
            return None
        shares = tuple(held[holder] for holder in sorted(held))
        return PinnedShares(self.index(dealer), shares, *pinned)

    def _aggregate(self) -> None:
        learning, memory = self.learning, self.memory
        if self.me != learning.aggregator:
            return
        if self.pool.get(self.state.round, Kind.AGGREGATE_CLAIM, self.me, learning.attempt):
            return
        if memory.aggregated is not None:
            self._claim(memory.aggregated)
            return
        self.count_releases()
        contributors = learning.contributors
        held = [self.want_blob(c.upload_digest, self._upload_holders(c.peer)) for c in contributors]
        members = {contribution.peer for contribution in contributors}
        double = self.rules.params.masking is Masking.DOUBLE
        self_shares = [self.pinned_shares(c.peer, ShareKind.SELF) for c in contributors] if double else []
        mask_shares = [
            self.pinned_shares(bundle.peer, ShareKind.MASK)
            for bundle in learning.sharers
            if bundle.peer not in members
        ]
        if not all(held) or None in self_shares or None in mask_shares:
            return
        self.run(
            f"aggregate/{learning.attempt}",
            AggregateJob(
                context=self.context,
                contributors=tuple(self.index(c.peer) for c in contributors),
                upload_digests=tuple(c.upload_digest for c in contributors),
                self_shares=tuple(entry for entry in self_shares if entry is not None),
                mask_shares=tuple(entry for entry in mask_shares if entry is not None),
            ),
        )

    def _claim(self, result: AggregateResult) -> None:
        if result.faults:
            for fault in result.faults:
                self.accuse_dealer(fault)
            return
        proposers = self.learning.proposers
        self.put_blob(result.sum_digest, result.sum)
        self.memory.blobs.add(result.sum_digest)
        self.outbox.publish(
            self.state.round,
            Kind.AGGREGATE_CLAIM,
            AggregateClaim(
                self.learning.attempt,
                result.sum_digest,
                tuple(NamedSecret(proposers[i], seed) for i, seed in result.self_seeds),
                tuple(NamedSecret(proposers[i], secret) for i, secret in result.mask_secrets),
            ),
        )

    def accuse_dealer(self, fault: DealerFault) -> None:
        dealer = self.learning.proposers[fault.dealer]
        if self.pool.get(self.state.round, Kind.DEALER_EVIDENCE, self.me, 0, dealer) is None:
            self.outbox.publish(self.state.round, Kind.DEALER_EVIDENCE, DealerEvidence(dealer, encode(fault)))

    def current_claim(self) -> Statement | None:
        """The active aggregator's claim, if it is well-formed."""
        aggregator = self.learning.aggregator
        if aggregator is None:
            return None
        claim = self.pool.get(self.state.round, Kind.AGGREGATE_CLAIM, aggregator, self.learning.attempt)
        if claim is None or not claim_matches(self.state, self.rules, claim):
            return None
        return claim

    def _take_sum(self) -> None:
        claim = self.current_claim()
        if claim is not None and isinstance(claim.body, AggregateClaim):
            self.memory.blobs.add(claim.body.sum_digest)
            self.want_blob(claim.body.sum_digest, (claim.sender, *self.state.validators))

    # -- phase 4 -------------------------------------------------------------------------------

    def _reveal(self) -> None:
        """My check seed and the z of everyone, once B is pinned (or the round is given up)."""
        round_ = self.state.round
        sharers = [bundle.peer for bundle in self.learning.sharers]
        if self.me not in sharers or self.pool.get(round_, Kind.REVEAL, self.me) is not None:
            return
        secrets = self.my_secrets()
        clear = self.rules.params.challenge is Challenge.CLEAR
        self.outbox.publish(
            round_,
            Kind.REVEAL,
            Reveal(
                secrets.check_seed,
                self.known_zs() or (),
                secrets.challenge_seed if clear and self.is_contributor else b"",
            ),
        )

    def _release_checks(self) -> None:
        """Rebuild rho_i: at once of those who dropped out, at the soft deadline of all who are late."""
        if not self.is_proposer or self.learning.ballot:
            return
        contributors = {contribution.peer for contribution in self.learning.contributors}
        seeds = self.memory.findings.check_seeds
        missing = [bundle.peer for bundle in self.learning.sharers if bundle.peer not in seeds]
        dropped = [peer for peer in missing if peer not in contributors]
        due = [(0, dropped)] if self.learning.phase is Phase.BALLOT else []
        if self.clock.soft_passed or self.clock.late:
            due.append((1, missing))
        base = int(ReleaseStage.CHECK) * 128
        for attempt, dealers in due:
            if dealers and not self.pool.get(self.state.round, Kind.SHARE_RELEASE, self.me, base + attempt):
                self._release(ReleaseStage.CHECK, attempt, [(d, ShareKind.CHECK) for d in dealers])

    def _collect_seeds(self) -> None:
        """Every rho_i of U1 that is revealed or can be rebuilt, and the z_i."""
        findings, state = self.memory.findings, self.state
        for statement in self.pool.of_kind(state.round, Kind.REVEAL):
            body = statement.body
            assert isinstance(body, Reveal)
            if statement.sender not in findings.check_seeds and check_seed_matches(
                state, self.rules, statement.sender, body.check_seed
            ):
                findings.check_seeds[statement.sender] = body.check_seed
            if findings.zs is None and body.zs and z_root_from(state, self.rules, body.zs) is not None:
                findings.zs = body.zs
        missing = [b.peer for b in self.learning.sharers if b.peer not in findings.check_seeds]
        if not missing:
            return
        self.count_releases()
        for peer in missing:
            shares = self.pinned_shares(peer, ShareKind.CHECK)
            if shares is None:
                continue
            secret = rebuild(
                self.context, shares.dealer, ShareKind.CHECK, shares.shares, shares.root, shares.pinned
            )
            if isinstance(secret, DealerFault):
                if self.is_contributor_peer(peer):
                    self.accuse_dealer(secret)
            else:
                findings.check_seeds[peer] = secret

    def is_contributor_peer(self, peer: bytes) -> bool:
        return any(contribution.peer == peer for contribution in self.learning.contributors)

    def commitment_of(self, contribution: PinnedContribution) -> bytes | None:
        """The payload of a pinned contribution, if this node has it."""
        statement = self.pool.by_id(contribution.statement_id)
        if statement is None or not statement.envelope.payload:
            return None
        return statement.envelope.payload

    def payload_fits(self, statement: Statement) -> bool:
        """Is the payload the commitment that the contribution signs for, and of the form that is due?"""
        body, payload = statement.body, statement.envelope.payload
        if not isinstance(body, Contribution) or commitment_digest(payload) != body.commitment_digest:
            return False
        try:
            check_commitment(self.rules.params, payload)
        except UploadError:
            return False
        return True

    def missing_contributions(self) -> tuple[bytes, ...]:
        """Ids of pinned contributions whose commitment this node lacks."""
        return tuple(c.statement_id for c in self.learning.contributors if self.commitment_of(c) is None)

    def _verify(self) -> None:
        job = self.verify_job()
        if job is not None:
            self.run("verify", job)

    def verify_job(self) -> VerifyJob | None:
        """Both equations over what is pinned, once all of it is here."""
        state, learning, findings = self.state, self.learning, self.memory.findings
        claim = learning.claim
        if claim is None or findings.zs is None or state.model_digest not in self.blobs:
            return None
        z_root = z_root_from(state, self.rules, findings.zs)
        commitments = [self.commitment_of(contribution) for contribution in learning.contributors]
        contributors = [contribution.peer for contribution in learning.contributors]
        if z_root is None or None in commitments:
            return None
        if any(peer not in findings.check_seeds for peer in contributors):
            return None
        self.memory.blobs.add(claim.sum_digest)
        if not self.want_blob(claim.sum_digest, (claim.aggregator, *state.validators)):
            return None
        weights = {bundle.peer: bundle.weight for bundle in learning.sharers}
        return VerifyJob(
            context=self.context,
            contributors=tuple(self.index(peer) for peer in contributors),
            sum_digest=claim.sum_digest,
            self_seeds=tuple((self.index(e.peer), e.secret) for e in claim.self_seeds),
            mask_secrets=tuple((self.index(e.peer), e.secret) for e in claim.mask_secrets),
            check_seeds=tuple(findings.check_seeds[peer] for peer in contributors),
            z_root=z_root,
            commitments=tuple(commitment for commitment in commitments if commitment is not None),
            challenge_seeds=self._challenge_seeds(),
            weights=tuple(weights[peer] for peer in contributors),
            model_digest=state.model_digest,
        )

    def _challenge_seeds(self) -> tuple[bytes, ...]:
        """Seeds of R (clear challenge): those that U2 broadcast."""
        if self.rules.params.challenge is not Challenge.CLEAR:
            return ()
        seeds = []
        for contribution in self.learning.contributors:
            reveal = self.pool.get(self.state.round, Kind.REVEAL, contribution.peer)
            if reveal is not None and isinstance(reveal.body, Reveal) and reveal.body.challenge_seed:
                seeds.append(reveal.body.challenge_seed)
        return tuple(seeds)

    def candidate(self) -> bytes | None:
        """Digest of the model that is voted on, once this node has verified how it came about."""
        findings = self.memory.findings
        if self.learning.ballot:
            return self.learning.candidate
        if findings.verified is None or findings.verified.verdict is not Verdict.TRUSTED:
            return None
        return findings.verified.model_digest

    def _seal_vote(self) -> None:
        round_, ballot = self.state.round, self.learning.ballot
        if self.me not in self.learning.voters:
            return
        if self.pool.get(round_, Kind.SEALED_VOTE, self.me, ballot) is not None:
            return
        opening = self.memory.openings.get(ballot)
        candidate = self.candidate()
        if opening is None:
            if candidate is not None and self.want_blob(candidate, self.state.validators):
                self.run(f"evaluate/{ballot}", EvaluateJob(round_, self.state.model_digest, candidate))
            return
        self.outbox.publish(
            round_,
            Kind.SEALED_VOTE,
            SealedVote(ballot, vote_hash(self.rules.network, round_, self.me, opening)),
        )

    def _decide_vote(self, ballot: int, result: EvaluateResult) -> VoteOpening:
        """+1 iff the candidate's loss is not worse than the current one by more than the tolerance."""
        current, candidate = result.current_loss_micro, result.candidate_loss_micro
        if current is None or candidate is None:
            vote, loss = ABSTAIN, 0
        else:
            better = candidate <= current + self.rules.params.tolerance_micro
            vote, loss = (VOTE_FOR if better else VOTE_AGAINST), candidate
        salt = keys.derive(self.my_secrets().vote_salt, bytes((ballot,)))
        return VoteOpening(ballot, vote, loss, salt)

    # -- dispute -------------------------------------------------------------------------------

    def _dispute(self) -> None:
        learning = self.learning
        held = []
        for contribution in learning.contributors:
            self.memory.blobs.add(contribution.upload_digest)
            holders = (*self._upload_holders(contribution.peer), *self.state.validators)
            held.append(self.want_blob(contribution.upload_digest, holders))
        self._collect_pinned_findings()
        job = self.verify_job()
        if all(held) and job is not None:
            self.run(
                "dispute",
                DisputeJob(
                    verify=job,
                    upload_digests=tuple(c.upload_digest for c in learning.contributors),
                    hash_z=tuple(c.hash_z for c in learning.contributors),
                ),
            )

    def _collect_pinned_findings(self) -> None:
        """What the ballot block pinned is known to everyone, whatever this node had collected."""
        learning, findings = self.learning, self.memory.findings
        for bundle, seed in zip(learning.sharers, learning.check_seeds, strict=False):
            if any(seed):
                findings.check_seeds.setdefault(bundle.peer, seed)

    # -- phase 5 -------------------------------------------------------------------------------

    def _open_vote(self) -> None:
        round_, ballot = self.state.round, self.learning.ballot
        opening = self.memory.openings.get(ballot)
        sealed = {vote.peer: vote.digest for vote in self.learning.sealed_votes}
        if opening is None or self.pool.get(round_, Kind.VOTE_OPENING, self.me, ballot) is not None:
            return
        if sealed.get(self.me) == vote_hash(self.rules.network, round_, self.me, opening):
            self.outbox.publish(round_, Kind.VOTE_OPENING, opening)

    # -- results of jobs -----------------------------------------------------------------------

    def on_job(self, event: JobDone) -> None:
        """Take a job's result; one of another round is stale."""
        round_text, _, name = event.key.partition("/")
        memory, result = self.memory, event.result
        if round_text != str(memory.round):
            return
        match result:
            case DealResult():
                memory.dealt = result
            case TrainResult():
                memory.trained = result
            case ContributeResult():
                memory.contributed = result
            case CheckUploadResult():
                self._on_checked_upload(result)
            case AggregateResult():
                if name == f"aggregate/{self.learning.attempt}":
                    memory.aggregated = result
            case VerifyResult():
                self._on_verified(result)
            case DisputeResult():
                self._on_dispute(result)
            case EvaluateResult():
                self._on_evaluated(int(name.rpartition("/")[2]), result)

    def on_job_failed(self, key: str, why: str) -> None:
        """An aggregation job fails only on bad input; an evaluation that fails abstains."""
        round_text, _, name = key.partition("/")
        self.outbox.notify("job_failed", job=key, why=why)
        if round_text == str(self.memory.round) and name.startswith("evaluate/"):
            self._on_evaluated(int(name.rpartition("/")[2]), EvaluateResult(None, None))

    def _on_checked_upload(self, result: CheckUploadResult) -> None:
        known = self.memory.checked_uploads if result.well_formed else self.memory.bad_uploads
        known.add(result.upload_digest)

    def _on_verified(self, result: VerifyResult) -> None:
        self.memory.findings.verified = result
        self.memory.blobs.add(result.model_digest)
        self.put_blob(result.model_digest, result.model)
        self.outbox.notify(
            "verified",
            round=self.memory.round,
            verdict=result.verdict.name,
            eq18=result.eq18,
            eq19=result.eq19,
            bounded=result.bounded,
        )

    def _on_dispute(self, result: DisputeResult) -> None:
        self.memory.findings.dispute = result
        if not result.sum_matches:
            for blob, data in (
                (result.sum_digest, result.sum),
                (result.repaired.model_digest, result.repaired.model),
            ):
                self.memory.blobs.add(blob)
                self.put_blob(blob, data)

    def _on_evaluated(self, ballot: int, result: EvaluateResult) -> None:
        if ballot not in self.memory.openings:
            opening = self._decide_vote(ballot, result)
            self.memory.openings[ballot] = opening
            key = durable.round_key(self.memory.round, bytes((ballot,)))
            self.outbox.persist(durable.OPENING, key, encode(opening))

    # -- z complaints --------------------------------------------------------------------------

    def ask_for_zs(self) -> None:
        """A dealer's z_i came wrong or not at all: any other proposer can give it."""
        if self.learning.phase is not Phase.CONTRIBUTE or not self.is_proposer:
            return
        if self.rules.params.setup is Setup.DEALER:
            return
        for bundle in self.learning.sharers:
            if bundle.peer not in self.memory.zs:
                for peer in self.learning.proposers:
                    if peer != self.me:
                        self.outbox.send(peer, self.state.round, Kind.Z_REQUEST, ZRequest(bundle.peer))

    def on_z_request(self, sender: bytes, body: ZRequest) -> None:
        """Answer a proposer, sealed to its one-round key."""
        z = self.memory.zs.get(body.dealer)
        advert = self.learning.advert_of(sender)
        if z is None or advert is None or sender not in self.learning.proposers or not self.is_proposer:
            return
        box = keys.seal(
            self.my_secrets().seal_secret,
            advert.seal_public,
            z,
            self._z_associated(self.me, sender, body.dealer),
        )
        self.outbox.send(sender, self.state.round, Kind.Z_REPLY, ZReply(body.dealer, box))

    def on_z_reply(self, sender: bytes, body: ZReply) -> None:
        advert = self.learning.advert_of(sender)
        bundle = next((b for b in self.learning.sharers if b.peer == body.dealer), None)
        if advert is None or bundle is None or not self.is_proposer or body.dealer in self.memory.zs:
            return
        try:
            z = keys.open_sealed(
                self.my_secrets().seal_secret,
                advert.seal_public,
                body.box,
                self._z_associated(sender, self.me, body.dealer),
            )
        except keys.SealError:
            self.outbox.add(Penalise(sender, "a z reply that does not open"))
            return
        self.take_z(body.dealer, z, bundle.hash_z)

    def _z_associated(self, sender: bytes, recipient: bytes, dealer: bytes) -> bytes:
        round_bytes = self.state.round.to_bytes(8, "big")
        return digest("z reply", self.rules.network, round_bytes, sender, recipient, dealer)


def load_package(data: bytes) -> SharePackage | None:
    """A share package from the store; None if it does not decode (a damaged record is a lost share)."""
    try:
        return decode(SharePackage, data, 8192)
    except DecodeError:
        return None
