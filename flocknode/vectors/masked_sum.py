"""Vectors of what happens to an update: encoding, masks, interpolation, commitments (sections 2, 4 and 5)."""

from __future__ import annotations

import numpy as np

from flocknode.vectors.values import Case, Document, example, floats, in_short, numbers
from protocol.algebra import field as fp
from protocol.secagg import commitment, masking, sparsify
from protocol.secagg.commitment import Commitment, LatticeCommitment, SingularCommitment
from protocol.secagg.encoding import FixedPoint, apply_aggregate, model_from_float, quantise, value_bits
from protocol.secagg.interpolation import Interpolation, PointLayout, check_values

ROUND = 7
NETWORK, BEACON, Z_ROOT = example("network"), example("beacon"), example("z root")


def encoding() -> Document:
    """Widths, quantised updates, and the model that a sum leads to."""
    widths = [{"proposers": n, "value_bits": value_bits(n)} for n in (1, 3, 4, 100, 128, 129, 1024)]
    update = np.array([0.0, 1.0, -1.0, 0.1, -0.1, 3.5, -3.5, 1e-6, -1e-6, 0.49999997], dtype=np.float32)
    quantised = []
    for bits, clip, weight, max_weight in [(20, 1.0, 1, 1), (20, 1.0, 5, 8), (13, 2.5, 65_536, 65_536)]:
        fixed, seed = FixedPoint(bits=bits, clip=clip), example("rounding", bits)
        quantised.append(
            {
                "update_f32": floats(update),
                "bits": bits,
                "clip": str(clip),
                "fraction_bits": fixed.fraction_bits,
                "weight": weight,
                "max_weight": max_weight,
                "rounding_seed": seed.hex(),
                "quantised": numbers(quantise(update, weight, max_weight, fixed, seed)),
            }
        )
    model = model_from_float(np.array([0.0, 0.5, -0.5, 1.25, -1024.0], dtype=np.float32))
    aggregate = np.array([1, -1, 524_287, -524_288, 7], dtype=np.int64)
    applied = [
        {
            "model": numbers(model),
            "aggregate": numbers(aggregate),
            "fraction_bits": fixed.fraction_bits,
            "max_weight": max_weight,
            "total_weight": total_weight,
            "next_model": numbers(apply_aggregate(model, aggregate, fixed, max_weight, total_weight)),
        }
        for fixed in (FixedPoint(bits=20, clip=1.0), FixedPoint(bits=13, clip=2.5))
        for max_weight, total_weight in ((1, 3), (8, 13), (65_536, 100_003))
    ]
    last = np.array([5, 0, -9, 9, 1, 0, 0, -2, 0, 3], dtype=np.int64)
    support = [
        {
            "beacon": BEACON.hex(),
            "last_aggregate": None if before is None else numbers(before),
            "permille": permille,
            "support": numbers(sparsify.shared_support(BEACON, before, 10, permille)),
        }
        for before in (None, last)
        for permille in (200, 500)
    ]
    return {
        "value_bits": widths,
        "quantise": quantised,
        "apply_aggregate": applied,
        "shared_support": support,
    }


def masks() -> Document:
    """Pair seeds, and masked values of three proposers, of whom the last drops out."""
    peers = [example("peer", i) for i in range(3)]
    publics = [example("public", i) for i in range(3)]
    shared = example("shared secret")
    seed = masking.pair_seed(shared, NETWORK, ROUND, publics[0], publics[1], peers[0], peers[1])
    agreed: list[Case] = [
        {
            "shared_secret": shared.hex(),
            "network": NETWORK.hex(),
            "round": ROUND,
            "peers": [peers[0].hex(), peers[1].hex()],
            "mask_publics": [publics[0].hex(), publics[1].hex()],
            "pair_seed": seed.hex(),
        }
    ]
    values = [fp.expand(example("value", i), b"x", 6) for i in range(3)]
    self_seeds = [example("self", i) for i in range(3)]

    def pair(i: int, j: int) -> bytes:
        return example("pair", 10 * min(i, j) + max(i, j))

    masked = []
    for i in range(3):
        pairs = {j: pair(i, j) for j in range(3) if j != i}
        masked.append(masking.mask(values[i], i, pairs, self_seeds[i]))
    total = fp.add(masked[0], masked[1])
    dangling = [(0, 2, pair(0, 2)), (1, 2, pair(1, 2))]
    plain = masking.unmask(total, self_seeds[:2], dangling)
    assert np.array_equal(plain, fp.add(values[0], values[1]))
    sums: list[Case] = [
        {
            "values": [numbers(row) for row in values],
            "self_seeds": [seed.hex() for seed in self_seeds],
            "pair_seeds_01_02_12": [pair(0, 1).hex(), pair(0, 2).hex(), pair(1, 2).hex()],
            "masked": [numbers(row) for row in masked],
            "sum_of_0_and_1_masked": numbers(total),
            "sum_of_0_and_1": numbers(plain),
        }
    ]
    graph = [
        {
            "proposers": n,
            "beacon": BEACON.hex(),
            "degree": degree,
            "neighbours_of_0": masking.neighbours(0, n, BEACON, degree),
        }
        for n, degree in ((5, None), (12, 4), (300, masking.graph_degree(300)))
    ]
    return {"pair_seed": agreed, "masked_sum": sums, "neighbours": graph}


