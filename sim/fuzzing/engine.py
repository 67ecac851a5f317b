"""The target over `Engine.handle`: a real node in the middle of a round hears whatever members may sign.

The engine must not raise, its effects must be sound (`soundness`), what it says in answer and what it holds
must stay within bounds (`victim`, `bounds`).
"""

from __future__ import annotations

from random import Random

from attrs import define, field

from sim.fuzzing.bending import Bender
from sim.fuzzing.bounds import check_bounds
from sim.fuzzing.chances import Chances
from sim.fuzzing.histories import Moment, ground
from sim.fuzzing.inputs import bent_input, moment_of, seeds_of
from sim.fuzzing.steps import Steps
from sim.fuzzing.victim import Victim

PROFILES = ("hardened", "vcdfl")
MOST_STEPS = 4
INPUTS_OF_A_LIFE = 100
"""After so many inputs a node is made anew from what it held at its moment."""
INPUT_BYTES = 256


@define(eq=False)
class _Life:
    victim: Victim
    inputs: list[bytes] = field(factory=list)


@define(eq=False)
class EngineTarget:
    """An input names a moment by its first two bytes; the rest decides the steps.

    Building a node takes longer than a step, so a node hears many inputs. `history` is what replays a crash.
    """

    input_bytes: int = INPUT_BYTES
    moments: list[Moment] = field(init=False)
    _lives: dict[int, _Life] = field(factory=dict, init=False)
    _last: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.moments = [moment for profile in PROFILES for moment in ground(profile).moments]

    def __call__(self, data: bytes) -> None:
        """One execution. Raises whatever the node does wrong."""
        self._last = index = moment_of(data, len(self.moments))
        life = self._lives.get(index)
        if life is None or len(life.inputs) >= INPUTS_OF_A_LIFE or life.victim.ended is not None:
            life = self._lives[index] = _Life(Victim(self.moments[index], works=False))
        life.inputs.append(data)
        draw, victim = Chances(data[2:]), life.victim
        steps = Steps(victim, Bender(victim.moment.ground))
        for _ in range(1 + draw.randrange(MOST_STEPS)):
            steps.take(draw)
            if victim.ended is not None:
                break
        check_bounds(victim.engine, victim.forged)

    def history(self) -> list[bytes]:
        """The inputs that the node of the last execution has heard, that one included."""
        life = self._lives.get(self._last)
        return [] if life is None else list(life.inputs)

    def seeds(self) -> list[bytes]:
        """One input for each moment."""
        return seeds_of(len(self.moments))

    def bent(self, data: bytes, draw: Random) -> bytes:
        """An input near this one: other steps, often at the same moment."""
        return bent_input(data, draw, self.input_bytes, 4)
