"""Federated training under gradient compression, every round through the real masked sum.

docs/PROTOCOL.md section 2. All parameters but the compression are those of the hardened profile. All nodes
propose in every round.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from attrs import frozen

from flocknode.founding import Plan, network_params
from flocknode.learning.loading import load_task
from flocknode.learning.task import Task, Weights
from flocknode.observe.nodelog import Evaluation
from flocknode.observe.report import pooled
from protocol.algebra import field as fp
from protocol.checkpoint import decode_checkpoint, initial_checkpoint
from protocol.codec import digest
from protocol.jobs import VerifyResult
from protocol.params import ProtocolParams, Sparsify
from protocol.secagg.contribute import compress, round_support
from protocol.secagg.encoding import FixedPoint, model_to_float, quantise
from protocol.secagg.interpolation import Interpolation, check_values
from protocol.secagg.sparsify import shared_support, topk_local
from protocol.secagg.verification import Verdict
from sim.bench.growth import median_seconds
from sim.bench.rehearsal import Float32Vec, Rehearsal, rehearse

Json = dict[str, Any]

MODES = (Sparsify.TOPK_LOCAL, Sparsify.SHARED_SUPPORT)
BITS = 20


class CompressionError(RuntimeError):
    """A round of training was not accepted: its figures would be those of something else."""


@frozen
class TrainingJob:
    """`nodes` train `task` for `rounds`, sending `permille` of the coordinates chosen by `mode`."""

    task: str
    nodes: int
    rounds: int
    mode: str
    permille: int
    seed: int


@frozen
class InterpolationJob:
    """The paper's interpolation (arbitrary points, groups of `group_size`) of `permille` of `d` values."""

    d: int
    permille: int
    group_size: int
    repeats: int


# -- training --------------------------------------------------------------------------------------


def train(job: TrainingJob) -> Json:
    """`accuracy` of the pooled test splits before the first round and after each; bytes of one contribution.

    `values`: the mean number of coordinates other than 0 in what a client sends before it is masked.
    Deterministic in the job. `CompressionError` where a round's sum is not trusted.
    """
    tasks = _tasks(job.task, job.nodes, job.seed)
    params = _params(job)
    weights = tasks[0].initial_weights(job.seed)
    blob = initial_checkpoint(params, weights)
    residuals: list[Float32Vec | None] = [None] * job.nodes
    accuracy, values = [_accuracy(tasks, weights)], []
    upload = commitment = 0
    for round_ in range(1, job.rounds + 1):
        rehearsal = _rehearsal(params, job, round_, blob)
        updates: dict[int, Float32Vec] = {}
        counts: dict[int, int] = {}
        for node, task in enumerate(tasks):
            fitted, counts[node], _ = task.fit(weights, {"seed": _training_seed(job, node), "round": round_})
            updates[node] = fitted - weights
        result = _masked_round(rehearsal, updates, counts, residuals)
        values.append(_values_sent(params, updates, residuals, rehearsal, blob))
        residuals = [rehearsal.contributions[node].residual for node in range(job.nodes)]
        upload = len(rehearsal.contributions[0].upload)
        commitment = len(rehearsal.contributions[0].commitment)
        blob = result.model
        weights = model_to_float(decode_checkpoint(params, blob).model)
        accuracy.append(_accuracy(tasks, weights))
    return {
        "accuracy": accuracy,
        "upload": upload,
        "commitment": commitment,
        "float32_update": 4 * params.dimension,
        "values": float(np.mean(values)),
    }


def _params(job: TrainingJob) -> ProtocolParams:
    plan = Plan(
        task=job.task,
        addresses=("",) * (job.nodes + 1),
        proposers=job.nodes,
        settings={"sparsify": Sparsify(job.mode), "sparsify_permille": job.permille},
    )
    return network_params(plan)


@lru_cache(maxsize=2)
def _tasks(name: str, nodes: int, seed: int) -> tuple[Task, ...]:
    return tuple(load_task(name, node, nodes, seed) for node in range(nodes))


