"""Vectors of the field layer: the PRG, the transforms, Shamir's scheme (docs/PROTOCOL.md sections 2 to 4)."""

from __future__ import annotations

import numpy as np

from flocknode.vectors.values import Document, example, in_short, numbers
from protocol.algebra import field as fp
from protocol.algebra import ntt, shamir


def prg() -> Document:
    """`expand(seed, label, n)`, and the HKDF label's role: one seed, many streams."""
    seeds = [bytes(32), bytes(range(32)), example("prg")]
    short = [
        {"seed": seed.hex(), "label": label.hex(), "elements": numbers(fp.expand(seed, label, 12))}
        for seed in seeds
        for label in (b"pair", b"self", b"check", b"", b"commit" + bytes(72))
    ]
    # Some hundred words are rejected on the way through these.
    long = [
        {"seed": seed.hex(), "label": b"pair".hex(), "expansion": in_short(fp.expand(seed, b"pair", 20_000))}
        for seed in seeds
    ]
    return {"expand": short, "expand_long": long}


def transforms() -> Document:
    """NTT and negacyclic NTT of orders 1 to 16, and of 2048, by `out[j] = sum_i x[i] w^(ij)`."""
    cases, rings = [], []
    for order in (1, 2, 4, 8, 16):
        x = fp.expand(example("ntt", order), b"x", order)
        root = ntt.root_of_unity(order)
        cases.append({"root": root, "x": numbers(x), "ntt": numbers(ntt.ntt(x))})
        twist = ntt.root_of_unity(2 * order)
        rings.append({"root_2n": twist, "x": numbers(x), "negacyclic_ntt": numbers(ntt.negacyclic_ntt(x))})
    x = fp.expand(example("ntt", 2048), b"x", 2048)
    seed = example("ntt", 2048).hex()
    large = [
        {"seed": seed, "label": b"x".hex(), "ntt": in_short(ntt.ntt(x))},
        {"seed": seed, "label": b"x".hex(), "negacyclic_ntt": in_short(ntt.negacyclic_ntt(x))},
    ]
    return {"ntt": cases, "negacyclic_ntt": rings, "order_2048": large}


def sharing() -> Document:
    """Limbs of a secret, its shares for given coefficients, and what any `threshold` of them give back."""
    secrets = [bytes(32), b"\xff" * 32, example("secret")]
    limbs = [{"secret": secret.hex(), "limbs": numbers(shamir.to_limbs(secret))} for secret in secrets]
    cases = []
    for number, (threshold, holders) in enumerate([(1, 1), (3, 3), (3, 4), (5, 7)]):
        secret, seed = example("secret", number), example("coefficients", number)
        shares = shamir.split(secret, threshold, holders, seed)
        last = range(holders - threshold, holders)
        assert shamir.recover(list(last), shares[list(last)], threshold) == secret
        cases.append(
            {
                "secret": secret.hex(),
                "threshold": threshold,
                "coefficient_seed": seed.hex(),
                "shares_by_holder": [fp.to_bytes(np.ascontiguousarray(row)).hex() for row in shares],
            }
        )
    return {"limbs": limbs, "split": cases}