def interpolation() -> Document:
    """B_i of a short vector in both layouts, group by group; the last group is padded."""
    cases = []
    layouts: list[tuple[PointLayout, int, int]] = [
        ("roots", 4, 10),
        ("arbitrary", 3, 7),
        ("roots", 1024, 1500),
    ]
    for layout, size, length in layouts:
        scheme = Interpolation(layout, size)
        values = fp.expand(example("masked", size), b"x", length)
        check_seed = example("check seed", size)
        checks = check_values(check_seed, scheme.groups(length))
        points = scheme.points_from(Z_ROOT, length)
        coefficients = scheme.interpolate(values, checks, points)
        assert np.array_equal(scheme.evaluate(coefficients, length, points), values)
        assert np.array_equal(scheme.evaluate_hidden(coefficients, points), checks)
        small = length <= 10
        cases.append(
            {
                "points": layout,
                "group_size": size,
                "length": length,
                "values_seed": example("masked", size).hex(),
                "values_label": b"x".hex(),
                "values": numbers(values) if small else None,
                "check_seed": check_seed.hex(),
                "check_values": numbers(checks),
                "z_root": Z_ROOT.hex(),
                "hidden_points": numbers(points.hidden),
                "shown_points": None if points.shown is None else numbers(points.shown),
                "coefficients": numbers(coefficients) if small else in_short(coefficients),
            }
        )
    return {"interpolate": cases}


def _committed(scheme: Commitment, name: str) -> Case:
    """One contribution: the update, its opening randomness, the commitment in the clear and blinded."""
    update = (fp.expand(example("update"), b"x", scheme.length) % 2**20).astype(np.int64) - 2**19
    opening = scheme.opening_randomness(example("opening"))
    committed = scheme.commit(np.concatenate([update, opening]))
    check_seed, peer = example("check seed"), example("peer")
    blinded = commitment.blind(committed, check_seed, NETWORK, ROUND, peer)
    challenge = scheme.challenge([example("challenge", 0), example("challenge", 1)])
    return {
        "scheme": name,
        "length": scheme.length,
        "update_seed": example("update").hex(),
        "update_rule": "expand(seed, 'x', length) mod 2^20, minus 2^19",
        "opening_seed": example("opening").hex(),
        "opening_first": numbers(opening)[:8],
        "commitment": in_short(committed),
        "check_seed": check_seed.hex(),
        "network": NETWORK.hex(),
        "round": ROUND,
        "peer": peer.hex(),
        "blinded": in_short(blinded),
        "challenge_seeds": [example("challenge", i).hex() for i in range(2)],
        "challenge": None if challenge is None else in_short(challenge),
    }


def commitments() -> Document:
    """Both schemes; the lattice's key follows from the network id."""
    lattice = [
        {
            "network": NETWORK.hex(),
            **_committed(LatticeCommitment(NETWORK, length, 20), "lattice"),
            "bits": 20,
        }
        for length in (5, 3000)
    ]
    singular = []
    for length, size, rank in ((10, 4, 2), (100, 16, 4)):
        scheme = SingularCommitment(example("u"), length, group_size=size, rank=rank)
        matrix = numbers(scheme.matrix()) if size == 4 else in_short(scheme.matrix())
        singular.append(
            {
                "u_seed": example("u").hex(),
                "group_size": size,
                "rank": rank,
                "u": matrix,
                **_committed(scheme, "singular"),
            }
        )
    return {"lattice": lattice, "singular": singular}
