"""The beginnings and ends of a node's life and of its rounds: what is read back, what is forgotten."""

from __future__ import annotations

from collections.abc import Mapping

from protocol import durable, keys
from protocol.cited import Cited
from protocol.codec import DecodeError, decode, encode
from protocol.consensus import Safety
from protocol.duties import share
from protocol.duties.desk import Desk
from protocol.duties.vote import keep_yardstick
from protocol.envelope import WireError, open_envelope
from protocol.events import CancelJob, Effect, Persist, Start
from protocol.ledger.chain import Chain
from protocol.ledger.judgement import Yardstick
from protocol.ledger.resume import encode_snapshot
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

    def note(self, effects: list[Effect]) -> None:
        """Remember which records of a round were written, to delete them when it is over."""
        for effect in effects:
            if isinstance(effect, Persist) and effect.bucket in PER_ROUND and effect.value is not None:
                self._persisted[effect.bucket].add(effect.key)

    # -- a life begins -------------------------------------------------------------------------

    def load_chain(self, event: Start) -> None:
        """Take up the ledger where the shell found its end. Raises ValueError for blocks without it."""
        if event.ledger is not None:
            self.chain.state, self.chain.head = event.ledger.state, event.ledger.head
        elif durable.BLOCK in event.records:
            raise ValueError("a node that has stored blocks starts where they end, not at genesis")

    def take_snapshot(self) -> None:
        """Write the ledger's state down, behind the block that led to it: a new life begins from there."""
        record = encode_snapshot(self.chain.head, self.chain.state)
        self.desk.outbox.persist(durable.SNAPSHOT, durable.SNAPSHOT_KEY, record)

    def load_secrets(self, records: Records, blobs: frozenset[bytes]) -> None:
        """Blobs, round seeds and the residual."""
        desk = self.desk
        desk.blobs = set(blobs)
        for key in sorted(records.get(durable.BLOB, {})):
            desk.blob_rounds[key[8:]] = durable.round_of_key(key)
        self._drop_blobs()
        for bucket in PER_ROUND:
            self._persisted[bucket] = set(records.get(bucket, {}))
        for key, seed in sorted(records.get(durable.SECRET, {}).items()):
            desk.seeds[durable.round_of_key(key)] = seed
        residual = records.get(durable.RESIDUAL, {}).get(durable.RESIDUAL_KEY)
        if residual is not None:
            desk.residual = decode(durable.Residual, residual, 1 << 27)
        yardstick = records.get(durable.YARDSTICK, {}).get(durable.YARDSTICK_KEY)
        if yardstick is not None:
            desk.yardstick = Yardstick.from_bytes(yardstick)

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
        """Forget what was private to the round; keep its blobs one round longer, models while they count."""
        ended = before.round
        self._settle_residual(before)
        accepted = self.chain.state.model_digest != before.model_digest
        keep_yardstick(self.desk, self.desk.yardstick.ended(ended, accepted))
        for name in sorted(self.desk.memory.started):
            self.desk.outbox.add(CancelJob(f"{ended}/{name}"))
        self._drop_blobs()
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

    def apply_transactions(self, before: LedgerState) -> None:
        """Forget transactions that an OPEN block applied, and tell what they moved."""
        if self.chain.state.accounts != before.accounts:
            self.forget_transactions()
            self._notify_changes(before)

    def _drop_blobs(self) -> None:
        """§7.6. Let go of every blob that is neither a model that counts nor of this round or the last.

        Also of a blob that is held without a round: a crash came between its file and its record.
        """
        desk, state = self.desk, self.chain.state
        models = kept_models(state)
        for blob in sorted(desk.blobs | desk.blob_rounds.keys()):
            round_ = desk.blob_rounds.get(blob, 0)
            if blob not in models and round_ < max(1, state.round - 1):
                desk.drop_blob(blob)

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
        outbox.notify("settled", round=before.round, changed_units=self._changed(before))
        if after.model_digest != before.model_digest:
            outbox.notify("model", round=before.round, digest=after.model_digest.hex())
        if after.best is not None and after.best != before.best:
            outbox.notify("best_model", round=after.best.round, digest=after.best.digest.hex())

    def _notify_changes(self, before: LedgerState) -> None:
        self.desk.outbox.notify("transactions", height=self.chain.height, changed_units=self._changed(before))

    def _changed(self, before: LedgerState) -> dict[str, int]:
        return {
            keys.peer_name(peer): account.stake_units - old.stake_units
            for peer, account in self.chain.state.accounts
            if (old := before.account(peer)) is not None and old.stake_units != account.stake_units
        }


def kept_models(state: LedgerState) -> frozenset[bytes]:
    """§7.6. Return the models that every node keeps: the current one, the one before it, and the best."""
    best = () if state.best is None else (state.best.digest,)
    return frozenset((state.model_digest, state.previous_model_digest, *best))
