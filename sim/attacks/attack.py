"""What an attack is, and what is said of one that was run."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import frozen

PROFILES = ("vcdfl", "hardened")
"""The paper's profile, then the default (docs/PROTOCOL.md section 9)."""


class AttackError(Exception):
    """An attack that never struck, or an honest node that was blamed; the message says which."""


class Outcome(Enum):
    """SUCCEEDS: the attacker's goal was reached. DETECTED: it was not, and somebody guilty was blamed on the
    ledger or reported to the transport, or the sum was repaired. HARMLESS: it was not, and nobody was.
    """

    SUCCEEDS = "succeeds"
    DETECTED = "detected"
    HARMLESS = "harmless"


@frozen(kw_only=True)
class Result:
    """`blamed`: first-round roles of the guilty who paid for a proven fault or were reported by honest nodes.

    `cost_units`: what the attackers have less, or more where it is negative, than in an honest run with the
    same seed. `rounds_lost`: rounds without an accepted outcome, less those of the honest run. `found`: what
    the outcome was measured by. `wrongly_blamed`: honest nodes that were.
    """

    attack: str
    profile: str
    outcome: Outcome
    blamed: tuple[str, ...]
    cost_units: int
    rounds_lost: int
    seed: int
    found: str
    wrongly_blamed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `flocknode sim attacks --json` writes it."""
        return {
            "attack": self.attack,
            "profile": self.profile,
            "outcome": self.outcome.value,
            "blamed": list(self.blamed),
            "cost_units": self.cost_units,
            "rounds_lost": self.rounds_lost,
            "seed": self.seed,
            "found": self.found,
        }


@frozen
class Attack:
    """`about`: who does what. `goal`: what the attacker wants, and what tells whether it has it.

    `stage(name, profile, seed)` runs it, and raises `AttackError` where it did not strike.
    """

    name: str
    about: str
    goal: str
    stage: Callable[[str, str, int], Result]

    def run(self, profile: str, seed: int) -> Result:
        """What becomes of it in one profile."""
        return self.stage(self.name, profile, seed)
