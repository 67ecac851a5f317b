"""The report on a network: what its nodes' ledgers say, and their logs of seconds and bytes; nothing else.

Whoever launched the nodes adds what no ledger knows: which of them were told to misbehave, and the plain
FedAvg to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeAlias

from attrs import frozen

from flocknode.config import load_node_dir
from flocknode.contract import contract_name
from flocknode.gamma import describe_gamma
from flocknode.observe.ledger import LedgerEnd, LedgerError, Step, end_of, walk
from flocknode.observe.nodelog import Evaluation, NodeLog
from flocknode.observe.rounds import RoundRecord, rounds_of
from protocol.keys import peer_name
from protocol.ledger.chain import ChainError
from protocol.ledger.state import LedgerState
from protocol.params import Genesis

Scores: TypeAlias = Mapping[str, float]
Json: TypeAlias = dict[str, object]


@frozen(eq=False)
class NodeRecord:
    """One node as its directory tells of it. `fault`: why its ledger does not verify, where it does not."""

    peer: bytes
    genesis: Genesis
    steps: tuple[Step, ...]
    log: NodeLog
    fault: str | None = None

    @property
    def end(self) -> LedgerEnd:
        """Of what verifies."""
        return end_of(self.genesis, self.steps)


def read_node(directory: Path) -> NodeRecord:
    """Read a node's directory and check its ledger from genesis. Raises `ConfigError`, `KeystoreError`."""
    node = load_node_dir(directory)
    steps: list[Step] = []
    fault = None
    try:
        steps.extend(walk(directory))
    except (ChainError, LedgerError) as error:
        fault = str(error)
    log = NodeLog(directory)
    log.read()
    return NodeRecord(node.identity.peer, node.genesis, tuple(steps), log, fault)


def is_consistent(nodes: Sequence[NodeRecord]) -> bool:
    """Every ledger verifies from genesis, and all are the same as far as the shortest goes."""
    if any(node.fault is not None for node in nodes):
        return False
    common = min(len(node.steps) for node in nodes)
    chains = {tuple(step.stored.block.hash for step in node.steps[:common]) for node in nodes}
    return len(chains) == 1 and len({node.genesis.network for node in nodes}) == 1


def is_supply_conserved(nodes: Iterable[NodeRecord]) -> bool:
    """After every block of every ledger there are as many units as in the genesis."""
    return all(step.after.supply_units == _founded(node.genesis) for node in nodes for step in node.steps)


def _founded(genesis: Genesis) -> int:
    return genesis.pool_units + sum(member.stake_units for member in genesis.members)


def longest(nodes: Sequence[NodeRecord]) -> NodeRecord:
    """The node whose verified ledger goes furthest."""
    return max(nodes, key=lambda node: len(node.steps))


def ended_rounds(nodes: Sequence[NodeRecord], last: int) -> list[RoundRecord]:
    """Rounds 1 to `last`, as far as they have ended on the longest ledger."""
    return [record for record in rounds_of(longest(nodes).steps) if record.round <= last]


# -- what the logs add -----------------------------------------------------------------------------


def phase_seconds(record: RoundRecord, logs: Sequence[NodeLog]) -> dict[str, float]:
    """How long each phase took: the median over the nodes; phases entered twice are added up."""
    seconds: dict[str, float] = {}
    for end in record.phases:
        spans = [log.spans[end.height].seconds for log in logs if end.height in log.spans]
        if spans:
            seconds[end.phase] = round(seconds.get(end.phase, 0.0) + median(spans), 4)
    return seconds


def phase_bytes(record: RoundRecord, logs: Sequence[NodeLog]) -> dict[str, int]:
    """What all nodes together sent in each phase."""
    sent: dict[str, int] = {}
    for end in record.phases:
        total = sum(log.spans[end.height].bytes_out for log in logs if end.height in log.spans)
        sent[end.phase] = sent.get(end.phase, 0) + total
    return sent


def upload_bytes(record: RoundRecord, logs: Mapping[bytes, NodeLog]) -> dict[bytes, int]:
    """What each contributor sent from the setup block to the contribution block: commitment and upload."""
    heights = [end.height for end in record.phases if end.phase == "contribute"]
    return {
        peer: sum(logs[peer].spans[height].bytes_out for height in heights if height in logs[peer].spans)
        for peer in record.contributors
        if peer in logs
    }


