"""Warnings about a node's update and about its place in the network: clipping, weight, stake, roles."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

from flocknode.observe.conditions import Conditions
from flocknode.observe.describe import tokens
from flocknode.observe.words import listed
from protocol.events import Notify

LEAST_CHANCE: Final = 1e-3
"""Not being drawn is told where chance explains it less often than this, in all rounds that were watched: so
lucky streaks, which come in any long life, are not told."""
ROUNDS_ALIKE: Final = 3
"""So many rounds in a row are no coincidence."""
FEW_PERMILLE: Final = 100
"""Coordinates are few where they are at most a tenth of all."""


@define(eq=False)
class UpdateWatch:
    """Watches what becomes of one node's updates before they are sent."""

    conditions: Conditions
    _clipped: deque[frozenset[int]] = field(factory=lambda: deque(maxlen=ROUNDS_ALIKE), init=False)

    def notice(self, notice: Notify, now_s: float) -> None:
        """Take in a fact that the engine tells."""
        if notice.kind == "encoded":
            self._on_encoded(notice.fields, now_s)
        elif notice.kind == "samples_cut":
            self._on_samples_cut(notice.fields, now_s)

    def _on_encoded(self, fields: Mapping[str, Any], now_s: float) -> None:
        clipped, all_ = fields["clipped_coordinates"], fields["coordinates"]
        if clipped:
            self.conditions.holds(
                "update_clipped",
                now_s,
                f"round {fields['round']}: {clipped} of {all_} coordinates of this node's update were beyond "
                f"the clipping bound of {fields['clip']:g}, and were cut to it; "
                f"the largest was {fields['largest']:.4g}",
                round=fields["round"],
                clipped_coordinates=clipped,
                coordinates=all_,
                clip=fields["clip"],
                largest=fields["largest"],
            )
        else:
            self.conditions.gone("update_clipped", now_s)
        self._compare_clipped(frozenset(fields["clipped_at"]), clipped * 1000 <= all_ * FEW_PERMILLE, now_s)
        self._compare_samples(fields, now_s)

    def _compare_clipped(self, places: frozenset[int], are_few: bool, now_s: float) -> None:
        self._clipped.append(places if are_few else frozenset())
        alike = sorted(frozenset.intersection(*self._clipped)) if len(self._clipped) == ROUNDS_ALIKE else []
        if not alike:
            self.conditions.gone("same_coordinates_clipped", now_s)
            return
        self.conditions.holds(
            "same_coordinates_clipped",
            now_s,
            f"the same coordinates ({listed(map(str, alike))}) were clipped in each of the last "
            f"{ROUNDS_ALIKE} updates of this node: running statistics of a normalising layer look like this",
            clipped_at=alike,
        )

    def _compare_samples(self, fields: Mapping[str, Any], now_s: float) -> None:
        weight, trained = fields["weight"], fields["trained_weight"]
        if weight == trained:
            self.conditions.gone("samples_differ", now_s)
            return
        self.conditions.holds(
            "samples_differ",
            now_s,
            f"training used {trained} samples, but this node's update is weighted by {weight}, "
            "as counted when the node started",
            trained_samples=trained,
            weight_samples=weight,
        )

    def _on_samples_cut(self, fields: Mapping[str, Any], now_s: float) -> None:
        samples, most = fields["samples"], fields["max_weight"]
        self.conditions.holds(
            "samples_cut",
            now_s,
            f"this node has {samples} training samples; its updates are weighted by {most}, "
            "the most that this network allows",
            samples=samples,
            max_weight_samples=most,
        )


@define(eq=False)
class PlaceWatch:
    """Watches one node's place in its network: whether it is a validator, and is drawn for roles."""

    conditions: Conditions
    _rounds: int = field(default=0, init=False)
    _undrawn: int = field(default=0, init=False)
    _ineligible: int = field(default=0, init=False)
    _chance: float = field(default=1.0, init=False)

    def notice(self, notice: Notify, now_s: float) -> None:
        """Take in a fact that the engine tells."""
        if notice.kind == "account":
            self._on_account(notice.fields, now_s)

    def _on_account(self, fields: Mapping[str, Any], now_s: float) -> None:
        stake, least = fields["stake_units"], fields["least_units"]
        is_validator = fields["validator"]
        figures = {"round": fields["round"], "stake_units": stake, "least_units": least}
        if not is_validator and not (fields["member"] and stake >= least):
            why = (
                f"its stake of {tokens(stake)} tokens is below the least of {tokens(least)}"
                if fields["member"]
                else f"it is not a member (stake {tokens(stake)} tokens)"
            )
            what = f"since {{since}} this node is no validator: {why}; it has no vote and no role"
            self.conditions.holds("not_validator", now_s, what, **figures)
        else:
            self.conditions.gone("not_validator", now_s)
        if is_validator and stake - least < 2 * fields["gamma_units"]:
            self.conditions.holds(
                "short_of_stake",
                now_s,
                f"this node's stake of {tokens(stake)} tokens is close to the least of {tokens(least)}; "
                f"a vote that is lost costs {tokens(fields['gamma_units'])}",
                gamma_units=fields["gamma_units"],
                **figures,
            )
        else:
            self.conditions.gone("short_of_stake", now_s)
        # A round that is over when this node hears of it could not have had its key advert.
        if is_validator and fields["drawn"] is not None and not fields["synced"]:
            self._on_draw(fields, now_s)

    def _on_draw(self, fields: Mapping[str, Any], now_s: float) -> None:
        self._rounds += 1
        self._ineligible = 0 if fields["eligible"] else self._ineligible + 1
        if self._ineligible >= ROUNDS_ALIKE:
            self.conditions.holds(
                "advert_missed",
                now_s,
                f"for {self._ineligible} rounds in a row this node's key advert was not on the ledger when "
                "roles were drawn, so that it could not be drawn",
                rounds=self._ineligible,
            )
        elif not self._ineligible:
            self.conditions.gone("advert_missed", now_s)
        if fields["drawn"]:
            self._undrawn, self._chance = 0, 1.0
            self.conditions.gone("never_drawn", now_s)
        elif fields["eligible"]:
            self._undrawn += 1
            self._chance *= fields["undrawn_ppm"] / 1e6
            if self._chance * self._rounds < LEAST_CHANCE:
                share = 1 - fields["undrawn_ppm"] / 1e6
                self.conditions.holds(
                    "never_drawn",
                    now_s,
                    f"this node was drawn for no role in {self._undrawn} rounds; by its stake it should be "
                    f"drawn in {100 * share:.0f} % of all rounds: the chance of that is {self._chance:.1g}",
                    rounds=self._undrawn,
                    expected_share=round(share, 4),
                    chance=self._chance,
                )
