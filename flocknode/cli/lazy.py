"""Commands that are imported when they are run: `flocknode --help` pays for no numba, torch or libp2p."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

import click

PLUGINS = "flocknode.commands"
"""Entry points of this group are commands too: `sim` declares its own, and nothing here depends on it."""


class LazyGroup(click.Group):
    """A group whose commands are named as "module:attribute", with the line that help shows for each."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], plugins: bool = False, **more: Any):
        super().__init__(*args, **more)
        self._lazy = lazy
        self._plugins = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were declared, plug-ins last."""
        return [*super().list_commands(ctx), *self._lazy, *sorted(self._plugin_names())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module."""
        known = super().get_command(ctx, cmd_name)
        if known is not None:
            return known
        if cmd_name in self._lazy:
            return _load(self._lazy[cmd_name][0])
        plugin = self._plugin_names().get(cmd_name)
        return None if plugin is None else _load(plugin)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing those of this package."""
        rows = [(name, text) for name, (_, text) in self._lazy.items()]
        for name in sorted(self._plugin_names()):
            command = self.get_command(ctx, name)
            if command is not None:
                rows.append((name, command.get_short_help_str(limit=80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _plugin_names(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=PLUGINS)} if self._plugins else {}


def _load(reference: str) -> click.Command:
    module, _, attribute = reference.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{reference} is no click command")
    return command
