"""Orders from the command line: give one, wait for the block that carries it, see what waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from protocol.messages import TransactionKind
    from protocol.order import Order

EXIT_WAITING = 3
"""The order neither was carried nor failed: it waits, and the command does not any longer."""
EXIT_INTERRUPTED = 130
POLL_INTERVAL_S = 0.1
ALIVE_INTERVAL_S = 1.0
ANSWER_S = 10.0
"""How long `--no-wait` waits for the node to number the order."""
SPINNER = "|/-\\"
ENDED_SHOWN = 5
MOST_TOKENS = 2**60 // 10**6


class Tokens(click.ParamType[int]):
    """An amount of tokens, exact to the sixth decimal; its value is in units."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from protocol.ledger.economy import UNITS

        if isinstance(value, int):
            return value
        try:
            amount = Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount of tokens", param, ctx)
        if not amount.is_finite() or not 0 < amount <= MOST_TOKENS:
            self.fail(f"{value} is not an amount above 0, up to {MOST_TOKENS:,}", param, ctx)
        units = amount * UNITS
        if units != units.to_integral_value():
            self.fail(f"{value} has more than six decimals", param, ctx)
        return int(units)


def node_only(directory: Path) -> None:
    """Raises `ClickException` where `directory` is no node's."""
    from flocknode.config import CONFIG_FILE

    if not (directory / CONFIG_FILE).is_file():
        raise click.ClickException(f"{directory / CONFIG_FILE}: no such file: this is no node's directory")


def give(
    directory: Path,
    kind: TransactionKind,
    *,
    peer: bytes = bytes(32),
    units: int = 0,
    replaces: int | None = None,
    wait: bool,
    timeout_s: float | None,
) -> None:
    """Leave an order for the node of `directory`, and wait for its answer and for the block that carries it.

    Ends the process with 0 where it was carried (or only numbered, without `wait`), 1 where it was refused or
    failed, `EXIT_WAITING` where that is not known yet.
    """
    from flocknode.spool import new_order, submit
    from flocknode.store import running_process

    node_only(directory)
    order = new_order(kind, peer, units, replaces)
    try:
        path = submit(directory, order)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if running_process(directory) is None:
        click.echo(f"The node of {directory} is not running. The order is left for its next start.")
        sys.exit(EXIT_WAITING if wait else 0)
    try:
        _Watch(directory, order, path, timeout_s).follow(wait)
    except KeyboardInterrupt:
        click.echo(
            f"\nThe order goes on waiting in the node: flocknode node pending {directory} shows it.", err=True
        )
        sys.exit(EXIT_INTERRUPTED)


class _Watch:
    """Follows one order in what the node shows."""

    def __init__(self, directory: Path, order: Order, path: Path, timeout_s: float | None) -> None:
        self._directory, self._order, self._path = directory, order, path
        self._began = time.monotonic()
        self._ends = None if timeout_s is None else self._began + timeout_s
        self._looked = self._began
        self._said = ""
        self._turn = 0

    def follow(self, wait: bool) -> None:
        """Until the order is answered, or, with `wait`, until its number is used."""
        if not wait and self._ends is None:
            self._ends = self._began + ANSWER_S
        row = self._until(lambda row: True, "the node has not answered yet")
        if row["status"] == "refused":
            raise click.ClickException(f"refused: {row['why']}")
        if not wait and row["status"] == "waiting":
            click.echo(f"{_title(row)}; it waits for a block that carries it")
            return
        row = self._until(lambda row: row["status"] != "waiting", f"{_title(row)} waits")
        if row["status"] != "carried":
            raise click.ClickException(f"{_title(row)}; {row['status']}, not carried: {row['why']}")
        from protocol.ledger.transactions import tokens_text

        stake = tokens_text(row["stake_units"])
        click.echo(f"{_title(row)}; carried by block {row['height']}, the stake is {stake} tokens now")

    def _until(self, is_reached: Callable[[Mapping[str, Any]], bool], doing: str) -> Mapping[str, Any]:
        while True:
            view = _view(self._directory)
            rows: list[Mapping[str, Any]] = view.get("orders", [])
            row = next((r for r in rows if r["order"] == self._order.id.hex()), None)
            if row is not None and is_reached(row):
                self._clear()
                return row
            now = time.monotonic()
            if self._ends is not None and now >= self._ends:
                self._give_up(f"{doing} after {now - self._began:.0f} s{self._hint(row)}.")
            if now - self._looked >= ALIVE_INTERVAL_S:
                self._looked = now
                self._check_alive()
            why = next(
                (w["why"] for w in view.get("waiting", ()) if w["order"] == self._order.id.hex()), None
            )
            self._say(doing + (f": {why}" if why else ""), now)
            time.sleep(POLL_INTERVAL_S)

    def _hint(self, row: Mapping[str, Any] | None) -> str:
        return f"; {self._path} is still there" if row is None and self._path.exists() else ""

    def _check_alive(self) -> None:
        from flocknode.store import running_process

        if running_process(self._directory) is None:
            self._give_up("The node has stopped. What it has not carried goes on when it runs again.")

    def _give_up(self, why: str) -> NoReturn:
        self._clear()
        click.echo(f"{why} See flocknode node pending {self._directory}", err=True)
        sys.exit(EXIT_WAITING)

    def _say(self, text: str, now: float) -> None:
        """A turning line at a terminal, a line for each change elsewhere; nothing within the first second."""
        if now - self._began < 1:
            return
        if sys.stderr.isatty():
            self._turn += 1
            mark = SPINNER[self._turn % len(SPINNER)]
            click.echo(f"\r\x1b[K{mark} {text} ({now - self._began:.0f} s)", nl=False, err=True)
        elif text != self._said:
            click.echo(f"{text} ...", err=True)
        self._said = text

    def _clear(self) -> None:
        if self._said and sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


