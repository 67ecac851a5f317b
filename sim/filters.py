"""An adversary as a filter around an honest engine: it may change what goes in and what comes out."""

from __future__ import annotations

from attrs import define, field

from protocol.events import Digest, Effect, Event, JobDone, PeerId


class Filter:
    """The honest filter: everything passes. Adversaries override what they bend.

    A filter outlives its node's crashes. It may set timers and run jobs under keys of its own and take their
    events out again in `events`.
    """

    def events(self, event: Event) -> list[Event]:
        """What the engine is shown instead of `event`."""
        return [event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        """What is performed instead of what the engine asked for, after each event."""
        return effects

    def serve(self, digest: Digest, peer: PeerId, data: bytes) -> bytes | None:
        """What a peer that fetches a blob gets: other bytes are found out by their digest, None withholds."""
        return data


@define(eq=False)
class Watched(Filter):
    """Counts how often the filter inside really changed something: an adversary that never struck is none."""

    inner: Filter
    struck: int = field(default=0, init=False)

    def events(self, event: Event) -> list[Event]:
        shown = self.inner.events(event)
        if len(shown) != 1 or not _same_event(shown[0], event):
            self.struck += 1
        return shown

    def effects(self, effects: list[Effect]) -> list[Effect]:
        before = list(effects)
        performed = self.inner.effects(effects)
        if performed != before:
            self.struck += 1
        return performed

    def serve(self, digest: Digest, peer: PeerId, data: bytes) -> bytes | None:
        served = self.inner.serve(digest, peer, data)
        if served is not data:
            self.struck += 1
        return served


def _same_event(shown: Event, event: Event) -> bool:
    """Results compare without their arrays, so another object counts as another result."""
    if isinstance(shown, JobDone) and isinstance(event, JobDone):
        return shown.result is event.result
    return shown == event
