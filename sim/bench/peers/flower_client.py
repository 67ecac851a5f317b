"""What one client of Flower's SecAgg+ does in a round: keys, shares, masks, no verification.

The steps are those of `flwr.client.mod.secure_aggregation.secaggplus_mod`, called in its order, with the
whole network as neighbourhood and the threshold that flocknode has. The shares that other clients send are
random bytes of the right length: they are decrypted and kept, as the real ones are.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

import numpy as np
from flwr.app import ConfigRecord
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from sim.bench.peers.adapter import Json, adapt

# Flower's package names the mod as its module is named, which hides the module; that holds the steps.
STEPS: Any = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
CLIPPING_RANGE = 8.0
TARGET_RANGE = 1 << 22
MODULUS = 1 << 32
MAX_WEIGHT = 1000.0
"""Flower's defaults (`flwr.server.workflow.SecAggPlusWorkflow`)."""
SAMPLES = 100


def measure(spec: Json) -> Json:
    """`seconds` of each of `repeats` clients; bytes that one sends."""
    n, d = spec["n"], spec["d"]
    peers = {nid: _setup(nid, n) for nid in range(1, n)}
    update = np.random.default_rng(spec["seed"]).uniform(-0.05, 0.05, (d,)).astype(np.float32)
    parameters = ndarrays_to_parameters([update])
    seconds, upload, shares = [], 0, 0
    for number in range(spec["repeats"] + 1):
        start = time.perf_counter()
        own = _setup(0, n)
        keys_s = time.perf_counter() - start
        publics = {str(nid): [state.pk1, state.pk2] for nid, state in {0: own, **peers}.items()}
        start = time.perf_counter()
        shared = STEPS._share_keys(own, ConfigRecord(publics))
        shares_s = time.perf_counter() - start
        received = _boxes_for(own, peers)
        start = time.perf_counter()
        masked = STEPS._collect_masked_vectors(own, received, SAMPLES, parameters)
        masks_s = time.perf_counter() - start
        if number:  # the first one does not count
            seconds.append(keys_s + shares_s + masks_s)
        upload = sum(len(array) for array in masked[Key.MASKED_PARAMETERS])
        shares = sum(len(box) for box in shared[Key.CIPHERTEXT_LIST])
    return {"seconds": seconds, "upload": upload, "shares": shares}


def _setup(nid: int, n: int) -> Any:
    state = STEPS.SecAggPlusState()
    state.nid = nid
    STEPS._setup(
        state,
        ConfigRecord(
            {
                Key.SAMPLE_NUMBER: n,
                Key.SHARE_NUMBER: n,
                Key.THRESHOLD: 2 * n // 3 + 1,
                Key.CLIPPING_RANGE: CLIPPING_RANGE,
                Key.TARGET_RANGE: TARGET_RANGE,
                Key.MOD_RANGE: MODULUS,
                Key.MAX_WEIGHT: MAX_WEIGHT,
            }
        ),
    )
    return state


def _boxes_for(own: Any, peers: dict[int, Any]) -> ConfigRecord:
    """What the server forwards: one box from each other client."""
    seed_length, key_length = len(own.rd_seed_share_dict[0]), len(own.sk1_share_dict[0])
    public = bytes_to_public_key(own.pk2)
    boxes = [
        encrypt(
            generate_shared_key(bytes_to_private_key(state.sk2), public),
            share_keys_plaintext_concat(nid, 0, os.urandom(seed_length), os.urandom(key_length)),
        )
        for nid, state in peers.items()
    ]
    return ConfigRecord({Key.CIPHERTEXT_LIST: boxes, Key.SOURCE_LIST: list(peers)})


if __name__ == "__main__":
    adapt(measure)
