"""Parts and functions of two profiles in one order."""

from __future__ import annotations

from sim.figures.profile.read import NodeProfile, ToldProfile

TOP = 10
"""Functions of each profile that the table has."""
LARGEST = 3


def parts_by_size(told: ToldProfile) -> list[str]:
    """Every part of either profile, by its CPU time before, or after where there is no profile before."""
    first, *_ = told.by_file.values()
    names = dict.fromkeys(part for profile in told.by_file.values() for part in profile.parts)
    return sorted(names, key=lambda part: -first.part_ms(part))


def largest_parts(profile: NodeProfile) -> list[str]:
    return sorted(profile.parts, key=lambda part: -profile.parts[part])[:LARGEST]


def top_functions(told: ToldProfile) -> list[str]:
    """The `TOP` of each profile, those of the first one first."""
    return list(dict.fromkeys(name for profile in told.by_file.values() for name in _top(profile)))


def _top(profile: NodeProfile) -> list[str]:
    return sorted(profile.functions, key=lambda name: -profile.functions[name])[:TOP]
