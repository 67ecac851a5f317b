"""`flocknode node`: one node, its key and its stake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from flocknode.cli.orders import Tokens, give, show_pending

DIRECTORY = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


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


WAIT = (
    click.option("--wait/--no-wait", default=True, help="Wait for the block that carries it (default)."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Wait no longer than this; the order goes on waiting in the node.",
    ),
)
NUMBER = click.IntRange(0, 1 << 40)
REPLACE = click.option("--replace", type=NUMBER, metavar="NUMBER", help="Take the place of one that waits.")
ENDS = """

    The command talks to the running node, which numbers the order, or refuses it and says why. It waits for
    the block that carries it, and prints that block's height and the new stake. Exit code: 0 carried (with
    --no-wait: numbered, or left for a node that is down), 1 refused or failed, 3 not known yet (time-out, or
    the node is not running; the order is then left for its next start), 130 Ctrl-C.
"""


def _ordering(command: Callable[..., None]) -> Callable[..., None]:
    """Add what all orders have in common: the options of waiting, and how the command ends."""
    command.__doc__ = (command.__doc__ or "") + ENDS
    for option in reversed(WAIT):
        command = option(command)
    return command


@node.command(short_help="Transfer from the stake to another peer.")
@DIRECTORY
@click.argument("peer")
@click.argument("tokens", type=Tokens())
@REPLACE
@_ordering
def transfer(
    directory: Path, peer: str, tokens: int, replace: int | None, wait: bool, timeout_s: float | None
) -> None:
    """Transfer TOKENS of the node's stake to PEER, who may be new to the network.

    A validator must keep the fault penalty of its network, its bond, until one round after it has left."""
    from protocol.keys import PeerNameError, peer_from_name
    from protocol.messages import TransactionKind

    try:
        recipient = peer_from_name(peer)
    except PeerNameError as error:
        raise click.BadParameter(str(error), param_hint="PEER") from error
    give(
        directory,
        TransactionKind.TRANSFER,
        peer=recipient,
        units=tokens,
        replaces=replace,
        wait=wait,
        timeout_s=timeout_s,
    )


@node.command(short_help="Pay from the stake into the reward pool.")
@DIRECTORY
@click.argument("tokens", type=Tokens())
@REPLACE
@_ordering
def fund(directory: Path, tokens: int, replace: int | None, wait: bool, timeout_s: float | None) -> None:
    """Pay TOKENS of the node's stake into the pool that rewards winners."""
    from protocol.messages import TransactionKind

    give(directory, TransactionKind.FUND, units=tokens, replaces=replace, wait=wait, timeout_s=timeout_s)


@node.command(short_help="Become a member.")
@DIRECTORY
@REPLACE
@_ordering
def join(directory: Path, replace: int | None, wait: bool, timeout_s: float | None) -> None:
    """Become a member, with the stake that the node was given."""
    from protocol.messages import TransactionKind

    give(directory, TransactionKind.JOIN, replaces=replace, wait=wait, timeout_s=timeout_s)


@node.command(short_help="Stop being a member.")
@DIRECTORY
@REPLACE
@_ordering
def leave(directory: Path, replace: int | None, wait: bool, timeout_s: float | None) -> None:
    """Stop being a member: no more roles and no more votes."""
    from protocol.messages import TransactionKind

    give(directory, TransactionKind.LEAVE, replaces=replace, wait=wait, timeout_s=timeout_s)


@node.command(short_help="Drop a transaction that waits.")
@DIRECTORY
@click.argument("number", type=NUMBER)
@_ordering
def drop(directory: Path, number: int, wait: bool, timeout_s: float | None) -> None:
    """Have the waiting transaction NUMBER do nothing, so that those behind it go on.

    Some nodes may carry it all the same, if they have not heard of this in time; then this says so."""
    from protocol.messages import TransactionKind

    give(directory, TransactionKind.CANCEL, replaces=number, wait=wait, timeout_s=timeout_s)


@node.command(short_help="Show the transactions that wait.")
@DIRECTORY
@click.option("--json", "as_json", is_flag=True, help="As JSON, amounts in units (millionths of a token).")
def pending(directory: Path, as_json: bool) -> None:
    """Show the node's transactions that wait for a block, since when and why, and how the last ones ended."""
    show_pending(directory, as_json)
