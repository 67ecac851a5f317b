"""Defaults of founding: what `flocknode demo` shows is what `flocknode network init` makes.

Both call `founding_settings` and `pool_units`, and differ in what stands side by side here: how fast rounds
follow each other, and when training ends. Deadlines and prices that no command asks for are those of
`ProtocolParams`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from flocknode.contract import DEFAULT as CONTRACT
from flocknode.contract import contract_settings
from flocknode.gamma import DEFAULT as GAMMA
from flocknode.gamma import gamma_settings
from protocol.ledger.economy import UNITS
from protocol.ledger.pace import DAY_MS, MAX_ROUNDS, Pace
from protocol.params import ProtocolParams

STAKE_TOKENS = 64.0
"""FLock's initial stake of a node."""
REWARD_TOKENS = 10.0
"""What a round pays out of the reward pool, and what a further round costs once training rests."""
HORIZON_ROUNDS = 1_000
"""Of a network without a number of rounds: each round pays 1/1000 of the pool, which so lasts for ever."""

DEMO_ROUNDS = 5
DEMO_INTERVAL_S = 0.0
"""As fast as the phases of a round go."""

NETWORK_ROUNDS = 0
"""Without end."""
NETWORK_INTERVAL_S = 60.0
NETWORK_PATIENCE = 30
"""Judged rounds in a row without a better model, after which training rests."""


class PaceError(ValueError):
    """An option of a network's pace is out of its range, or contradicts another; the message names it."""


@frozen(kw_only=True)
class PaceOptions:
    """When rounds begin and when training rests, as people write it: `Pace` in seconds and tokens.

    `rests` False: nothing ends training, whatever the other options say but `rounds`, which contradicts it.
    """

    interval_s: float = NETWORK_INTERVAL_S
    rounds: int = NETWORK_ROUNDS
    patience: int = NETWORK_PATIENCE
    rests: bool = True
    resume_tokens: float = REWARD_TOKENS

    def pace(self, *, voters_say_done: bool) -> Pace:
        """Return the genesis option. Raises `PaceError`."""
        if not 0 <= self.interval_s <= DAY_MS / 1000:
            raise PaceError(f"--interval {self.interval_s:g}: from 0 to {DAY_MS // 1000} seconds")
        for name, count in (("rounds", self.rounds), ("patience", self.patience)):
            if not 0 <= count <= MAX_ROUNDS:
                raise PaceError(f"--{name} {count}: from 0 to {MAX_ROUNDS}")
        if not 0 <= self.resume_tokens <= 1e9:
            raise PaceError(f"--resume-price {self.resume_tokens:g}: from 0 to 1,000,000,000 tokens")
        if self.rounds and not self.rests:
            raise PaceError(
                f"--no-rest: training would rest after --rounds {self.rounds}; give one of the two"
            )
        return Pace(
            interval_ms=round(self.interval_s * 1000),
            rounds=self.rounds,
            patience=self.patience if self.rests else 0,
            heeds_done=voters_say_done and self.rests,
            resume_units=round(self.resume_tokens * UNITS),
        )


def founding_settings(
    *, contract: str = CONTRACT, gamma: str = GAMMA, pace: PaceOptions, pool_rounds: int | None = None
) -> Mapping[str, Any]:
    """Return the fields of `ProtocolParams` that these options set. Raises what each of them raises.

    Voters can say that the task is done where their contract has them say more than a vote.
    """
    judged = contract_settings(contract)
    return {
        "pool_rounds": pool_rounds_of(pace, pool_rounds),
        "pace": pace.pace(voters_say_done="judgement" in judged),
        **gamma_settings(gamma),
        **judged,
    }


def pool_rounds_of(pace: PaceOptions, pool_rounds: int | None = None) -> int:
    """Return over how many rounds the pool is paid out: by default as many as the network has."""
    return pool_rounds or pace.rounds or HORIZON_ROUNDS


def pool_units(pace: PaceOptions, pool_rounds: int | None = None, pool_tokens: float | None = None) -> int:
    """Return the reward pool in units: the default pays `REWARD_TOKENS` in the first round."""
    tokens = REWARD_TOKENS * pool_rounds_of(pace, pool_rounds) if pool_tokens is None else pool_tokens
    return round(tokens * UNITS)


def describe_pace(params: ProtocolParams) -> str:
    """Return in a few words how fast rounds follow each other and when training rests."""
    pace = params.pace
    if pace is None:
        return "rounds without end"
    words = [f"a round every {pace.interval_ms / 1000:g} s"] if pace.interval_ms else []
    if pace.rounds:
        words.append(f"{pace.rounds} round{'s' * (pace.rounds > 1)}")
    if pace.patience:
        words.append(f"rests after {pace.patience} rounds without a better model")
    if pace.heeds_done:
        words.append("rests when voters say done")
    if not (pace.rounds or pace.patience or pace.heeds_done):
        words.append("rounds without end")
    return ", ".join(words)
