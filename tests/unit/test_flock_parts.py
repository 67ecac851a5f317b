"""The parts of FLock's experiments: batched training, aggregation, pictures, the contract, adaptive gamma."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from flocknode.learning.datasets import load_dataset
from flocknode.learning.poisoning import PoisonedTask
from flocknode.learning.task import FitSettings
from flocknode.learning.trainer import local_task
from protocol.ledger.adaptive import AdaptiveGamma, Tally, tally_votes
from protocol.ledger.economy import EconomyError, settle_vote
from protocol.params import MICRO
from sim.figures.flock import chapter
from sim.figures.flock.aggregation import (
    RULES,
    AggregationError,
    coordinate_median,
    federated_average,
    krum,
    multi_krum,
    trimmed_mean,
)
from sim.figures.flock.contract import ADAPTIVE, found_contract
from sim.figures.flock.experiment import FlockRun, execute, malicious_clients
from sim.figures.flock.images import FINDINGS, SIDE, ImageError, load_images
from sim.figures.flock.networks import dimension
from sim.figures.flock.problem import IMAGES, LENDING_CLUB, MNIST, load_problem
from sim.figures.flock.training import Trainer, initial_weights

CLIENTS = 50

# -- training --------------------------------------------------------------------------------------


def test_batched_training_is_that_of_each_node() -> None:
    problem = load_problem(LENDING_CLUB, CLIENTS, 1)
    data, trainer, weights = load_dataset(LENDING_CLUB), Trainer(problem), initial_weights(problem, 1)
    clients, flipped = [3, 11, 12, 40], [False, True, False, True]
    stack = trainer.fit(weights, clients, flipped, [70 + client for client in clients], round_=5)
    for row, client, poison in zip(stack, clients, flipped, strict=True):
        task = local_task(data, problem.splits[client])
        config = {"seed": 70 + client, "round": 5}
        fitted, _, _ = (PoisonedTask(task) if poison else task).fit(weights, config)
        np.testing.assert_allclose(row, fitted, rtol=0, atol=1e-6)
        settings = FitSettings.read(config, task.defaults)
        assert settings.learning_rate == problem.defaults.learning_rate


def test_batched_losses_are_those_of_each_node() -> None:
    problem = load_problem(LENDING_CLUB, CLIENTS, 1)
    data, trainer = load_dataset(LENDING_CLUB), Trainer(problem)
    models = np.stack([initial_weights(problem, seed) for seed in (1, 2)])
    voters = [0, 7, 49]
    losses = trainer.mean_losses(models, [problem.splits[voter].validation for voter in voters])
    for model, row in zip(models, losses, strict=True):
        for voter, loss in zip(voters, row, strict=True):
            expected, _, scores = local_task(data, problem.splits[voter]).evaluate(model, {})
            assert loss == pytest.approx(expected, abs=1e-6)
            told = trainer.scores(model, problem.splits[voter].validation)
            assert told["accuracy"] == scores["accuracy"]
            assert told["balanced_accuracy"] == scores["balanced_accuracy"]
            if "auroc" in scores:
                assert told["auroc"] == pytest.approx(scores["auroc"])


def test_unequal_shards_train_together_as_they_do_alone() -> None:
    problem = load_problem(MNIST, CLIENTS, 2)
    trainer, weights = Trainer(problem), initial_weights(problem, 2)
    sizes = np.array([len(split.train) for split in problem.splits])
    clients = [int(sizes.argmin()), int(sizes.argmax()), 20]
    assert sizes.max() > 2 * sizes.min()
    together = trainer.fit(weights, clients, [False, True, False], [1, 2, 3], 1)
    for row, client, poison, seed in zip(together, clients, [False, True, False], [1, 2, 3], strict=True):
        (alone,) = trainer.fit(weights, [client], [poison], [seed], 1)
        np.testing.assert_allclose(row, alone, rtol=0, atol=1e-5)


def test_who_diverges_proposes_nothing() -> None:
    problem = load_problem(LENDING_CLUB, CLIENTS, 1)
    wild = evolve(problem, defaults=evolve(problem.defaults, learning_rate=1e38))
    weights = initial_weights(problem, 1)
    (row,) = Trainer(wild).fit(weights, [0], [False], [1], 1)
    assert np.array_equal(row, weights)


# -- aggregation, against what the definitions say ------------------------------------------------

UPDATES = np.random.default_rng(5).normal(size=(9, 6))
COUNTS = np.arange(1, 10)
F = 2


def brute_krum_scores() -> list[float]:
    scores = []
    for i in range(len(UPDATES)):
        distances = [float(((UPDATES[i] - UPDATES[j]) ** 2).sum()) for j in range(len(UPDATES)) if j != i]
        scores.append(min(sum(chosen) for chosen in combinations(distances, len(UPDATES) - F - 2)))
    return scores


def test_the_average_weighs_by_samples() -> None:
    repeated = np.repeat(UPDATES, COUNTS, axis=0)
    np.testing.assert_allclose(federated_average(UPDATES, COUNTS, F), repeated.mean(axis=0))


def test_median_and_trimmed_mean_by_coordinate() -> None:
    columns = [sorted(column) for column in UPDATES.T.tolist()]
    np.testing.assert_allclose(coordinate_median(UPDATES, COUNTS, F), [c[4] for c in columns])
    np.testing.assert_allclose(trimmed_mean(UPDATES, COUNTS, F), [sum(c[F:-F]) / 5 for c in columns])
    np.testing.assert_allclose(trimmed_mean(UPDATES, COUNTS, 0), UPDATES.mean(axis=0))


def test_krum_against_all_choices_of_neighbours() -> None:
    scores = brute_krum_scores()
    np.testing.assert_array_equal(krum(UPDATES, COUNTS, F), UPDATES[int(np.argmin(scores))])
    best = sorted(range(9), key=scores.__getitem__)[: 9 - F]
    np.testing.assert_allclose(multi_krum(UPDATES, COUNTS, F), UPDATES[best].mean(axis=0))


def test_robust_rules_shrug_off_a_few_wild_updates() -> None:
    wild = UPDATES.copy()
    wild[:F] = 1e6
    for name, rule in RULES.items():
        assert (np.abs(rule(wild, COUNTS, F)).max() < 10) == (name != "fedavg")


def test_too_many_malicious_proposals_are_refused() -> None:
    with pytest.raises(AggregationError, match="at most 3 malicious ones, not 4"):
        krum(UPDATES, COUNTS, 4)
    with pytest.raises(AggregationError, match="9 values cannot be trimmed by 5"):
        trimmed_mean(UPDATES, COUNTS, 5)


# -- pictures --------------------------------------------------------------------------------------

ROWS = (
    "Image Index,Finding Labels,Follow-up #",
    "a.png,Cardiomegaly|Effusion,0",
    "b.png,No Finding,1",
    "c.png,Hernia,2",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text("\n".join(ROWS) + "\n")
    for number, name in enumerate("abc"):
        Image.new("L", (90 + number, 120), 100 * number).save(tmp_path / f"{name}.png")
    return tmp_path


def replace_row(folder: Path, number: int, row: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([*ROWS[:number], row, *ROWS[number + 1 :]]) + "\n")
    return path


def test_pictures_are_read_with_their_findings(folder: Path) -> None:
    pictures = load_images(folder, folder / "labels.csv")
    assert pictures.pixels.shape == (3, SIDE * SIDE)
    assert pictures.pixels.dtype == np.float32
    np.testing.assert_allclose(pictures.pixels.mean(axis=1), [0, 100 / 255, 200 / 255], atol=1e-6)
    named = [[FINDINGS[k] for k in np.flatnonzero(row)] for row in pictures.findings]
    assert named == [["Cardiomegaly", "Effusion"], [], ["Hernia"]]


@pytest.mark.parametrize(
    ("number", "row", "told"),
    [
        (0, "Image,Finding Labels", "no column 'Image Index'"),
        (0, "Image Index,Labels", "no column 'Finding Labels'"),
        (2, "b.png,Effusion|Cough", "line 3: unknown label 'Cough'"),
        (2, "b.png,No Finding|Hernia", "line 3: unknown label 'No Finding'"),
        (2, "b.png", "line 3: 'b.png' is no file name with findings"),
        (2, "../b.png,Hernia", "line 3: '../b.png' is no file name"),
        (2, "a.png,Hernia", "line 3: a.png is listed twice"),
        (2, "d.png,Hernia", "d.png: listed, but there is no such picture"),
    ],
)
def test_bad_labels_are_named(folder: Path, number: int, row: str, told: str) -> None:
    labels = replace_row(folder, number, row)
    with pytest.raises(ImageError, match=told.replace(".", r"\.")):
        load_images(folder, labels)


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    for damaged in (b"", b"no picture", whole[:40], whole[:-30]):
        (folder / "b.png").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"b\.png: a damaged picture"):
            load_images(folder, folder / "labels.csv")
    with pytest.raises(ImageError, match=r"none\.csv: No such file"):
        load_images(folder, folder / "none.csv")
    (folder / "labels.csv").write_text(ROWS[0] + "\n")
    with pytest.raises(ImageError, match="no pictures are listed"):
        load_images(folder, folder / "labels.csv")
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(ImageError, match="not a CSV file"):
        load_images(folder, folder / "labels.csv")


def test_clients_learn_from_pictures_of_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [ROWS[0]]
    for number in range(80):
        bright = number % 2
        pixels = rng.integers(0, 100, (SIDE, SIDE)) + 150 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'Effusion' if bright else 'No Finding'},0")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows) + "\n")
    run = FlockRun(
        task=IMAGES,
        rule="fedavg",
        malicious_percent=0,
        seed=1,
        rounds=6,
        clients=8,
        images=str(tmp_path),
        labels=str(labels),
    )
    assert execute(run)["scores"][-1]["auroc"] > 0.9


# -- the contract ----------------------------------------------------------------------------------


def test_settlement_eviction_and_sortition_are_the_ledgers() -> None:
    contract = found_contract(12, seed=3, dimension=1, gamma=16)
    for round_ in range(12):
        if contract.is_over:
            break
        votes = dict.fromkeys(contract.voters, -1 if round_ % 3 else 1)
        by_peer = {contract.peers[client]: vote for client, vote in votes.items()}
        _, settlement = settle_vote(
            contract.state.stakes,
            [contract.peers[client] for client in contract.proposers],
            by_peer,
            16 * MICRO,
        )
        expected = settlement.applied(contract.state.stakes)
        after = contract.after_round(votes)
        assert after.state.stakes == expected
        assert after.state.supply_units == contract.state.supply_units
        assert after.is_active == [units >= 8 * MICRO for units in after.stakes_units]
        assert all(after.is_active[client] for client in after.proposers)
        contract = after
    assert not all(contract.is_active)


def test_without_votes_nothing_moves_but_the_roles() -> None:
    contract = found_contract(CLIENTS, seed=1, dimension=1, gamma=8)
    after = contract.after_round(None)
    assert after.stakes_units == contract.stakes_units == [64 * MICRO] * CLIENTS
    assert (len(after.proposers), len(after.voters)) == (25, 12)
    assert after.proposers != contract.proposers


# -- the adaptive gamma ----------------------------------------------------------------------------

RULE = AdaptiveGamma()
SEATS = 12


def gamma(past: list[Tally], winning: int) -> int:
    return RULE.gamma_units(past, Tally(winning, SEATS))


def test_gamma_grows_with_the_margin() -> None:
    past = [Tally(9, SEATS)] * 20
    gammas = [gamma(past, winning) for winning in range(6, 13)]
    assert gammas == sorted(gammas)
    assert gammas[0] == RULE.lowest_units
    assert gammas[-1] == RULE.ceiling_units(past)


def test_a_clear_verdict_costs_more_while_votes_are_split() -> None:
    calm, torn = [Tally(12, SEATS)] * 20, [Tally(6, SEATS)] * 20
    assert gamma(calm, 12) == RULE.calm_units
    assert RULE.calm_units < gamma(torn, 12) <= RULE.highest_units
    assert gamma(calm, 7) == gamma(torn, 7)


def test_gamma_by_the_formula_in_rationals() -> None:
    # Recent margin (8 * 1/4 + 2 * 0.3) / 10 = 0.26, so the ceiling is 8 + 1 * 0.48 = 8.48 tokens.
    past = [Tally(10, 16)] * 8
    assert RULE.ceiling_units(past) == 8_480_000
    assert RULE.gamma_units(past, Tally(9, 16)) == 5 * MICRO
    assert RULE.gamma_units(past, Tally(16, 16)) == 8_480_000
    # Only the last `window` rounds count.
    assert RULE.ceiling_units([Tally(0, 16)] * 99 + past) == 8_480_000


def test_no_member_moves_gamma_far() -> None:
    slack = RULE.slope_units // 100  # thousandths are rounded down
    for losing in range(7):
        past, swayed = [Tally(SEATS - losing, SEATS)] * 8, [Tally(SEATS - losing - 1, SEATS)] * 8
        # A member that has a seat in every round of the window.
        moved = RULE.ceiling_units(swayed) - RULE.ceiling_units(past)
        assert 0 <= moved <= 4 * (RULE.highest_units - RULE.calm_units) // SEATS + slack
        for winning in range(1, SEATS + 1):
            moved = gamma(past, winning) - gamma(past, winning - 1)
            assert 0 <= moved <= 2 * RULE.slope_units // SEATS + slack


def test_abstaining_makes_no_verdict_clearer() -> None:
    voted = {bytes([i]): 1 if i < 7 else -1 for i in range(SEATS)}
    silent = {peer: vote for peer, vote in voted.items() if vote == 1}
    assert tally_votes(voted, SEATS) == tally_votes(silent, SEATS) == Tally(7, SEATS)
    assert tally_votes({b"a": 1, b"b": 0, b"c": -1, b"d": -1}, 4) == Tally(2, 4)
    assert tally_votes({b"a": 1, b"c": -1}, 2) == Tally(1, 2)
    assert Tally(1, 4).margin_permille == 0


def test_what_no_gamma_follows_from_is_refused() -> None:
    with pytest.raises(EconomyError, match="2 votes of 1 voters"):
        tally_votes({b"a": 1, b"b": 1}, 1)
    with pytest.raises(EconomyError, match="0 votes of 0 voters"):
        tally_votes({}, 0)
    with pytest.raises(EconomyError, match="not ascending"):
        AdaptiveGamma(lowest_units=2, calm_units=1)
    with pytest.raises(ValueError, match="window"):
        AdaptiveGamma(window=0)


# -- a run -----------------------------------------------------------------------------------------


def test_a_run_repeats_and_keeps_its_books() -> None:
    run = FlockRun(
        task=LENDING_CLUB, rule="vote", malicious_percent=30, seed=2, rounds=12, gamma=ADAPTIVE, clients=20
    )
    result = execute(run)
    assert result == execute(run)
    rounds = len(result["accepted"])
    assert rounds <= 12
    for name in ("gamma", "spoiled", "mistaken", "slashed_honest", "paid_malicious", "voters"):
        assert len(result[name]) == rounds
    for name in ("scores", "tokens_honest", "tokens_malicious", "alive_honest", "alive_malicious"):
        assert len(result[name]) == 13
    assert len(malicious_clients(run)) == len(result["survival_malicious"]) == 6
    alive = sum(result["alive_malicious"][:12])
    assert alive == pytest.approx(np.mean(result["survival_malicious"]))
    assert all(1 <= gamma <= 16 for gamma in result["gamma"])


def test_a_run_depends_on_nothing_that_its_stamp_leaves_out() -> None:
    folder = Path(chapter.__file__).parent
    imported = {
        node.module.removeprefix("sim.figures.flock.")
        for name in chapter.RUN_MODULES
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sim.figures.flock.")
    }
    assert imported | {"experiment"} == set(chapter.RUN_MODULES)


def test_dimensions_are_those_of_the_parameters() -> None:
    problem = load_problem(MNIST, CLIENTS, 2)
    assert len(initial_weights(problem, 1)) == dimension(problem.network) == 4266
