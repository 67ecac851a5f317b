"""p2pfl's own virtual environment: its pins contradict ours and Flower's, so it gets one to itself."""

from __future__ import annotations

import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

READY = "flocknode-bench-ready"
IMPORT = "from p2pfl.settings import Settings; Settings.general.DISABLE_RAY = True; import p2pfl.node"
"""Without Ray, of which p2pfl would start an instance when it is imported."""

REQUIREMENTS = (
    "p2pfl==0.4.4",  # what is measured
    "opendp>=0.13",  # p2pfl imports it without declaring it, but as an extra
    "pyarrow<20",  # datasets 2.15, which p2pfl pins, uses what pyarrow 20 removed
    "huggingface_hub<1",  # the same, of huggingface_hub 1
)


class VirtualEnvironmentError(RuntimeError):
    """p2pfl's environment could not be made; the message has pip's last words."""


def interpreter_of(environment: Path) -> Path:
    """Its Python."""
    return environment / "bin" / "python"


def torch_requirement() -> str:
    """The torch that we train with; a local build such as +cpu has the public version's number."""
    return f"torch=={version('torch').partition('+')[0]}"


def is_ready(environment: Path) -> bool:
    """Whether everything was installed there and p2pfl was imported once."""
    return (environment / READY).is_file() and interpreter_of(environment).exists()


def ensure(environment: Path, log: Path) -> None:
    """Make the environment if it is not there, by pip and whatever index that is set up for.

    An environment that somebody else made is taken as it is, if p2pfl can be imported in it. Raises
    `VirtualEnvironmentError`.
    """
    if is_ready(environment):
        return
    if not interpreter_of(environment).exists():
        venv.create(environment, with_pip=True)
    if not _run([str(interpreter_of(environment)), "-c", IMPORT], log):
        python = str(interpreter_of(environment))
        install = [python, "-m", "pip", "install", torch_requirement(), "numpy<2", *REQUIREMENTS]
        if not _run(install, log) or not _run([python, "-c", IMPORT], log):
            said = log.read_text(errors="replace").strip().splitlines()
            raise VirtualEnvironmentError(
                f"p2pfl could not be installed into {environment}: {said[-1] if said else 'pip said nothing'}"
            )
    (environment / READY).touch()


def _run(command: list[str], log: Path) -> bool:
    with log.open("ab") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode == 0
