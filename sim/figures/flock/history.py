"""What a run leaves behind: the figures are drawn from this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from protocol.ledger.economy import is_accepted
from protocol.params import MICRO
from sim.figures.flock.contract import Contract
from sim.figures.sweep import Result

KINDS = ("malicious", "honest")


@define
class History:
    """Lists of one entry a round; `scores`, `tokens` and `alive` have one more, for before the first round.

    scores        accuracy, balanced accuracy and AUROC of the model on everybody's test samples
    tokens, alive mean tokens, and share that are validators, of each kind of client
    survival      by kind, for each client the number of rounds that it entered as a validator
    accepted, spoiled, gamma
                  the verdict; whether the aggregate was worse than the model by more than the tolerance on
                  everybody's test samples; tokens
    malicious_proposers, malicious_voters, voters, losing_votes
                  how many
    mistaken      honest voters whose own samples told them otherwise than everybody's would have
    slashed       by kind, proposers that lost tokens in a rejected round
    paid          by kind, tokens that proposers lost in a rejected round
    """

    malicious: frozenset[int]
    rows: dict[str, list[Any]] = Factory(dict)

    def add_state(self, contract: Contract, scores: Mapping[str, float]) -> None:
        """The model and the ledger after a round."""
        self._add(scores={name: float(value) for name, value in scores.items()})
        active, stakes = contract.is_active, contract.stakes_units
        self._add(active=active)
        for kind in KINDS:
            own = self._members(kind, range(len(active)))
            self._add(
                **{
                    f"alive_{kind}": sum(active[c] for c in own) / len(own) if own else 0.0,
                    f"tokens_{kind}": sum(stakes[c] for c in own) / len(own) / MICRO if own else 0.0,
                }
            )

    def add_vote(self, before: Contract, after: Contract, votes: Mapping[int, int], spoiled: bool) -> None:
        """A round that was voted on: the contract before and after it."""
        by_peer = {before.peers[client]: vote for client, vote in votes.items()}
        accepted = is_accepted(by_peer)
        right = -1 if spoiled else 1
        self._add(
            accepted=accepted,
            spoiled=spoiled,
            gamma=before.gamma_units(votes) / MICRO,
            malicious_proposers=len(self._members("malicious", before.proposers)),
            malicious_voters=len(self._members("malicious", votes)),
            voters=len(votes),
            losing_votes=sum(vote != (1 if accepted else -1) for vote in votes.values()),
            mistaken=sum(votes[client] != right for client in self._members("honest", votes)),
        )
        old, new = before.stakes_units, after.stakes_units
        for kind in KINDS:
            # Who is proposer and voter at once settles both in one sum: such are left out of this account.
            lost = [old[c] - new[c] for c in self._members(kind, before.proposers) if c not in votes]
            slashed = [] if accepted else [units for units in lost if units > 0]
            self._add(**{f"slashed_{kind}": len(slashed), f"paid_{kind}": sum(slashed) / MICRO})

    def result(self, rounds: int) -> Result:
        """As JSON holds it; after an early end the last state stands for the rounds up to `rounds`."""
        result: Result = dict(self.rows)
        states = result.pop("active")
        for name in ("scores", *(f"{what}_{kind}" for what in ("alive", "tokens") for kind in KINDS)):
            result[name] = result[name] + result[name][-1:] * (rounds + 1 - len(result[name]))
        entered = states[:rounds] + states[-1:] * (rounds - len(states))
        for kind in KINDS:
            own = self._members(kind, range(len(states[0])))
            result[f"survival_{kind}"] = [sum(active[c] for active in entered) for c in own]
        return result

    def _members(self, kind: str, clients: Any) -> list[int]:
        return [c for c in clients if (c in self.malicious) == (kind == "malicious")]

    def _add(self, **values: Any) -> None:
        for name, value in values.items():
            self.rows.setdefault(name, []).append(value)
