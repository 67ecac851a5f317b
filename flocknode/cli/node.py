"""`flocknode node`: one node, its key and its stake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from protocol.messages import TransactionKind

DIRECTORY = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
TOKENS = click.argument("tokens", type=click.FloatRange(min=0, min_open=True))


@click.group()
def node() -> None:
    """Run a node, make its key, or move its stake.

    DIR is a node's directory, as `flocknode network init` makes it.
    """


@node.command(short_help="Run a node until it is stopped.")
@DIRECTORY
@click.option("--log", is_flag=True, help="Log to standard error as well as to DIR/node.log.")
def run(directory: Path, log: bool) -> None:
    """Run the node of DIR until Ctrl-C or SIGTERM.

    It can be stopped, even killed, and run again at any time: it takes up where it was, fetches the blocks it
    missed, and takes part from the next round on.
    """
    click.echo(
        f"running the node of {directory}; it logs to {directory / 'node.log'}, Ctrl-C stops it", err=True
    )
    from flocknode.process import main

    main(directory, console=log)


@node.command(short_help="Make a key and print its peer id.")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def new(directory: Path) -> None:
    """Make a signing key, DIR/node.key, and print the peer id that goes with it.

    Give the peer id to whoever founds the network, keep the key, and put it into the node's directory.
    """
    import secrets

    from flocknode.keystore import KeystoreError, save_identity
    from protocol.keys import Identity, peer_name

    identity = Identity.from_seed(secrets.token_bytes(32))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        save_identity(directory, identity)
    except (KeystoreError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(peer_name(identity.peer))


@node.command(name="id")
@DIRECTORY
def show_id(directory: Path) -> None:
    """Print the peer id of DIR/node.key."""
    from flocknode.keystore import KeystoreError, load_identity
    from protocol.keys import peer_name

    try:
        click.echo(peer_name(load_identity(directory).peer))
    except KeystoreError as error:
        raise click.ClickException(str(error)) from error


@node.command(short_help="Transfer from the stake to another peer.")
@DIRECTORY
@click.argument("peer")
@TOKENS
def transfer(directory: Path, peer: str, tokens: float) -> None:
    """Transfer TOKENS of the node's stake to PEER, who may be new to the network.

    The node signs and spreads it when it runs; the block that ends a round carries it out. A validator must
    keep the fault penalty of its network, until one round after it has left.
    """
    from protocol.keys import PeerNameError, peer_from_name
    from protocol.messages import TransactionKind

    try:
        _submit(directory, TransactionKind.TRANSFER, peer_from_name(peer), tokens)
    except PeerNameError as error:
        raise click.BadParameter(str(error), param_hint="PEER") from error


@node.command(short_help="Pay from the stake into the reward pool.")
@DIRECTORY
@TOKENS
def fund(directory: Path, tokens: float) -> None:
    """Pay TOKENS of the node's stake into the pool that rewards winners."""
    from protocol.messages import TransactionKind

    _submit(directory, TransactionKind.FUND, None, tokens)


@node.command()
@DIRECTORY
def join(directory: Path) -> None:
    """Become a member, with the stake that the node was given."""
    from protocol.messages import TransactionKind

    _submit(directory, TransactionKind.JOIN, None, 0)


@node.command()
@DIRECTORY
def leave(directory: Path) -> None:
    """Stop being a member: no more roles and no more votes."""
    from protocol.messages import TransactionKind

    _submit(directory, TransactionKind.LEAVE, None, 0)


def _submit(directory: Path, kind: TransactionKind, peer: bytes | None, tokens: float) -> None:
    """Leave the transaction for the node, which hears it now or when it runs next."""
    from flocknode import spool
    from flocknode.config import ConfigError, load_node_dir
    from flocknode.keystore import KeystoreError
    from flocknode.observe.ledger import LedgerError, end_of, read_genesis, walk
    from flocknode.store import DATABASE
    from protocol.codec import encode
    from protocol.ledger.chain import ChainError
    from protocol.ledger.economy import UNITS
    from protocol.messages import Transaction

    try:
        me = load_node_dir(directory).peer
        steps = list(walk(directory)) if (directory / DATABASE).exists() else []
        state = end_of(read_genesis(directory), steps).state
        account = state.account(me)
        if account is None:
            raise click.ClickException(f"{directory}: the ledger knows no account of this node")
        units = round(tokens * UNITS)
        if units > account.stake_units:
            held = account.stake_units / UNITS
            raise click.ClickException(f"the node has {held:,.6f} tokens, not {tokens}")
        nonce = account.nonce + len(spool.waiting(directory))
        spool.submit(directory, encode(Transaction(kind, nonce, peer or me, units)))
    except (ChainError, ConfigError, KeystoreError, LedgerError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{kind.name.lower()} number {nonce} is left for the node")
