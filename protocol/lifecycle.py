"""The beginnings and ends of a node's life and of its rounds: what is read back, what is forgotten."""

from __future__ import annotations

from collections.abc import Mapping

from protocol import durable, keys
from protocol.cited import Cited
from protocol.codec import DecodeError, decode, encode
from protocol.consensus import Safety
from protocol.duties import share
from protocol.duties.desk import Desk
from protocol.envelope import WireError, open_envelope
from protocol.events import CancelJob, DropBlob, Effect, Persist
from protocol.ledger.block import decode_stored_block
from protocol.ledger.chain import Chain
from protocol.ledger.state import LedgerState
from protocol.local import RoundMemory
from protocol.messages import Transaction, VoteOpening
from protocol.sharing import load_package

Records = Mapping[str, Mapping[bytes, bytes]]
PER_ROUND = (durable.STATEMENT, durable.SECRET, durable.SHARE, durable.OPENING)
"""Buckets whose records are deleted when their round is over; round 0 is for what belongs to none."""


class Lifecycle:
    """Keeps the durable records in step with the rounds."""

    def __init__(self, chain: Chain, desk: Desk, cited: Cited) -> None:
        self.chain = chain
        self.desk = desk
        self.cited = cited
        self._persisted: dict[str, set[bytes]] = {bucket: set() for bucket in PER_ROUND}
        self._old_blobs: set[bytes] = set()

    def note(self, effects: list[Effect]) -> None:
        """Remember which records of a round were written, to delete them when it is over."""
        for effect in effects:
            if isinstance(effect, Persist) and effect.bucket in PER_ROUND and effect.value is not None:
                self._persisted[effect.bucket].add(effect.key)

    # -- a life begins -------------------------------------------------------------------------

    def load_chain(self, records: Records) -> None:
        """Replay the stored blocks, each checked; raises `ChainError` for a damaged store."""
        for key in sorted(records.get(durable.BLOCK, {})):
            self.chain.append(decode_stored_block(records[durable.BLOCK][key]))

    def load_secrets(self, records: Records, blobs: frozenset[bytes]) -> None:
        """Blobs, round seeds and the residual."""
        desk, state = self.desk, self.chain.state
        desk.blobs = set(blobs)
        self._old_blobs = set(blobs) - {state.model_digest, state.previous_model_digest}
        for bucket in PER_ROUND:
            self._persisted[bucket] = set(records.get(bucket, {}))
        for key, seed in sorted(records.get(durable.SECRET, {}).items()):
            desk.seeds[durable.round_of_key(key)] = seed
        residual = records.get(durable.RESIDUAL, {}).get(durable.RESIDUAL_KEY)
        if residual is not None:
            desk.residual = decode(durable.Residual, residual, 1 << 27)

    def load_round(self, records: Records) -> None:
        """Own statements, others' contributions, share packages and vote openings that still matter."""
        desk, round_ = self.desk, self.chain.state.round
        for key, data in sorted(records.get(durable.STATEMENT, {}).items()):
            if durable.round_of_key(key) >= round_ or durable.round_of_key(key) == 0:
                try:
                    statement = open_envelope(data, desk.rules.network)
                except WireError as error:
                    desk.outbox.notify("damaged_record", bucket=durable.STATEMENT, why=str(error))
                    continue
                desk.pool.add(statement)
                self.cited.remember(statement)
        for key, data in sorted(records.get(durable.SHARE, {}).items()):
            package = load_package(data)
            if durable.round_of_key(key) == round_ and package is not None:
                desk.memory.packages[key[8:]] = package
        for key, data in sorted(records.get(durable.OPENING, {}).items()):
            if durable.round_of_key(key) == round_:
                desk.memory.openings[key[8]] = decode(VoteOpening, data, 128)
        self.recall_zs()

    def load_safety(self, records: Records) -> Safety | None:
        """The agreement's state, if it is of the height that is due."""
        data = records.get(durable.SAFETY, {}).get(durable.SAFETY_KEY)
        if data is None:
            return None
        try:
            safety = decode(Safety, data, durable.RECORD_BYTES)
        except DecodeError as error:
            raise DecodeError(f"damaged safety record: {error.what}", error.where) from error
        return safety if safety.height == self.chain.height + 1 else None

    def recall_zs(self) -> None:
        """z_i from the share packages at hand, as far as they fit what is pinned."""
        for bundle in self.chain.state.learning.sharers:
            package = self.desk.memory.packages.get(bundle.peer)
            if package is not None:
                share.take_z(self.desk, bundle.peer, package.z, bundle.hash_z)

    # -- rounds --------------------------------------------------------------------------------

    def begin_round(self) -> None:
        state = self.chain.state
        self.desk.memory = RoundMemory(state.round)
        roles = state.learning.roles
        if roles is not None:
            self.desk.outbox.notify(
                "round",
                round=state.round,
                proposers=[keys.peer_name(peer) for peer in roles.proposers],
                voters=[keys.peer_name(peer) for peer in roles.voters],
                aggregator=keys.peer_name(roles.aggregators[0]),
            )

    def end_round(self, before: LedgerState) -> None:
        """Forget what was private to the round; keep its blobs one round longer, and the last two models."""
        ended = before.round
        self._settle_residual(before)
        for name in sorted(self.desk.memory.started):
            self.desk.outbox.add(CancelJob(f"{ended}/{name}"))
        self._drop_blobs(before)
        for bucket in PER_ROUND:
            over = sorted(k for k in self._persisted[bucket] if 0 < durable.round_of_key(k) <= ended)
            for key in over:
                self.desk.outbox.persist(bucket, key, None)
            self._persisted[bucket].difference_update(over)
        for round_ in [r for r in self.desk.seeds if r <= ended]:
            del self.desk.seeds[round_]
        self.desk.pool.forget_before(ended + 1)
        self.cited.forget_before(ended + 1)
        self.forget_transactions()
        self._notify_outcome(before)

    def _drop_blobs(self, before: LedgerState) -> None:
        desk, after = self.desk, self.chain.state
        keep = {after.model_digest, after.previous_model_digest}
        for blob in sorted((self._old_blobs - desk.memory.blobs) - keep):
            desk.blobs.discard(blob)
            desk.outbox.add(DropBlob(blob))
        self._old_blobs = desk.memory.blobs | {before.previous_model_digest}

    def forget_transactions(self) -> None:
        """Those that were applied, or whose nonce another one took, and own ones that were replaced."""
        desk = self.desk
        for statement in list(desk.pool.transactions()):
            account = desk.state.account(statement.sender)
            assert isinstance(statement.body, Transaction)
            if account is None or statement.body.nonce < account.nonce:
                desk.pool.forget(statement.slot)
        persisted = self._persisted[durable.STATEMENT]
        over = [k for k in persisted if durable.round_of_key(k) == 0 and desk.pool.by_id(k[8:]) is None]
        for key in sorted(over):
            persisted.discard(key)
            desk.outbox.persist(durable.STATEMENT, key, None)

    def _settle_residual(self, before: LedgerState) -> None:
        """What was not sent counts as left over once the contribution is in U2; else nothing changed."""
        result = self.desk.memory.contributed
        if result is None or result.residual is None:
            return
        if any(contribution.peer == self.desk.me for contribution in before.learning.contributors):
            residual = durable.Residual(before.round, result.residual.astype("<f4").tobytes())
            self.desk.residual = residual
            self.desk.outbox.persist(durable.RESIDUAL, durable.RESIDUAL_KEY, encode(residual))

    def _notify_outcome(self, before: LedgerState) -> None:
        after, outbox = self.chain.state, self.desk.outbox
        changed = {
            keys.peer_name(peer): account.stake_units - old.stake_units
            for peer, account in after.accounts
            if (old := before.account(peer)) is not None and old.stake_units != account.stake_units
        }
        outbox.notify("settled", round=before.round, changed_units=changed)
        if after.model_digest != before.model_digest:
            outbox.notify("model", round=before.round, digest=after.model_digest.hex())
