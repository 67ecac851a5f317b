"""Scenario manifests: every key, every mistake by file and key, who and when, and the way back to TOML."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest

from protocol.ledger.block import BlockKind, Reason
from protocol.ledger.state import Fault as LedgerFault
from protocol.ledger.state import Phase
from protocol.messages import Kind, TransactionKind
from protocol.params import Sparsify
from protocol.secagg.verification import Verdict
from protocol.sortition import Roles
from sim.fuzz.draw import draw_scenario
from sim.scenario.manifest import (
    ALWAYS,
    NEEDS,
    TAKES,
    Fault,
    FaultKind,
    LinkTable,
    Scenario,
    ScenarioError,
    load_scenario,
    parse_scenario,
)
from sim.scenario.moments import MomentError, Place, parse_place
from sim.scenario.selectors import (
    Part,
    Parts,
    Selector,
    SelectorError,
    parse_selector,
    parts_of_roles,
    select,
)
from sim.scenario.write import to_toml

SHIPPED = sorted((Path(__file__).parents[2] / "sim" / "scenarios").rglob("*.toml"))
"""Those for the lab too."""
DRAWN = 400

HEAD = 'name = "x"\nabout = "y"\n'
SMALL = HEAD + "[network]\nnodes = 7\n"


def read(text: str) -> Scenario:
    return parse_scenario(text, "x.toml")


def fault(text: str) -> Fault:
    (only,) = read(SMALL + "[[faults]]\n" + text).faults
    return only


# -- keys ------------------------------------------------------------------------------------------------


def test_the_least_that_a_manifest_says() -> None:
    scenario = read(SMALL)
    assert (scenario.name, scenario.about) == ("x", "y")
    assert (scenario.network.nodes, scenario.network.rounds, scenario.network.task) == (7, 3, "synthetic")
    assert (scenario.params.n_proposers, scenario.params.n_voters) == (4, 2)
    assert scenario.params.phase_deadline_ms == 4_000
    assert scenario.link == LinkTable()
    assert (scenario.nodes, scenario.faults, scenario.expect.ended) == ((), (), 3)


def test_every_key_of_the_network_its_links_and_its_parameters() -> None:
    scenario = read(
        HEAD
        + """
        [network]
        nodes = 10
        rounds = 5
        profile = "vcdfl"
        task = "synthetic"
        dimension = 100
        partition = "dirichlet"
        stake_tokens = 20
        pool_tokens = 0
        patience_s = 60

        [link]
        latency_min_ms = 1
        latency_max_ms = 2
        bytes_per_s = 5000
        loss = 0.1
        duplicate = 0.2
        reorder = 0.3
        late_ms = 4

        [params]
        n_proposers = 6
        sparsify = "topk_local"
        max_attempts = 2
        """
    )
    network, link, params = scenario.network, scenario.link, scenario.params
    assert attrs.astuple(network) == (10, 5, "vcdfl", "synthetic", 100, "dirichlet", 20.0, 0.0, 60.0)
    assert attrs.astuple(link) == (1, 2, 5_000, 0.1, 0.2, 0.3, 4)
    assert (params.dimension, params.n_proposers, params.n_voters, params.max_attempts) == (100, 6, 2, 2)
    assert params.sparsify is Sparsify.TOPK_LOCAL


def test_a_real_task_has_the_dimension_of_its_model() -> None:
    scenario = read(HEAD + '[network]\nnodes = 4\ntask = "digits"\ndimension = 8\n')
    assert scenario.params.dimension > 1_000


def test_every_key_of_a_node() -> None:
    scenario = read(
        SMALL
        + """
        [[nodes]]
        who = ["proposer 0", 6]
        behaviour = "z-spoiler"
        options = { holders = 2 }
        stake_tokens = 9

        [[nodes]]
        who = "voters"
        twin = true
        """
    )
    first, second = scenario.nodes
    assert first.who == (Selector(Part.PROPOSER, 0), Selector(Part.NODE, 6))
    assert (first.behaviour, first.options, first.stake_tokens, first.twin) == (
        "z-spoiler",
        {"holders": 2},
        9,
        False,
    )
    assert (second.who, second.behaviour, second.twin) == ((Selector(Part.VOTERS),), "honest", True)
    assert scenario.twins == (second,)


VALUES = {
    "who": '"leader"',
    "to": '["voter 0", 3]',
    "groups": '[[0, 1], "proposers"]',
    "for_s": "2.5",
    "rate": "0.25",
    "factor": "3",
    "delay_ms": "40",
    "bytes_per_s": "1000",
    "after_effects": "2",
    "order": '"transfer"',
    "tokens": "1.5",
    "replaces": "3",
}
MEANT = {
    "who": (Selector(Part.LEADER),),
    "to": (Selector(Part.VOTER, 0), Selector(Part.NODE, 3)),
    "groups": ((Selector(Part.NODE, 0), Selector(Part.NODE, 1)), (Selector(Part.PROPOSERS),)),
    "for_s": 2.5,
    "rate": 0.25,
    "factor": 3,
    "delay_ms": 40,
    "bytes_per_s": 1_000,
    "after_effects": 2,
    "order": TransactionKind.TRANSFER,
    "tokens": 1.5,
    "replaces": 3,
}


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_every_fault_with_all_that_it_takes(kind: FaultKind) -> None:
    keys = sorted(NEEDS[kind] | TAKES.get(kind, frozenset()))
    text = "\n".join(
        [f'at = "round 2 / vote"\nafter_s = 0.5\ndo = "{kind.value}"'] + [f"{k} = {VALUES[k]}" for k in keys]
    )
    found = fault(text)
    assert (found.do, found.place, found.after_s) == (kind, Place(2, Phase.VOTE), 0.5)
    assert {key: getattr(found, key) for key in keys} == {key: MEANT[key] for key in keys}


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_a_fault_says_what_it_lacks_and_what_it_takes_not(kind: FaultKind) -> None:
    for lacking in sorted(NEEDS[kind]):
        rest = "\n".join(f"{key} = {VALUES[key]}" for key in sorted(NEEDS[kind] - {lacking}))
        with pytest.raises(ScenarioError, match=rf"x\.toml: faults\[0\]: a {kind.value} needs '{lacking}'"):
            fault(f'at_s = 1\ndo = "{kind.value}"\n{rest}')
    strange = sorted(VALUES.keys() - NEEDS[kind] - TAKES.get(kind, frozenset()) - ALWAYS)[0]
    rest = "\n".join(f"{key} = {VALUES[key]}" for key in sorted(NEEDS[kind] | {strange}))
    with pytest.raises(ScenarioError, match=rf"x\.toml: faults\[0\]: a {kind.value} takes no '{strange}'"):
        fault(f'at_s = 1\ndo = "{kind.value}"\n{rest}')


@pytest.mark.parametrize("order", ["leave", "join", "fund"])
def test_only_a_transfer_has_a_recipient(order: str) -> None:
    assert (
        fault(f'at_s = 1\ndo = "order"\nwho = 1\norder = "{order}"').order is TransactionKind[order.upper()]
    )
    with pytest.raises(ScenarioError, match="a transfer needs 'to', and no other order has it"):
        fault(f'at_s = 1\ndo = "order"\nwho = 1\norder = "{order}"\nto = 2')
    with pytest.raises(
        ScenarioError, match=r"'faults\[0\]\.order' must be one of transfer, join, leave, fund"
    ):
        fault('at_s = 1\ndo = "order"\nwho = 1\norder = "sell"')


def test_the_moments_of_a_fault() -> None:
    assert fault('at_s = 2\nafter_s = 1\ndo = "kill"\nwho = 1').at_s == 2
    often = fault('at = "round 1"\ndo = "restart"\nwho = "all"\nevery_s = 1.5\nuntil_round = 3')
    assert (often.place, often.every_s, often.until_round) == (Place(1), 1.5, 3)
    said = fault('at = "round 1 / share"\ndo = "kill"\nwho = "voters"\nsends = "SEALED_VOTE"')
    assert said.sends is Kind.SEALED_VOTE


def test_every_expectation() -> None:
    expect = read(
        SMALL
        + """
        [expect]
        ended = 2
        accepted = [1]
        refused = [2]
        aborted = [3]
        verdicts = { 1 = "TRUSTED" }
        blocks = { 1 = "TIMEOUT", 2 = ["DISPUTE", "OUTCOME"] }
        reasons = { 3 = "NO_AGGREGATE" }
        sharers = { 1 = 4 }
        contributors = { 1 = 3 }
        votes = { 1 = [-1, 1], 2 = [] }
        views = { 2 = 3 }
        paid = { aggregator = "FORGED_AGGREGATE", "voter 1" = ["UNOPENED_VOTE", "EQUIVOCATION"] }
        unpaid = ["proposers", 6]
        evicted = "voter 1"
        down = 5
        """
    ).expect
    assert (expect.ended, expect.accepted, expect.refused, expect.aborted) == (2, (1,), (2,), (3,))
    assert expect.verdicts == {1: Verdict.TRUSTED}
    assert expect.blocks == {1: (BlockKind.TIMEOUT,), 2: (BlockKind.DISPUTE, BlockKind.OUTCOME)}
    assert expect.reasons == {3: Reason.NO_AGGREGATE}
    assert (expect.sharers, expect.contributors, expect.views) == ({1: 4}, {1: 3}, {2: 3})
    assert expect.votes == {1: (1, -1), 2: ()}
    assert expect.paid == (
        (Selector(Part.AGGREGATOR), LedgerFault.FORGED_AGGREGATE),
        (Selector(Part.VOTER, 1), LedgerFault.UNOPENED_VOTE),
        (Selector(Part.VOTER, 1), LedgerFault.EQUIVOCATION),
    )
    assert expect.unpaid == (Selector(Part.PROPOSERS), Selector(Part.NODE, 6))
    assert (expect.evicted, expect.down) == ((Selector(Part.VOTER, 1),), (Selector(Part.NODE, 5),))


# -- mistakes --------------------------------------------------------------------------------------------

KILL = '[[faults]]\ndo = "kill"\n'
AT = 'at = "round 1"\n'

MISTAKES = {
    "not TOML": ("name = ", "Invalid value"),
    "unknown table": (SMALL + "[weather]\n", "unknown key 'weather'"),
    "no network": (HEAD, r"\[network\] is missing"),
    "no name": ('about = "y"\n[network]\nnodes = 7\n', "'name' must be a text"),
    "empty about": ('name = "x"\nabout = " "\n[network]\nnodes = 7\n', "'about' must be a text"),
    "no nodes": (HEAD + "[network]\n", "'network.nodes' is missing"),
    "too few nodes": (HEAD + "[network]\nnodes = 3\n", "network: .*nodes"),
    "wrong type": (HEAD + '[network]\nnodes = "7"\n', "'network.nodes' must be int, not str"),
    "unknown key": (SMALL + "node = 7\n", "unknown key 'network.node'"),
    "unknown profile": (SMALL + 'profile = "soft"\n', "network: .*profile"),
    "unknown task": (SMALL + 'task = "chess"\n', "network: .*task"),
    "latencies": (
        SMALL + "[link]\nlatency_min_ms = 50\n",
        "link: 'latency_max_ms' must not be below 'latency_min_ms'",
    ),
    "loss": (SMALL + "[link]\nloss = 0.95\n", "link: .*loss"),
    "params": (SMALL.replace("[network]", "params = 3\n[network]"), "'params' must be a table"),
    "unknown param": (SMALL + "[params]\ngravity = 1\n", "unknown key 'params.gravity'"),
    "dimension is the network's": (SMALL + "[params]\ndimension = 9\n", "unknown key 'params.dimension'"),
    "type of a param": (SMALL + '[params]\nmax_attempts = "2"\n', "'params.max_attempts' must be int"),
    "choice of a param": (
        SMALL + '[params]\nsparsify = "much"\n',
        "'params.sparsify' must be one of .*topk_local",
    ),
    "value of a param": (SMALL + "[params]\nmax_attempts = 0\n", "params: .*max_attempts"),
    "no aggregator": (SMALL + "[params]\nn_proposers = 7\n", "params.n_proposers: at most 6"),
    "nodes no array": (SMALL + "[nodes]\nwho = 1\n", r"'nodes' must be an array of tables, \[\[nodes\]\]"),
    "node no table": (SMALL.replace("[network]", "nodes = [3]\n[network]"), r"'nodes\[0\]' must be a table"),
    "node without who": (SMALL + "[[nodes]]\ntwin = true\n", r"'nodes\[0\].who' is missing"),
    "unknown key of a node": (SMALL + "[[nodes]]\nwho = 1\nevil = 1\n", r"unknown key 'nodes\[0\].evil'"),
    "behaviour": (SMALL + "[[nodes]]\nwho = 1\nbehaviour = 3\n", r"nodes\[0\]: .*"),
    "options": (SMALL + "[[nodes]]\nwho = 1\noptions = 3\n", r"'nodes\[0\].options' must be a table"),
    "stake": (
        SMALL + "[[nodes]]\nwho = 1\nstake_tokens = true\n",
        r"'nodes\[0\].stake_tokens' must be a positive number",
    ),
    "twin": (SMALL + "[[nodes]]\nwho = 1\ntwin = 1\n", r"nodes\[0\]: 'twin' must be"),
    "selector": (SMALL + '[[nodes]]\nwho = "king"\n', r"nodes\[0\].who: 'king' selects nobody"),
    "no such node": (SMALL + "[[nodes]]\nwho = 7\n", r"nodes\[0\].who: there is no node 7, they are 0 to 6"),
    "unknown fault": (SMALL + '[[faults]]\ndo = "melt"\n', r"'faults\[0\].do' must be one of kill, .*'melt'"),
    "unknown key of a fault": (SMALL + KILL + "why = 1\n", r"unknown key 'faults\[0\].why'"),
    "no moment": (SMALL + KILL + "who = 1\n", r"faults\[0\]: write either 'at' or 'at_s'"),
    "two moments": (SMALL + KILL + AT + "who = 1\nat_s = 1\n", r"faults\[0\]: write either 'at' or 'at_s'"),
    "moment": (SMALL + KILL + 'who = 1\nat = "noon"\n', r"faults\[0\].at: 'noon' is no moment"),
    "phase": (SMALL + KILL + 'who = 1\nat = "round 1 / tea"\n', r"faults\[0\].at: .*unknown phase 'tea'"),
    "after the end": (
        SMALL + KILL + 'who = 1\nat = "round 4"\n',
        r"faults\[0\].at: the network runs 3 rounds only",
    ),
    "number": (
        SMALL + KILL + AT + "who = 1\nfor_s = -1\n",
        r"'faults\[0\].for_s' must be a number from 0 to 86400, not -1",
    ),
    "no number": (SMALL + KILL + AT + "who = 1\nfor_s = true\n", r"'faults\[0\].for_s' must be a number"),
    "groups": (
        SMALL + '[[faults]]\ndo = "partition"\nfor_s = 1\ngroups = 1\n' + AT,
        r"'faults\[0\].groups' must be a list of lists",
    ),
    "sends": (
        SMALL + KILL + AT + 'who = 1\nsends = "READY"\n',
        r"'faults\[0\].sends' must be one of KEY_ADVERT",
    ),
    "sends at a second": (
        SMALL + KILL + 'who = 1\nat_s = 1\nsends = "REVEAL"\n',
        r"faults\[0\]: 'sends' needs 'at' and 'who'",
    ),
    "sends and later": (
        SMALL + KILL + AT + 'who = 1\nafter_s = 1\nsends = "REVEAL"\n',
        r"faults\[0\]: with 'sends' there is no 'after_s'",
    ),
    "for ever": (
        SMALL + KILL + AT + "who = 1\nevery_s = 1\n",
        r"faults\[0\]: 'every_s' and 'until_round' go together",
    ),
    "expect": (SMALL.replace("[network]", "expect = 3\n[network]"), "'expect' must be a table"),
    "unknown expectation": (SMALL + "[expect]\nfun = 1\n", "unknown key 'expect.fun'"),
    "ended": (SMALL + "[expect]\nended = 4\n", "'expect.ended' must be a number from 0 to 3"),
    "rounds": (
        SMALL + "[expect]\naccepted = [0]\n",
        "'expect.accepted' must be a list of rounds from 1 to 3",
    ),
    "both": (
        SMALL + "[expect]\naccepted = [1, 2]\naborted = [2]\n",
        "'expect.aborted': round 2 is to be accepted already",
    ),
    "by round": (SMALL + '[expect]\nverdicts = "TRUSTED"\n', "'expect.verdicts' must be a table of rounds"),
    "round": (
        SMALL + '[expect]\nverdicts = { one = "TRUSTED" }\n',
        "'expect.verdicts.one': a round is a number from 1 to 3",
    ),
    "verdict": (
        SMALL + '[expect]\nverdicts = { 1 = "FINE" }\n',
        "'expect.verdicts.1' must be one of TRUSTED",
    ),
    "verdicts": (SMALL + '[expect]\nverdicts = { 1 = ["TRUSTED"] }\n', "'expect.verdicts.1' must be one of"),
    "block": (SMALL + '[expect]\nblocks = { 1 = ["CHAIN"] }\n', "'expect.blocks.1' must be one of OPEN"),
    "reason": (SMALL + '[expect]\nreasons = { 1 = "BORED" }\n', "'expect.reasons.1' must be one of TOO_FEW"),
    "count": (SMALL + "[expect]\nsharers = { 1 = -1 }\n", "'expect.sharers.1' must be a number"),
    "votes": (
        SMALL + "[expect]\nvotes = { 1 = [0] }\n",
        "'expect.votes.1' must be a list of votes, 1 or -1",
    ),
    "paid": (SMALL + "[expect]\npaid = 3\n", "'expect.paid' must be a table of who = fault"),
    "fault paid for": (
        SMALL + '[expect]\npaid = { leader = "HUBRIS" }\n',
        "'expect.paid.leader' must be one of FORGED_AGGREGATE",
    ),
    "who paid": (SMALL + '[expect]\npaid = { god = "EQUIVOCATION" }\n', "expect.paid: 'god' selects nobody"),
    "unpaid": (SMALL + "[expect]\nunpaid = 9\n", "expect.unpaid: there is no node 9"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=r"^x\.toml: " + message):
        read(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: No such file"):
        load_scenario(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ScenarioError, match=r"bytes\.toml: .*decode"):
        load_scenario(tmp_path / "bytes.toml")


# -- who -------------------------------------------------------------------------------------------------

PARTS = Parts(
    nodes=7, proposers=(2, 5, 0, 1), aggregators=(6, 3, 4), voters=(3, 4), leader=5, running=(0, 2, 4)
)

SELECTED = {
    "node 6": (6,),
    "proposer": (2,),
    "proposer 1": (5,),
    "proposer 4": (),
    "aggregator": (6,),
    "aggregator 2": (4,),
    "voter 1": (4,),
    "leader": (5,),
    "proposers": (0, 1, 2, 5),
    "voters": (3, 4),
    "all": (0, 1, 2, 3, 4, 5, 6),
    "random 9": (0, 2, 4),
}


@pytest.mark.parametrize("text", SELECTED)
def test_selectors_select(text: str) -> None:
    selector = parse_selector(text)
    assert select([selector], PARTS, Random(1)) == SELECTED[text]
    assert parse_selector(str(selector)) == selector


def test_selectors_add_up_and_random_ones_are_drawn_among_those_that_run() -> None:
    chosen = select(map(parse_selector, (1, "voters", "proposer 0", "random 2")), PARTS, Random(3))
    assert set(chosen) >= {1, 2, 3, 4}
    assert chosen == tuple(sorted(set(chosen)))
    drawn = {select([parse_selector("random")], PARTS, Random(seed)) for seed in range(30)}
    assert drawn == {(0,), (2,), (4,)}


def test_before_a_round_nobody_leads() -> None:
    peers = [bytes([place]) * 32 for place in range(4)]
    roles = Roles(
        round=1, proposers=(peers[0], peers[2], peers[3]), aggregators=(peers[1],), voters=(peers[3],)
    )
    parts = parts_of_roles(roles, {peer: number for number, peer in enumerate(peers)})
    assert (parts.proposers, parts.aggregators, parts.voters) == ((0, 2, 3), (1,), (3,))
    assert select([parse_selector("leader")], parts, Random(0)) == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("king", "'king' selects nobody"),
        ("leader 2", "leader takes no number"),
        ("node", "which node"),
        (-1, "-1 selects nobody"),
        (True, "True selects nobody"),
        (1.5, "1.5 selects nobody"),
        ("proposer  1", "selects nobody"),
    ],
)
def test_selectors_that_select_nobody(wrong: object, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        parse_selector(wrong)


# -- when ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["round 1", "round 3 / share", "round 12 / challenge", "round 2 / advert"])
def test_moments_are_read_and_written(text: str) -> None:
    assert str(parse_place(text)) == text


def test_the_challenge_phase_is_that_of_the_ballot() -> None:
    assert parse_place("round 2 / challenge") == Place(2, Phase.BALLOT)


@pytest.mark.parametrize("text", ["", "round", "round 0", "round 1/vote", "round 1 / ballot", "Round 1"])
def test_words_that_are_no_moment(text: str) -> None:
    with pytest.raises(MomentError):
        parse_place(text)


# -- and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_survives_being_written(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert parse_scenario(to_toml(scenario), "again") == scenario


def test_drawn_scenarios_survive_being_written() -> None:
    for seed in range(DRAWN):
        scenario = draw_scenario(seed)
        assert parse_scenario(to_toml(scenario), f"seed {seed}") == scenario, f"seed {seed}"
