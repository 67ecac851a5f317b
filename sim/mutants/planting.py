"""Planting a bug: one function of the protocol is swapped for a wrong one, everywhere, and put back for sure.

Nothing on disk is touched. The bug is in force for the whole process, so also for the checks that use the
swapped function: only a check that works things out in its own way can find it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeAlias

from attrs import field, frozen

PACKAGES = ("protocol", "flocknode", "sim")
KEEPS_ITS_CACHES = ("protocol.codec", "protocol.algebra", "protocol.secagg.security")
"""Modules that remember types, tables and estimates: no mutant touches them, and they take long."""

Change: TypeAlias = Callable[[Any], Any]
"""Makes the wrong function from the right one."""


@frozen
class Swap:
    """`owner`: the module or class that defines `name`; `change` makes the wrong one."""

    owner: ModuleType | type
    name: str
    change: Change = field(repr=False)


@frozen(kw_only=True)
class Hunter:
    """A manifest under `sim/mutants/manifests/` and the seed it is run with."""

    manifest: str
    seed: int = 1


@frozen(kw_only=True)
class Mutant:
    """A bug that a programmer could write.

    `about` says what the wrong code does, `breaks` which sentence of docs/PROTOCOL.md that is against.
    `caught_by`: the invariant that is there to find it. `hunters` are tried in their order.
    """

    name: str
    about: str
    breaks: str
    caught_by: str
    swaps: tuple[Swap, ...] = field(repr=False)
    hunters: tuple[Hunter, ...]

    @contextmanager
    def plant(self) -> Iterator[None]:
        """The bug is in force inside; afterwards everything is as it was, whatever happened."""
        undo: list[tuple[Swap, Any, Any]] = []
        try:
            for swap in self.swaps:
                right = vars(swap.owner)[swap.name]
                wrong = swap.change(right)
                undo.append((swap, right, wrong))
                _replace(swap, right, wrong)
            _forget_results()
            yield
        finally:
            for swap, right, wrong in reversed(undo):
                _replace(swap, wrong, right)
            _forget_results()


def _replace(swap: Swap, old: Any, new: Any) -> None:
    """In the owner, and in every module and table of functions that has taken it from there by name."""
    setattr(swap.owner, swap.name, new)
    if isinstance(swap.owner, type):
        return
    for module in _modules():
        for name, value in list(vars(module).items()):
            if value is old and callable(old):
                setattr(module, name, new)
            elif isinstance(value, dict) and not name.startswith("__"):
                for key in [key for key, entry in value.items() if entry is old and callable(old)]:
                    value[key] = new


def _forget_results() -> None:
    """What was remembered under the other code says nothing about this one."""
    for module in _modules():
        if module.__name__.startswith(KEEPS_ITS_CACHES):
            continue
        for value in list(vars(module).values()):
            clear = getattr(value, "cache_clear", None)
            if clear is not None and not isinstance(value, ModuleType):
                clear()


def _modules() -> list[ModuleType]:
    return [
        module
        for name, module in sorted(sys.modules.items())
        if module is not None and name.partition(".")[0] in PACKAGES
    ]