def show_pending(directory: Path, as_json: bool) -> None:
    """Print what waits in the node, what it has not heard yet, and how the last orders ended."""
    import json

    from flocknode.spool import given_at_s, left_orders
    from flocknode.store import running_process
    from protocol.keys import peer_name

    node_only(directory)
    view = _view(directory)
    process = running_process(directory)
    try:
        left = left_orders(directory)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    unheard = [
        {
            "order": order.id.hex(),
            "kind": order.kind.name.lower(),
            "peer": peer_name(order.peer) if order.kind.name == "TRANSFER" else None,
            "amount_units": order.amount_units,
            "replaces": order.replaces,
            "given": round(given_at_s(order.id), 3),
        }
        for _, order in left
    ]
    ended = [row for row in view.get("orders", ()) if row["status"] != "waiting"][-ENDED_SHOWN:]
    waiting = [_with_time(row) for row in view.get("waiting", ())]
    if as_json:
        found = {
            "running": process is not None,
            "height": view.get("height"),
            "waiting": waiting,
            "unheard": unheard,
            "ended": [_with_time(row) for row in ended],
        }
        click.echo(json.dumps(found, indent=2))
        return
    if process is None:
        click.echo(f"The node is not running. So it was at height {view.get('height', 0)}:")
    elif view and str(view.get("pid")) != process:
        click.echo(f"The node is starting. So it was at height {view.get('height', 0)}:")
    if not waiting and not unheard:
        click.echo("nothing waits")
    for row in waiting:
        since = "" if row["since_height"] is None else f", since height {row['since_height']}{_age(row)}"
        why = row["why"] or "the next block that carries transactions takes it"
        click.echo(f"{_title(row)}{since}; {why}")
    for row in unheard:
        click.echo(f"{_what(row)}{_age(row)}; the node has not heard it yet")
    if ended:
        click.echo("lately:")
    for row in ended:
        at = f" by block {row['height']}" if row["height"] else ""
        click.echo(f"  {_title(row)}; {row['status']}{at}{': ' if row['why'] else ''}{row['why']}")


def _view(directory: Path) -> dict[str, Any]:
    from flocknode.spool import read_view

    try:
        return read_view(directory) or {}
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{directory}: what the node shows cannot be read: {error}") from error


def _with_time(row: Mapping[str, Any]) -> dict[str, Any]:
    from flocknode.spool import given_at_s

    given = None if row["order"] is None else round(given_at_s(bytes.fromhex(row["order"])), 3)
    return {**row, "given": given}


def _age(row: Mapping[str, Any]) -> str:
    return "" if row["given"] is None else f" ({max(0, time.time() - row['given']):.0f} s ago)"


def _what(row: Mapping[str, Any]) -> str:
    """Return an order or a transaction in words, without its number."""
    from protocol.ledger.transactions import tokens_text

    words = str(row["kind"])
    if row["kind"] in ("transfer", "fund"):
        words += f" of {tokens_text(row['amount_units'])} tokens"
    if row["peer"] is not None:
        words += f" to {row['peer']}"
    if row.get("replaces") is not None:
        words += f" in place of number {row['replaces']}"
    return words


def _title(row: Mapping[str, Any]) -> str:
    """Return a transaction in words; one that was refused had no number."""
    if row["kind"] == "cancel":
        return f"drop of number {row['number']}"
    return _what(row) if row.get("status") == "refused" else f"number {row['number']}: {_what(row)}"