def pooled(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Scores over the test splits of several nodes, each weighted by its samples.

    For loss and accuracy that is the score on all samples together, for the areas under curves the mean.
    """
    names = {name for evaluation in evaluations for name in evaluation.scores}
    scores = {}
    for name in sorted(names):
        scored = [evaluation for evaluation in evaluations if name in evaluation.scores]
        examples = sum(evaluation.examples for evaluation in scored)
        scores[name] = sum(e.examples * e.scores[name] for e in scored) / examples
    return scores


def scores_by_round(records: Sequence[RoundRecord], logs: Sequence[NodeLog], initial: Scores) -> list[Scores]:
    """The global model's scores after each round; a round that was not accepted leaves them as they were."""
    scores: list[Scores] = []
    current = initial
    for record in records:
        if record.accepted:
            evaluations = [log.evaluations[record.round] for log in logs if record.round in log.evaluations]
            current = pooled(evaluations)
        scores.append(current)
    return scores


# -- JSON ------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Background:
    """What the ledgers do not know. `roles`: honest, poison or drop, by peer; `plain`: FedAvg by round."""

    seed: int
    rounds: int
    roles: Mapping[bytes, str]
    initial: Scores
    plain: Sequence[Scores]


def make_report(nodes: Sequence[NodeRecord], background: Background) -> Json:
    """The report as JSON-ready values; peers by their libp2p peer ids, amounts in units."""
    genesis = nodes[0].genesis
    records = ended_rounds(nodes, background.rounds)
    logs = {node.peer: node.log for node in nodes}
    scores = scores_by_round(records, list(logs.values()), background.initial)
    return {
        "network": genesis.network.hex(),
        "task": genesis.task,
        "profile": genesis.params.profile,
        "contract": contract_name(genesis.params),
        "gamma": describe_gamma(genesis.params),
        "seed": background.seed,
        "rounds": [_round(record, logs, s) for record, s in zip(records, scores, strict=True)],
        "plain_fedavg": [{"loss": s.get("loss"), "accuracy": s.get("accuracy")} for s in background.plain],
        "best_model": _best(longest(nodes).end.state),
        "nodes": [_node(node, background.roles) for node in nodes],
        "consistent": is_consistent(nodes),
        "supply_conserved": is_supply_conserved(nodes),
    }


def _best(state: LedgerState) -> Json | None:
    """Return the best model's round and digest; None under FLock's contract, which names none."""
    return None if state.best is None else {"round": state.best.round, "digest": state.best.digest.hex()}


def _round(record: RoundRecord, logs: Mapping[bytes, NodeLog], scores: Scores) -> Json:
    changes = record.stake_changes
    return {
        "round": record.round,
        "accepted": record.accepted,
        "verdict": record.verdict,
        "attempts": record.attempts,
        "proposers": _names(record.proposers),
        "voters": _names(record.voters),
        "aggregator": None if record.aggregator is None else peer_name(record.aggregator),
        "contributed": _names(record.contributors),
        "dropped": _names(record.dropped),
        "votes": _by_name(record.votes),
        "loss": scores.get("loss"),
        "accuracy": scores.get("accuracy"),
        "auroc": scores.get("auroc"),
        "upload_bytes": _by_name(upload_bytes(record, logs)),
        "seconds": phase_seconds(record, list(logs.values())),
        "slashed": _by_name({peer: -units for peer, units in changes.items() if units < 0}),
        "rewarded": _by_name({peer: units for peer, units in changes.items() if units > 0}),
    }


def _node(node: NodeRecord, roles: Mapping[bytes, str]) -> Json:
    end = node.end
    account = end.state.account(node.peer)
    return {
        "peer": peer_name(node.peer),
        "role": roles.get(node.peer, "honest"),
        "head": end.head.hex(),
        "height": end.height,
        "stake": 0 if account is None else account.stake_units,
        "active": node.peer in end.state.validators,
    }


def _names(peers: Iterable[bytes]) -> list[str]:
    return [peer_name(peer) for peer in peers]


def _by_name(values: Mapping[bytes, int]) -> dict[str, int]:
    return {peer_name(peer): value for peer, value in values.items()}
