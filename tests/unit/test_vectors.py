"""The vector files are what the code makes, and say what independent definitions say."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal, getcontext
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flocknode.vectors import BUILDERS, write_vectors
from protocol.codec import decode, encode
from protocol.ledger.block import StoredBlock, decode_block
from protocol.ledger.chain import Chain
from protocol.ledger.state import LedgerState
from protocol.messages import Certificate, VoteOpening
from protocol.params import Genesis

STORED = Path(__file__).parent.parent / "vectors"
P = 2**31 - 2**24 + 1


@cache
def document(name: str) -> Mapping[str, list[dict[str, Any]]]:
    loaded: Mapping[str, list[dict[str, Any]]] = json.loads((STORED / name).read_text())
    return loaded


def sha256_domain(domain: bytes, *parts: bytes) -> bytes:
    """The digest of section 8, spelled out."""
    whole = b"".join(len(part).to_bytes(8, "big") + part for part in (domain, *parts))
    return hashlib.sha256(whole).digest()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_vectors(tmp_path_factory.mktemp("vectors") / "deep" / "directory")


def test_the_stored_files_are_what_the_code_writes(written: list[Path]) -> None:
    assert [path.name for path in written] == list(BUILDERS)
    assert sorted(path.name for path in STORED.iterdir()) == sorted(BUILDERS)
    for path in written:
        assert path.read_bytes() == (STORED / path.name).read_bytes(), path.name


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in STORED.iterdir()) < 300_000


def test_the_round_does_not_depend_on_the_hash_seed(written: list[Path]) -> None:
    code = (
        "from flocknode.vectors import rehearsal, values; "
        "print(values.render(rehearsal.whole_round()), end='')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found == (STORED / "round.json").read_text()


# -- by definition -----------------------------------------------------------------------------------


def expand(seed: bytes, label: bytes, count: int) -> list[int]:
    """Section 2 in the words of another library: HKDF, AES-256-CTR, 31-bit words below p."""
    key = HKDF(SHA256(), 32, None, label).derive(seed)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count + 64))
    words = (int.from_bytes(stream[i : i + 4], "little") & 0x7FFFFFFF for i in range(0, len(stream), 4))
    return [word for word in words if word < P][:count]


def test_prg() -> None:
    for case in document("prg.json")["expand"]:
        found = expand(bytes.fromhex(case["seed"]), bytes.fromhex(case["label"]), len(case["elements"]))
        assert found == case["elements"]


def test_adaptive_gammas() -> None:
    """Section 6, by its own lines."""

    def margin(entry: list[int]) -> int:
        return max(0, 1000 * (2 * entry[0] - entry[1]) // entry[1])

    for case in document("gamma.json")["adaptive_gamma"]:
        rule, recent = case["rule"], case["recent"][-case["rule"]["window"] :]
        margins = sum(map(margin, recent)) + rule["prior_margin_permille"] * rule["prior_rounds"]
        split = max(0, 1000 - 2 * margins // (len(recent) + rule["prior_rounds"]))
        ceiling = rule["calm_units"] + (rule["highest_units"] - rule["calm_units"]) * split // 1000
        wanted = max(rule["lowest_units"], rule["slope_units"] * margin(case["tally"]) // 1000)
        assert case["gamma_units"] == min(ceiling, wanted)
        assert case["kept"] == [*case["recent"], case["tally"]][-rule["window"] :]
    for case in document("gamma.json")["genesis"]:
        genesis = bytes.fromhex(case["genesis"])
        assert Genesis.from_bytes(genesis).network.hex() == case["network"]
        assert sha256_domain(b"genesis", genesis).hex() == case["network"]
        assert sha256_domain(b"state", bytes.fromhex(case["state"])).hex() == case["state_root"]


def test_training_states() -> None:
    """The rule of docs/PROTOCOL.md section 3.9, worked out here a second time."""
    for course in document("pace.json")["training"]:
        rule, stale, last = course["rule"], 0, course["rule"]["rounds"]
        for ended, ((judged, better, done), state) in enumerate(
            zip(course["ends"], course["states"], strict=False), 1
        ):
            stale = stale if not judged else 0 if better else stale + 1
            rest = 1 if last and ended >= last else 3 if rule["heeds_done"] and done else 0
            if not rest and rule["patience"] and stale >= rule["patience"]:
                rest = 2
            assert (state["stale"], state["rest"], state["last_round"]) == (stale, rest, last)
        ended, end = len(course["states"]), course["states"][-1]
        for funded in course["funded"]:
            paid = funded["units"] // rule["resume_units"] if rule["resume_units"] else 0
            wakes = bool(end["rest"]) and paid > 0
            found = funded["training"]
            assert found["paid"] is wakes
            assert found["rest"] == (0 if wakes else end["rest"])
            assert found["last_round"] == (ended + paid if wakes else end["last_round"])
    for case in document("pace.json")["genesis"]:
        genesis = Genesis.from_bytes(bytes.fromhex(case["genesis"]))
        assert genesis.network.hex() == case["network"]
        assert genesis.params.pace is not None
        assert encode(genesis).hex() == case["genesis"]
        state = decode(LedgerState, bytes.fromhex(case["state"]), 1 << 20)
        assert state.root.hex() == case["state_root"]


def test_judgements() -> None:
    """Section 6, by its own lines, with decimals of 60 digits in the place of fractions."""
    getcontext().prec = 60

    def number(text: str) -> Decimal:
        return Decimal(float.fromhex(text))

    def worse(case: Any, reference: str, largest: Decimal) -> Decimal:
        bound = Decimal(1 << 20)
        if not isfinite(float.fromhex(reference)):
            return -bound
        scale = max(abs(number(reference)), largest * case["rule"]["floor_permille"] / 1000)
        difference = number(case["candidate"]) - number(reference)
        if scale == 0:
            return difference.compare(Decimal(0)) * bound
        return max(-bound, min(bound, difference / scale))

    for case in document("judgement.json")["votes"]:
        current, candidate, best = case["current"], case["candidate"], case["best"]
        found = case["vote"], case["change"], case["improves"]
        if "nan" in (current,) or candidate is None:
            assert found == (0, 0, False)
            continue
        if candidate in ("inf", "nan"):
            assert found == (-1, 16, False)
            continue
        seen = [abs(number(x)) for x in (case["largest"], current, best) if x not in ("inf", "nan", None)]
        tolerance = Decimal(case["rule"]["tolerance_permille"]) / 1000
        by = worse(case, current, max(seen))
        if best is not None and by >= -tolerance:
            by = max(by, worse(case, best, max(seen)))
        changes = [number(change) for change in case["changes"]]
        unit = Decimal("0.5")
        if len(changes) >= 4:
            mean = sum(changes) / len(changes)
            unit = mean + 2 * (sum((x - mean) ** 2 for x in changes) / len(changes)).sqrt()
        unit = max(tolerance, unit)
        step = next((k for k in range(16) if by**2 <= 2**k * unit**2), 16)
        assert found[:2] == (1 if by <= tolerance else -1, step if by > 0 else -step)
        assert found[2] == (best is not None and float.fromhex(candidate) < float.fromhex(best))
    for case in document("judgement.json")["prices"]:
        rule, gamma, ordered = case["rule"], case["gamma_units"], sorted(case["changes"])
        assert case["grade"] == ordered[(len(ordered) - 1) // 2]
        span = rule["full_step"] - rule["free_step"]
        above = max(0, min(span, case["grade"] - rule["free_step"]))
        patience = rule["patience"]
        whole = span * (patience + case["age"]) * rule["strikes"] * rule["forgive"]
        assert case["member_units"] == gamma * above * patience * case["alert"] // whole
        clear = len(ordered) - 1 >= 3
        assert case["contrary_units"] == (gamma * rule["contrary_permille"] // 1000 if clear else 0)
    for case in document("judgement.json")["genesis"]:
        genesis = Genesis.from_bytes(bytes.fromhex(case["genesis"]))
        assert genesis.network.hex() == case["network"]
        assert genesis.params.judgement is not None
        assert sha256_domain(b"state", bytes.fromhex(case["state"])).hex() == case["state_root"]
        opening = decode(VoteOpening, bytes.fromhex(case["opening"]), 64)
        assert (opening.vote, opening.change, opening.done) == (-1, 9, True)


def test_transforms() -> None:
    for case in document("ntt.json")["ntt"]:
        x, w = case["x"], case["root"]
        n = len(x)
        assert pow(w, n, P) == 1
        assert case["ntt"] == [sum(a * pow(w, i * j, P) for i, a in enumerate(x)) % P for j in range(n)]
    for case in document("ntt.json")["negacyclic_ntt"]:
        x, psi = case["x"], case["root_2n"]
        n = len(x)
        assert case["negacyclic_ntt"] == [
            sum(a * pow(psi, i * (2 * j + 1), P) for i, a in enumerate(x)) % P for j in range(n)
        ]


def test_shares_lie_on_the_polynomials_of_the_limbs() -> None:
    for case in document("shamir.json")["split"]:
        threshold = case["threshold"]
        secret = int.from_bytes(bytes.fromhex(case["secret"]), "little")
        random = expand(bytes.fromhex(case["coefficient_seed"]), b"shamir", 9 * (threshold - 1))
        for holder, share in enumerate(bytes.fromhex(text) for text in case["shares_by_holder"]):
            for limb in range(9):
                coefficients = [secret >> (30 * limb) & (2**30 - 1), *random[limb::9]]
                value = sum(c * (holder + 1) ** power for power, c in enumerate(coefficients)) % P
                assert value == int.from_bytes(share[4 * limb : 4 * limb + 4], "little")


def test_interpolation_goes_through_every_point() -> None:
    for case in document("interpolation.json")["interpolate"]:
        if case["values"] is None:
            continue
        size, values = case["group_size"], case["values"]
        padded = values + [0] * (-len(values) % size)
        root = pow(3, (P - 1) // size, P) if case["points"] == "roots" else 0
        for group in range(len(padded) // size):
            f = case["coefficients"][group * (size + 1) : (group + 1) * (size + 1)]
            shown = case["shown_points"]
            xs = shown[group * size :][:size] if shown else [pow(root, j, P) for j in range(size)]
            at = [sum(c * pow(x, k, P) for k, c in enumerate(f)) % P for x in xs]
            assert at == padded[group * size :][:size]
            z = case["hidden_points"][group]
            assert sum(c * pow(z, k, P) for k, c in enumerate(f)) % P == case["check_values"][group]


def test_masks_cancel() -> None:
    (case,) = document("masking.json")["masked_sum"]
    first, second, third = (bytes.fromhex(seed) for seed in case["pair_seeds_01_02_12"])
    own = [expand(bytes.fromhex(seed), b"self", 6) for seed in case["self_seeds"]]
    pairs = {
        (0, 1): expand(first, b"pair", 6),
        (0, 2): expand(second, b"pair", 6),
        (1, 2): expand(third, b"pair", 6),
    }
    for i in range(3):
        for k in range(6):
            masks = sum(m[k] if i == low else -m[k] for (low, high), m in pairs.items() if i in (low, high))
            assert case["masked"][i][k] == (case["values"][i][k] + own[i][k] + masks) % P


def test_quantised_updates() -> None:
    for case in document("encoding.json")["quantise"]:
        update = struct.unpack(f"<{len(case['quantised'])}f", bytes.fromhex(case["update_f32"]))
        uniform = expand(bytes.fromhex(case["rounding_seed"]), b"rounding", len(update))
        clip, scale = float(case["clip"]), case["weight"] / case["max_weight"] * 2.0 ** case["fraction_bits"]
        for x, u, q in zip(update, uniform, case["quantised"], strict=True):
            exact = min(max(x, -clip), clip) * scale
            assert exact - 1 < q <= exact + 1
            assert q == int((exact + u / P) // 1)


def test_statements_are_signed_over_their_ids() -> None:
    for case in document("statements.json")["statements"]:
        body, sender, network = (bytes.fromhex(case[name]) for name in ("body", "sender", "network"))
        round_, kind = case["round"].to_bytes(8, "big"), bytes([case["kind"]])
        assert sha256_domain(b"statement", network, round_, kind, sender, body).hex() == case["id"]
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))
        assert key.public_key().public_bytes_raw() == sender
        assert key.sign(bytes.fromhex(case["id"])).hex() == case["signature"]
        assert case["body"] in case["cited"]
        assert (case["cited"] == case["envelope"]) == (case["name"] != "CONTRIBUTION")


def test_block_hashes_and_certificates() -> None:
    (case,) = document("blocks.json")["blocks"]
    assert sha256_domain(b"block", bytes.fromhex(case["block"])).hex() == case["hash"]
    assert [entry["holds"] for entry in document("blocks.json")["certificates"]] == [True, True, False]


def test_the_round_replays_from_genesis() -> None:
    whole = document("round.json")
    genesis = Genesis.from_bytes(bytes.fromhex(whole["genesis"][0]["genesis"]))
    assert sha256_domain(b"genesis", genesis.to_bytes()).hex() == whole["genesis"][0]["network"]
    chain = Chain.at_genesis(genesis)
    for case in whole["blocks"]:
        block = decode_block(bytes.fromhex(case["block"]))
        certificate = decode(Certificate, bytes.fromhex(case["certificate"]), 1 << 20)
        state = chain.append(StoredBlock(block, certificate))
        assert (state.root.hex(), block.hash.hex()) == (case["state_root"], case["hash"])
        assert (block.kind.name, block.leader.hex()) == (case["kind"], case["leader"])
    assert [case["kind"] for case in whole["blocks"]] == [
        "OPEN", "SETUP", "CONTRIBUTION", "AGGREGATE", "BALLOT", "OUTCOME",
    ]  # fmt: skip
    (outcome,) = whole["outcome"]
    assert (chain.state.beacon.hex(), chain.state.model_digest.hex()) == (
        outcome["beacon"],
        outcome["model_digest"],
    )
    assert outcome["model"] != whole["genesis"][0]["model"]
    for node in whole["nodes"]:
        assert chain.state.stakes[bytes.fromhex(node["peer"])] == node["stake_after"]
