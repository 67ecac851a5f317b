"""An adversary as a filter around an honest engine: it may change what goes in and what comes out."""

from __future__ import annotations

from protocol.events import Digest, Effect, Event, PeerId


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