def _training_seed(job: TrainingJob, node: int) -> int:
    """The same for every compression, so that curves differ by that alone."""
    return int.from_bytes(digest("compression", job.seed.to_bytes(8, "big"), bytes((node,)))[:4], "big")


def _rehearsal(params: ProtocolParams, job: TrainingJob, round_: int, blob: bytes) -> Rehearsal:
    """A round that starts from the model in `blob`, with its last aggregate."""
    seed = digest("compression round", job.seed.to_bytes(8, "big"), round_.to_bytes(8, "big"))
    rehearsal = rehearse(params, job.nodes, seed)
    rehearsal.model_digest = rehearsal.put(blob)
    return rehearsal


def _masked_round(
    rehearsal: Rehearsal,
    updates: dict[int, Float32Vec],
    counts: dict[int, int],
    residuals: list[Float32Vec | None],
) -> VerifyResult:
    """Deal, contribute with residuals, aggregate, verify both equations."""
    everyone = range(len(updates))
    for node in everyone:
        rehearsal.deal(node)
    rehearsal.pin_sharers(everyone)
    for node in everyone:
        rehearsal.contribute(node, updates[node], counts[node], residuals[node])
    claim = rehearsal.aggregate(everyone)
    result = rehearsal.verify(rehearsal.verify_job(everyone, claim))
    if result.verdict is not Verdict.TRUSTED:
        raise CompressionError(f"an honest round reads {result.verdict.name}")
    return result


def _values_sent(
    params: ProtocolParams,
    updates: dict[int, Float32Vec],
    residuals: list[Float32Vec | None],
    rehearsal: Rehearsal,
    blob: bytes,
) -> float:
    """Coordinates other than 0 in one client's compressed update, the mean over clients."""
    support = None
    if params.sparsify is Sparsify.SHARED_SUPPORT:
        support = round_support(rehearsal.context, decode_checkpoint(params, blob).last_aggregate)
    sent = [compress(params, updates[node], residuals[node], support)[0] for node in updates]
    return float(np.mean([np.count_nonzero(vector) for vector in sent]))


def _accuracy(tasks: tuple[Task, ...], weights: Weights) -> float:
    evaluations = []
    for task in tasks:
        _, examples, metrics = task.evaluate(weights, {"split": "test"})
        evaluations.append(Evaluation(examples, metrics))
    return pooled(evaluations)["accuracy"]


# -- interpolation ---------------------------------------------------------------------------------


def time_interpolation(job: InterpolationJob) -> Json:
    """Seconds of one client's Lagrange interpolation.

    `plain`: of the top values without masks, as in the paper's algorithm 2, whose cost follows the values
    that are not 0; `masked`: of the same vector under a mask; `shared`: of a shared support under a mask,
    which is that much shorter.
    """
    words = fp.expand(digest("interpolation update"), b"update", job.d)
    update = (words.astype(np.float32) / np.float32(fp.P) - np.float32(0.5)) * np.float32(0.1)
    sparse, _ = topk_local(update, np.zeros_like(update), job.permille)
    support = shared_support(digest("interpolation beacon"), None, job.d, job.permille)
    plain = _field_values(sparse)
    return {
        "plain": _interpolation_seconds(plain, job),
        "masked": _interpolation_seconds(_under_mask(plain), job),
        "shared": _interpolation_seconds(_under_mask(_field_values(update[support])), job),
    }


def _field_values(update: Float32Vec) -> fp.FieldVec:
    """Quantised so that 0 stays 0: stochastic rounding moves no integer."""
    fixed = FixedPoint(bits=BITS, clip=1.0)
    return fp.from_signed(quantise(update, 1, 1, fixed, digest("interpolation rounding")))


def _under_mask(values: fp.FieldVec) -> fp.FieldVec:
    return fp.add(values, fp.expand(digest("interpolation mask"), b"pair", values.size))


def _interpolation_seconds(values: fp.FieldVec, job: InterpolationJob) -> float:
    scheme = Interpolation("arbitrary", job.group_size)
    points = scheme.points_from(digest("interpolation points"), values.size)
    checks = check_values(digest("interpolation checks"), scheme.groups(values.size))
    return median_seconds(lambda: scheme.interpolate(values, checks, points), job.repeats)
