"""What one flocknode client does in a round: keys, shares, masks, encoding and commitment."""

from __future__ import annotations

import time

from sim.bench.peers.adapter import Json, adapt
from sim.bench.protocol import client_work, network_params, shared_round, synthetic_update


def measure(spec: Json) -> Json:
    """`seconds` of each of `repeats` clients; bytes that one sends."""
    params = network_params(spec["n"], spec["d"], "hardened")
    round_ = shared_round(params, spec["n"])
    contribution = round_.contribute(0, synthetic_update(params, 0), 1)
    dealing = round_.deal(0)
    client_work(round_)
    seconds = []
    for _ in range(spec["repeats"]):
        start = time.perf_counter()
        client_work(round_)
        seconds.append(time.perf_counter() - start)
    upload = len(contribution.upload) + len(contribution.commitment)
    return {"seconds": seconds, "upload": upload, "shares": sum(len(box) for box in dealing.boxes)}


if __name__ == "__main__":
    adapt(measure)
