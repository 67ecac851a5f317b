"""`flocknode`: the command line."""

from __future__ import annotations

import click

from flocknode.cli.lazy import LazyGroup

COMMANDS = {
    "demo": ("flocknode.cli.demo:demo", "Train on real data with seven nodes on this machine."),
    "network": ("flocknode.cli.network:network", "Found a network: genesis, model, node directories."),
    "node": ("flocknode.cli.node:node", "Run a node; transfer or fund from its stake."),
    "ledger": ("flocknode.cli.ledger:ledger", "Show, verify or export a node's ledger."),
    "vectors": ("flocknode.cli.vectors:vectors", "Write test vectors for other implementations."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    plugins=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: flocknode demo",
)
@click.version_option(package_name="flocknode")
def main() -> None:
    """Federated learning without a server.

    Nodes gossip over libp2p, mask what they learned, prove that the sum is right, vote on whether it is good,
    and answer for it with their stake. Every node keeps its own ledger and reaches the same verdict.
    """


if __name__ == "__main__":
    main(prog_name="flocknode")
