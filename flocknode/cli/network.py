"""`flocknode network`: founding one."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flocknode.cli.stake_options import contract_option, gamma_option

if TYPE_CHECKING:
    from flocknode.founding import Plan


MOST_TOKENS = 10**9


class _Amount(click.FloatRange):
    """An amount of tokens: neither infinite nor no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        amount = super().convert(value, param, ctx)
        if not isfinite(amount):
            self.fail(f"{value} is no amount of tokens", param, ctx)
        return float(amount)


FINITE = _Amount(0, MOST_TOKENS)


@click.group()
def network() -> None:
    """Found a network whose nodes run on machines of your own."""


@network.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--node",
    "nodes",
    metavar="[PEER@]ADDRESS",
    multiple=True,
    required=True,
    help="Where a node listens, such as /ip4/10.0.0.2/tcp/4001 or /dns/a.example.org/tcp/4001; once for "
    "each. With PEER the node keeps its own key, made by `flocknode node new`.",
)
@click.option("--name", default="flocknode", show_default=True, help="Of the network.")
@click.option("--task", default="mnist", show_default=True, help="mnist, digits or lending-club.")
@click.option("--profile", default="hardened", show_default=True, help="hardened or vcdfl.")
@click.option("--proposers", type=int, help="Proposers a round.  [default: by the number of nodes]")
@click.option("--voters", type=int, help="Voters a round.  [default: by the number of nodes]")
@click.option(
    "--partition",
    type=click.Choice(["iid", "dirichlet"]),
    default="iid",
    show_default=True,
    help="How data are dealt.",
)
@click.option("--alpha", default=0.5, show_default=True, help="Concentration of a dirichlet partition.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the shards and the initial model.",
)
@click.option("--stake", type=FINITE, default=64.0, show_default=True, help="Tokens each node starts with.")
@click.option(
    "--interval",
    "interval_s",
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="A round begins no sooner than so long after the one before; 0: as fast as its phases go.",
)
@click.option(
    "--rounds",
    default=0,
    show_default=True,
    help="After so many rounds training rests: the ledger goes on, and hears transactions.  0: without end",
)
@click.option(
    "--patience",
    default=30,
    show_default=True,
    help="Training rests after so many judged rounds in a row without a better model.  0: never",
)
@click.option(
    "--rest/--no-rest",
    "rests",
    default=True,
    show_default=True,
    help="Whether training rests when the task is done: by --patience, or because most voters say so.",
)
@click.option(
    "--resume-price",
    "resume_tokens",
    metavar="TOKENS",
    default=10.0,
    show_default=True,
    help="What `flocknode node fund` must bring for each further round once training rests; 0: it rests on.",
)
@click.option(
    "--pool",
    metavar="TOKENS",
    type=FINITE,
    help="Tokens to reward winners with.  [default: 10 for each of the pool's rounds]",
)
@click.option(
    "--pool-rounds",
    metavar="ROUNDS",
    type=click.IntRange(min=1),
    help="Rounds over which the pool is paid out; without a number of rounds each pays this fraction of what "
    "is left, for ever.  [default: --rounds, or 1000]",
)
@contract_option
@gamma_option
@click.option("--closed", is_flag=True, help="Draw a pre-shared key, without which nobody can even connect.")
def init(directory: Path, nodes: tuple[str, ...], closed: bool, **options: Any) -> None:
    """Write genesis, initial model and configuration of every node to DIR/node-0, DIR/node-1 and so on.

    Copy each directory to its machine and run `flocknode node run node-N` there. A network that has begun
    needs more than two thirds of its nodes to go on.

    \b
    Example, on four machines:
      flocknode network init net --node /ip4/10.0.0.1/tcp/4001 --node /ip4/10.0.0.2/tcp/4001 \\
                                 --node /ip4/10.0.0.3/tcp/4001 --node /ip4/10.0.0.4/tcp/4001
      scp -r net/node-1 10.0.0.2:     # the same for the others
      ssh 10.0.0.2 flocknode node run node-1

    A round a minute by default, with 10 tokens a round for those who win it; training rests after 30 rounds
    without a better model, while the ledger goes on: see --interval, --rounds, --patience and --no-rest.

    With many voters let penalties follow the votes: add `--gamma adaptive`.

    Node directories hold secret keys: whoever makes them could speak for every node. To trust nobody, let
    each operator run `flocknode node new KEYDIR` and pass --node PEER@ADDRESS; such a directory comes
    without its key, and its operator puts KEYDIR/node.key there.
    """
    import secrets

    from flocknode.blobs import BlobStoreError
    from flocknode.config import ConfigError
    from flocknode.founding import found
    from flocknode.keystore import PSK_BYTES, KeystoreError
    from protocol.keys import PeerNameError

    try:
        plan = _plan(nodes, secrets.token_bytes(PSK_BYTES) if closed else None, **options)
        paths = found(directory, plan, lambda label: secrets.token_bytes(32))
    except (ConfigError, KeystoreError, BlobStoreError, PeerNameError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for number, path in enumerate(paths):
        click.echo(f"{path}" + ("  (without node.key)" if number in plan.peers else ""))


def _plan(
    nodes: tuple[str, ...],
    psk: bytes | None,
    *,
    stake: float,
    interval_s: float,
    rounds: int,
    patience: int,
    rests: bool,
    resume_tokens: float,
    pool: float | None,
    pool_rounds: int | None,
    contract: str,
    gamma: str,
    **options: Any,
) -> Plan:
    from flocknode.config import ConfigError
    from flocknode.defaults import PaceOptions, founding_settings, pool_units
    from flocknode.founding import Plan
    from flocknode.transport.base import InvalidAddressError, parse_address
    from protocol.keys import peer_from_name
    from protocol.ledger.economy import UNITS

    peers, addresses = {}, []
    for number, node in enumerate(nodes):
        peer, at, address = node.rpartition("@")
        if at:
            peers[number] = peer_from_name(peer)
        try:
            if parse_address(address).port == 0:
                raise ConfigError(f"--node {address}: others cannot find a node on port 0")
        except InvalidAddressError as error:
            raise ConfigError(f"--node {error}") from error
        addresses.append(address)
    if len(set(addresses)) < len(addresses):
        raise ConfigError("--node: two nodes cannot listen on the same address")
    pace = PaceOptions(
        interval_s=interval_s, rounds=rounds, patience=patience, rests=rests, resume_tokens=resume_tokens
    )
    return Plan(
        addresses=tuple(addresses),
        peers=peers,
        stake_units=round(stake * UNITS),
        pool_units=pool_units(pace, pool_rounds, pool),
        settings=founding_settings(contract=contract, gamma=gamma, pace=pace, pool_rounds=pool_rounds),
        psk=psk,
        **options,
    )
