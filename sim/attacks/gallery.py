"""All attacks, in the order of docs/ATTACKS.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.attacks.agreement import AGREEMENT, GRINDING
from sim.attacks.attack import Attack, Result
from sim.attacks.dealing import BEACON, DEALING
from sim.attacks.network import NETWORK
from sim.attacks.poisoning import POISONING
from sim.attacks.privacy import PRIVACY
from sim.attacks.stake import STAKE
from sim.attacks.sums import AGGREGATION, CONTRIBUTIONS
from sim.attacks.voting import VOTING

FAMILIES: tuple[tuple[str, tuple[Attack, ...]], ...] = (
    ("Poisoning", POISONING),
    ("Votes", VOTING),
    ("The sum", AGGREGATION),
    ("Contributions", CONTRIBUTIONS),
    ("Privacy", PRIVACY),
    ("Dealers and holders", DEALING),
    ("The beacon", (*BEACON, *GRINDING)),
    ("Agreement", AGREEMENT),
    ("Network", NETWORK),
    ("Stake", STAKE),
)
GALLERY: tuple[Attack, ...] = tuple(attack for _, attacks in FAMILIES for attack in attacks)
NAMES = tuple(attack.name for attack in GALLERY)


def wronged(results: Iterable[Result]) -> Iterator[Result]:
    """Those in which somebody honest was blamed, which must never happen."""
    return (result for result in results if result.wrongly_blamed)
