"""A claim of a paper, or ours, held against what was computed here: nothing is asserted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Claim:
    """`statement`: what is claimed, in one sentence; `source`: by whom and where.

    `holds`: whether the numbers computed here bear it out, by `rule`, which says in words how that was
    decided. `found`: the numbers in one sentence. `numbers`: the same by name, for the JSON.
    """

    name: str
    statement: str
    source: str
    rule: str
    holds: bool
    found: str
    numbers: Mapping[str, float] = field(factory=dict)

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "does not hold"

    def to_json(self) -> dict[str, Any]:
        """Every field, the numbers in the order of their names."""
        return {
            "name": self.name,
            "statement": self.statement,
            "source": self.source,
            "rule": self.rule,
            "holds": self.holds,
            "found": self.found,
            "numbers": {name: self.numbers[name] for name in sorted(self.numbers)},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Claim:
        """The inverse of `to_json`. TypeError for other fields."""
        return Claim(**data)


def claim_lines(claims: Sequence[Claim]) -> str:
    """One line a claim, for a terminal."""
    width = max((len(claim.name) for claim in claims), default=0)
    return "\n".join(f"{claim.name.ljust(width)}  {claim.verdict}: {claim.found}" for claim in claims)


def claim_list(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown list: what is claimed, whether it holds here, and by what numbers."""
    return "\n".join(
        f'- "{claim.statement}" ({claim.source}). **{claim.verdict.capitalize()} here**: {claim.found} '
        f"(Test: {claim.rule}.)"
        for claim in claims
    )
