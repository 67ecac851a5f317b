"""Warnings about a node's network: who is connected, who is on another one, how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from flocknode.observe.conditions import Conditions
from flocknode.observe.words import MOST_NAMED, listed
from flocknode.transport.base import Dial, Member, TransportStats
from flocknode.transport.standing import Level, Standing
from protocol.events import Notify
from protocol.keys import PeerId, peer_name

STARTING_S: Final = 5.0
"""After its start a node gives its peers so long before it misses them."""


@define(eq=False)
class NetworkWatch:
    """Watches the network of one node; `began_s` is when the node started, by the monotonic clock."""

    conditions: Conditions
    me: PeerId
    members: Sequence[Member]
    began_s: float
    _height: int = field(default=0, init=False)
    _network_height: int = field(default=0, init=False)
    _validators: frozenset[str] = field(default=frozenset(), init=False)
    _quorum: int = field(default=0, init=False)
    _foreign: dict[str, tuple[str, str, str]] = field(factory=dict, init=False)
    _dropped: dict[str, tuple[int, int]] = field(factory=dict, init=False)
    _dropping: set[str] = field(factory=set, init=False)

    def notice(self, notice: Notify, now_s: float) -> None:
        """Take in a fact that the engine tells."""
        handler = _HANDLERS.get(notice.kind)
        if handler is not None:
            handler(self, notice.fields)

    def _on_height(self, fields: Mapping[str, Any]) -> None:
        self._height = fields["height"]

    def _on_validators(self, fields: Mapping[str, Any]) -> None:
        self._validators, self._quorum = frozenset(fields["peers"]), fields["quorum"]

    def _on_behind(self, fields: Mapping[str, Any]) -> None:
        self._network_height = max(self._network_height, fields["network_height"])

    def _on_foreign(self, fields: Mapping[str, Any]) -> None:
        self._foreign[fields["peer"]] = fields["reason"], fields["theirs"], fields["network"]

    def _on_native(self, fields: Mapping[str, Any]) -> None:
        self._foreign.pop(fields["peer"], None)

    def dropped(self, peer: PeerId, size_bytes: int, now_s: float) -> None:
        """Take in that a message of a peer was dropped, because too much of it is waiting."""
        name = peer_name(peer)
        messages, bytes_ = self._dropped.get(name, (0, 0))
        self._dropped[name] = messages, bytes_ = messages + 1, bytes_ + size_bytes
        self._dropping.add(name)
        what = f"messages of peer {name} are dropped, as too many wait: {messages} so far, {bytes_} bytes"
        figures = {"peer": name, "messages": messages, "bytes": bytes_}
        self.conditions.holds("message_dropped", now_s, what, name, **figures)

    def standing_is(self, peer: PeerId, standing: Standing, now_s: float) -> None:
        """Take in how a peer stands with this node (docs/PROTOCOL.md section 8.7)."""
        name, score = peer_name(peer), round(standing.score, 1)
        figures = {"peer": name, "score": score, "dropped": standing.dropped}
        for level, what in _STANDINGS.items():
            if standing.level is level:
                told = f"peer {name} {what}: its score is {score}, {standing.dropped} messages were dropped"
                self.conditions.holds(level.value, now_s, told, name, **figures)
            else:
                self.conditions.gone(level.value, now_s, name)

    def look(self, connected: Iterable[PeerId], stats: TransportStats, now_s: float) -> None:
        """Take in who is connected, how they stand, and how dialling the others went."""
        for peer, standing in stats.standings.items():
            self.standing_is(peer, standing, now_s)
        links = {peer_name(peer) for peer in connected}
        self.conditions.retain("message_dropped", self._dropping, now_s)
        self._dropping = set()
        self._look_at_links(links, {peer_name(peer): dial for peer, dial in stats.dials.items()}, now_s)
        self._look_at_networks(links, now_s)
        if self._network_height <= self._height + 1:
            self.conditions.gone("behind", now_s)
            return
        behind = self._network_height - self._height
        self.conditions.holds(
            "behind",
            now_s,
            f"this node is at height {self._height}, {behind} blocks behind the network at "
            f"{self._network_height}: it is catching up",
            height=self._height,
            network_height=self._network_height,
            blocks=behind,
        )

    def _look_at_links(self, links: set[str], dials: Mapping[str, Dial], now_s: float) -> None:
        me = peer_name(self.me)
        others = {peer_name(member.peer): member.address for member in self.members}
        others.pop(me, None)
        self._look_at_refusals(links, others, dials, now_s)
        if now_s - self.began_s < STARTING_S and not links:
            return
        if links or not others:
            self.conditions.gone("no_peer", now_s)
        else:
            tried = [f"{where} ({dials.get(peer, Dial()).words})" for peer, where in sorted(others.items())]
            self.conditions.holds(
                "no_peer",
                now_s,
                f"no peer is connected since {{since}}; tried {listed(tried)}",
                members=len(others),
                tried=tried[:MOST_NAMED],
            )
        self._look_at_quorum(links, me, now_s)
        if links:  # who is alone misses nobody in particular
            away = sorted((self._validators or others.keys()) & others.keys() - links)
            for peer in away:
                self.conditions.holds("peer_away", now_s, f"peer {peer} is not connected", peer)
            self.conditions.retain("peer_away", away, now_s)

    def _look_at_refusals(
        self, links: set[str], others: Mapping[str, str], dials: Mapping[str, Dial], now_s: float
    ) -> None:
        refusing = sorted(p for p in others if p not in links and dials.get(p, Dial()).is_refused)
        if not refusing or (links and 2 * len(refusing) <= len(others)):
            self.conditions.gone("not_admitted", now_s)
            return
        self.conditions.holds(
            "not_admitted",
            now_s,
            f"{len(refusing)} of {len(others)} peers can be reached, and end each connection in its "
            "handshake: "
            "this node is not in their member list, its pre-shared key differs, or they refuse it for its "
            f"conduct; its peer id is {peer_name(self.me)}",
            refusing=len(refusing),
            members=len(others),
            peers=refusing[:MOST_NAMED],
        )

    def _look_at_quorum(self, links: set[str], me: str, now_s: float) -> None:
        useful = {peer for peer in links if self._foreign.get(peer, ("",))[0] not in ("network", "version")}
        there, all_ = len((useful | {me}) & self._validators), len(self._validators)
        itself = ", this one counted" if me in self._validators else ""
        if there >= self._quorum:
            self.conditions.gone("below_quorum", now_s)
        elif now_s - self.began_s >= STARTING_S:
            self.conditions.holds(
                "below_quorum",
                now_s,
                f"{there} of {all_} validators are connected{itself}, {self._quorum} are needed: "
                "nothing is decided; waiting since {since}",
                connected=there,
                validators=all_,
                needed=self._quorum,
                height=self._height,
            )

    def _look_at_networks(self, links: set[str], now_s: float) -> None:
        for name, reasons in (("genesis_differs", {"network"}), ("version_differs", {"version", "kind"})):
            told = {peer: self._foreign[peer] for peer in sorted(links) if peer in self._foreign}
            differing = {peer: fields for peer, fields in told.items() if fields[0] in reasons}
            if not differing:
                self.conditions.gone(name, now_s)
                continue
            theirs = sorted({fields[1][:12] for fields in differing.values()})
            ours = next(iter(differing.values()))[2][:12]
            count = f"{len(differing)} of {len(links)} connected peers"
            what = (
                f"{count} are on another network: theirs is {listed(theirs)}, this node's is {ours}: "
                "compare genesis.bin"
                if name == "genesis_differs"
                else f"{count} speak what this node does not know ({_versions(differing.values())})"
            )
            self.conditions.holds(
                name,
                now_s,
                what,
                differing=len(differing),
                connected=len(links),
                theirs=theirs,
                network=ours,
                peers=list(differing)[:MOST_NAMED],
            )


_STANDINGS: Final[Mapping[Level, str]] = {
    Level.THROTTLED: "is throttled for what it sends",
    Level.REFUSED: "is disconnected for what it sends, and refused for a while",
}

_HANDLERS: Final[Mapping[str, Callable[[NetworkWatch, Mapping[str, Any]], None]]] = {
    "phase": NetworkWatch._on_height,
    "block": NetworkWatch._on_height,
    "validators": NetworkWatch._on_validators,
    "behind": NetworkWatch._on_behind,
    "foreign": NetworkWatch._on_foreign,
    "native": NetworkWatch._on_native,
}


def _versions(differing: Iterable[tuple[str, str, str]]) -> str:
    return listed(sorted({f"{reason} {theirs}" for reason, theirs, _ in differing}))
