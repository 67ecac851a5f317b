"""All mutants, by name."""

from __future__ import annotations

from collections.abc import Mapping

from sim.mutants.aggregation import AGGREGATION
from sim.mutants.agreement import AGREEMENT
from sim.mutants.contract import CONTRACT
from sim.mutants.dealing import DEALING
from sim.mutants.durability import DURABILITY
from sim.mutants.judgement import JUDGEMENT
from sim.mutants.pacing import PACING
from sim.mutants.planting import Mutant
from sim.mutants.syncing import SYNCING

ALL: tuple[Mutant, ...] = (
    *AGREEMENT,
    *DEALING,
    *AGGREGATION,
    *CONTRACT,
    *DURABILITY,
    *JUDGEMENT,
    *SYNCING,
    *PACING,
)
MUTANTS: Mapping[str, Mutant] = {mutant.name: mutant for mutant in ALL}
