"""`flocknode ledger`: reading a node's ledger, whether the node runs or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from flocknode.observe.ledger import Step

DIRECTORY = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group()
def ledger() -> None:
    """Show, verify or export a node's ledger.

    DIR is the node's directory. Nothing is written there, and the node may be running.
    """


@ledger.command()
@DIRECTORY
@click.option("--last", metavar="N", type=click.IntRange(min=1), help="Only the last N blocks.")
@click.option("--height", type=click.IntRange(min=1), help="One block in full.")
def show(directory: Path, last: int | None, height: int | None) -> None:
    """List the blocks, or show one of them in full; name the best model so far and its file."""
    from rich.console import Console
    from rich.table import Table

    from flocknode.contract import contract_name
    from flocknode.defaults import describe_pace
    from flocknode.gamma import describe_gamma
    from flocknode.observe.best import best_model, describe_best
    from flocknode.observe.describe import describe_block, summarise
    from flocknode.observe.ledger import LedgerError, present_end, read_genesis, stored_blocks
    from flocknode.observe.rest import describe_rest
    from protocol.codec import DecodeError
    from protocol.keys import short_name
    from protocol.ledger.chain import ChainError

    try:
        if height is not None:
            for stored in stored_blocks(directory, height, height):
                click.echo(json.dumps(describe_block(stored), indent=2))
                return
            raise click.ClickException(f"{directory}: the ledger has no block {height}")
        blocks, genesis = list(stored_blocks(directory)), read_genesis(directory)
    except (ChainError, LedgerError) as error:
        raise click.ClickException(str(error)) from error
    gamma, pace = describe_gamma(genesis.params), describe_pace(genesis.params)
    contract = contract_name(genesis.params)
    caption = f"network {genesis.network.hex()[:12]}, contract {contract}, gamma {gamma}, {pace}"
    table = Table(caption=caption, caption_justify="left")
    for name in ("block", "round"):
        table.add_column(name, justify="right")
    for name in ("kind", "leader", "hash", "content"):
        table.add_column(name)
    for stored in blocks if last is None else blocks[-last:]:
        block = stored.block
        table.add_row(
            str(block.height),
            str(block.round),
            block.kind.name,
            short_name(block.leader),
            block.hash.hex()[:12],
            summarise(block),
        )
    Console().print(table)
    try:
        best = describe_best(best_model(genesis, blocks), directory)
    except DecodeError as error:
        raise click.ClickException(f"{directory}: {error}") from error
    if best:
        click.echo(best)
    if genesis.params.pace is not None:
        try:
            rest = describe_rest(present_end(directory).state, genesis.params)
        except (ChainError, LedgerError) as error:
            raise click.ClickException(str(error)) from error
        if rest:
            click.echo(rest)


@ledger.command()
@DIRECTORY
def verify(directory: Path) -> None:
    """Walk hashes, certificates and the contract from genesis.

    Ends with exit code 1, naming it, at the first block that is wrong.
    """
    from flocknode.observe.ledger import LedgerError, end_of, read_genesis, walk
    from protocol.ledger.chain import ChainError

    steps: list[Step] = []
    try:
        genesis = read_genesis(directory)
        total = sum(member.stake_units for member in genesis.members) + genesis.pool_units
        for step in walk(directory):
            if step.after.supply_units != total:
                raise ChainError(step.after.height, f"the supply is {step.after.supply_units}, not {total}")
            steps.append(step)
    except ChainError as error:
        click.echo(f"{directory}: {error} (blocks 1 to {len(steps)} are right)", err=True)
        sys.exit(1)
    except LedgerError as error:
        raise click.ClickException(str(error)) from error
    end = end_of(genesis, steps)
    click.echo(
        f"{directory}: {len(steps)} blocks verify from genesis {genesis.network.hex()[:16]}; "
        f"round {end.state.round}, head {end.head.hex()}"
    )


@ledger.command(short_help="Write it as JSON lines, one block a line.")
@DIRECTORY
@click.option(
    "--output", "-o", type=click.File("w", lazy=True), default="-", help="A file.  [default: standard output]"
)
def export(directory: Path, output: TextIO) -> None:
    """Write the ledger as JSON lines, one block a line, every field by name.

    What is exported is what is stored; use `verify` to check it.
    """
    from flocknode.observe.describe import describe_block
    from flocknode.observe.ledger import LedgerError, stored_blocks
    from protocol.ledger.chain import ChainError

    try:
        for stored in stored_blocks(directory):
            output.write(json.dumps(describe_block(stored), separators=(",", ":")) + "\n")
    except (ChainError, LedgerError) as error:
        raise click.ClickException(str(error)) from error
