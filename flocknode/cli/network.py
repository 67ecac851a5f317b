"""`flocknode network`: founding one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flocknode.cli.stake_options import contract_option, gamma_option

if TYPE_CHECKING:
    from flocknode.founding import Plan


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
@click.option("--partition", default="iid", show_default=True, help="iid or dirichlet: how data are dealt.")
@click.option("--alpha", default=0.5, show_default=True, help="Concentration of a dirichlet partition.")
@click.option("--seed", default=0, show_default=True, help="Of the shards and the initial model.")
@click.option("--stake", default=64.0, show_default=True, help="Tokens each node starts with.")
@click.option("--pool", default=0.0, show_default=True, help="Tokens to reward winners with.")
@click.option("--pool-rounds", default=100, show_default=True, help="Rounds over which the pool is paid out.")
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
    pool: float,
    pool_rounds: int,
    contract: str,
    gamma: str,
    **options: Any,
) -> Plan:
    from flocknode.config import ConfigError
    from flocknode.contract import contract_settings
    from flocknode.founding import Plan
    from flocknode.gamma import gamma_settings
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
    return Plan(
        addresses=tuple(addresses),
        peers=peers,
        stake_units=round(stake * UNITS),
        pool_units=round(pool * UNITS),
        settings={"pool_rounds": pool_rounds, **gamma_settings(gamma), **contract_settings(contract)},
        psk=psk,
        **options,
    )
