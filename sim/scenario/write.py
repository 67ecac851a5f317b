"""A scenario as TOML again, so that what a fuzzer drew can be kept, read and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import attrs

from protocol.params import PROFILES
from sim.scenario.manifest import (
    OPTIONS,
    SHORT_DEADLINES,
    SYNTHETIC,
    Expectation,
    Fault,
    NodeTable,
    Scenario,
)
from sim.scenario.selectors import Selector


def to_toml(scenario: Scenario) -> str:
    """`parse_scenario` reads it back as the same scenario. Only what differs from the defaults is written."""
    return "\n".join(_lines(scenario)).rstrip() + "\n"


def _lines(scenario: Scenario) -> Iterator[str]:
    yield f"name = {_literal(scenario.name)}"
    yield f"about = {_literal(scenario.about)}"
    yield ""
    yield from _table("[network]", _changed(scenario.network))
    yield from _table("[link]", _changed(scenario.link))
    yield from _table("[machine]", _changed(scenario.machine))
    yield from _table("[params]", _params(scenario))
    for node in scenario.nodes:
        yield from _table("[[nodes]]", _node(node))
    for fault in scenario.faults:
        yield from _table("[[faults]]", _fault(fault))
    yield from _table("[expect]", _expectation(scenario.expect, scenario.network.rounds))


def _table(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    if not values:
        return
    yield title
    for key, value in values.items():
        yield f"{key} = {_literal(value)}"
    yield ""


def _changed(record: attrs.AttrsInstance) -> dict[str, Any]:
    """The attributes that do not have their defaults."""
    return {
        attribute.name: value
        for attribute in attrs.fields(type(record))
        if (value := getattr(record, attribute.name)) != attribute.default
    }


def _params(scenario: Scenario) -> dict[str, Any]:
    params, network = scenario.params, scenario.network
    base = attrs.evolve(
        PROFILES[network.profile](
            dimension=network.dimension if network.task == SYNTHETIC else params.dimension,
            n_proposers=params.n_proposers,
            n_voters=params.n_voters,
        ),
        **SHORT_DEADLINES,  # type: ignore[arg-type]
    )
    changed = {
        attribute.name: getattr(params, attribute.name)
        for attribute in attrs.fields(type(params))
        if getattr(params, attribute.name) != getattr(base, attribute.name)
    }
    for name, option in changed.items():
        if name in OPTIONS:
            changed[name] = _changed(option)
    return {"n_proposers": params.n_proposers, "n_voters": params.n_voters, **changed}


def _node(node: NodeTable) -> dict[str, Any]:
    values: dict[str, Any] = {"who": _selectors(node.who)}
    if node.behaviour != "honest":
        values["behaviour"] = node.behaviour
    if node.options:
        values["options"] = dict(node.options)
    if node.stake_tokens is not None:
        values["stake_tokens"] = node.stake_tokens
    if node.twin:
        values["twin"] = True
    return values


def _fault(fault: Fault) -> dict[str, Any]:
    values = _changed(fault)
    place = values.pop("place", None)
    for key in ("who", "to"):
        if key in values:
            values[key] = _selectors(values[key])
    if "groups" in values:
        values["groups"] = [_selectors(group) for group in values["groups"]]
    if "sends" in values:
        values["sends"] = values["sends"].name
    if "order" in values:
        values["order"] = values["order"].name.lower()
    return {**({} if place is None else {"at": str(place)}), **values}


def _expectation(expect: Expectation, rounds: int) -> dict[str, Any]:
    values: dict[str, Any] = {} if expect.ended == rounds else {"ended": expect.ended}
    for key in ("accepted", "refused", "aborted"):
        if getattr(expect, key):
            values[key] = list(getattr(expect, key))
    values |= {
        key: {str(round_): entry for round_, entry in getattr(expect, key).items()}
        for key in ("verdicts", "blocks", "reasons", "sharers", "contributors", "votes", "views")
        if getattr(expect, key)
    }
    if expect.paid:
        paid: dict[str, list[str]] = {}
        for selector, fault in expect.paid:
            paid.setdefault(str(selector), []).append(fault.name)
        values["paid"] = paid
    if expect.caught_up:
        values["caught_up"] = {str(selector): _changed(how) for selector, how in expect.caught_up}
    for key in ("unpaid", "evicted", "down"):
        if getattr(expect, key):
            values[key] = _selectors(getattr(expect, key))
    return values


def _selectors(selectors: tuple[Selector, ...]) -> list[str]:
    return [str(selector) for selector in selectors]


def _literal(value: Any) -> str:
    """A TOML value; enums stand by name in expectations and by value in parameters."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Enum():
            return _literal(value.value if isinstance(value.value, str) else value.name)
        case Mapping():
            entries = (f"{_literal(str(key))} = {_literal(entry)}" for key, entry in value.items())
            return "{ " + ", ".join(entries) + " }" if value else "{}"
        case list() | tuple():
            return "[" + ", ".join(_literal(entry) for entry in value) + "]"
        case _:
            return repr(value)
