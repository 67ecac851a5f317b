"""Every condition that a node warns its operator of, and how patiently (docs/OPERATING.md has a table)."""

from __future__ import annotations

from typing import Final

from flocknode.observe.conditions import Rule

RULES: Final[tuple[Rule, ...]] = (
    # -- the network -----------------------------------------------------------------------------
    Rule(
        name="no_peer",
        meaning="No peer is connected.",
        advice="Check this node's network, the members' addresses in node.toml, and that they run.",
        begins_after_s=5.0,
        ends_after_s=5.0,
    ),
    Rule(
        name="below_quorum",
        meaning="Fewer validators are connected than it takes to agree on a block: nothing is decided.",
        advice="Start the nodes that are missing; nothing is lost meanwhile.",
        begins_after_s=5.0,
        ends_after_s=5.0,
    ),
    Rule(
        name="peer_away",
        meaning="A validator that should be connected is not, or comes and goes.",
        advice="Ask its operator, unless other warnings say that the fault is on this side.",
        begins_after_s=20.0,
        ends_after_s=10.0,
    ),
    Rule(
        name="not_admitted",
        meaning="Peers that can be reached end every connection in its handshake.",
        advice="Ask them whether this node's peer id is in the member list of their node.toml; "
        "compare network.key; see whether their logs say `refused`.",
        begins_after_s=5.0,
        ends_after_s=10.0,
    ),
    Rule(
        name="genesis_differs",
        meaning="Peers are on another network: their genesis is not this node's.",
        advice="Compare genesis.bin: if most peers differ, this node has the wrong one.",
        begins_after_s=1.0,
        ends_after_s=10.0,
    ),
    Rule(
        name="version_differs",
        meaning="Peers speak another version of the protocol, or kinds of messages unknown to this node.",
        advice="Run the same version of flocknode everywhere.",
        begins_after_s=1.0,
        ends_after_s=10.0,
    ),
    Rule(
        name="behind",
        meaning="The network is further than this node, which is catching up.",
        advice="Wait; if it does not end, check this node's link and disk.",
        begins_after_s=5.0,
        ends_after_s=5.0,
    ),
    Rule(
        name="message_dropped",
        meaning="A peer sends more than this node takes in; what was dropped is sent again later.",
        advice="If other peers say the same of it, ask its operator; else this node is too slow.",
        ends_after_s=30.0,
    ),
    Rule(
        name="throttled",
        meaning="A peer has sent what no honest node sends, or too much; less of it is taken in.",
        advice="Ask its operator; `penalised` lines say what it sent.",
        ends_after_s=30.0,
    ),
    Rule(
        name="refused",
        meaning="A peer has gone on so, and is disconnected for a while, longer each time.",
        advice="Ask its operator; where all peers are refused, look at this node's own version and genesis.",
        ends_after_s=10.0,
    ),
    # -- this node's part in rounds ----------------------------------------------------------------
    Rule(
        name="deadline_missed",
        meaning="Training or evaluation was not done when its phase closed: update or vote did not count.",
        advice="Fewer epochs, less data or a faster machine; or a network with a longer train_deadline_ms. "
        "A phase also closes soon after most others are done (docs/PROTOCOL.md section 3.6).",
        ends_after_times=2,
    ),
    Rule(
        name="not_counted",
        meaning="What this node did in a round did not count, for another reason than being slow to learn.",
        advice="Check this node's link and load if it goes on.",
        ends_after_times=2,
    ),
    Rule(
        name="learner_busy",
        meaning="A training or evaluation of a past round still runs, and later ones wait behind it.",
        advice="If it does not end, the task hangs: restart the node and mend the task.",
        begins_after_s=5.0,
        ends_after_s=30.0,
    ),
    Rule(
        name="job_failed",
        meaning="A job of the node failed; for training, the words are the task's own.",
        advice="Mend the task; the traceback stands in the log at `job_raised`.",
        ends_after_times=2,
    ),
    Rule(
        name="abstained",
        meaning="As a voter, this node could not evaluate the models, and abstained.",
        advice="Mend the task's evaluate on the validation split.",
        ends_after_times=2,
    ),
    Rule(
        name="evaluation_failed",
        meaning="The new model could not be evaluated on the test split; only its scores are missing.",
        advice="Mend the task's evaluate on the test split.",
        ends_after_times=2,
    ),
    # -- this node's update ------------------------------------------------------------------------
    Rule(
        name="update_clipped",
        meaning="Coordinates of this node's update were beyond the clipping bound, and were cut to it.",
        advice="Lower the learning rate or the number of epochs, or found a network with a larger clip.",
        ends_after_times=2,
    ),
    Rule(
        name="same_coordinates_clipped",
        meaning="The same few coordinates are clipped in every round.",
        advice="Such values are mostly no weights but running statistics (BatchNorm's running_var) or "
        "counters: keep them out of the update, or scale them.",
        ends_after_times=2,
    ),
    Rule(
        name="samples_cut",
        meaning="This node has more samples than an update's weight can say.",
        advice="Nothing, or found a network with a larger max_weight.",
    ),
    Rule(
        name="samples_differ",
        meaning="Training says another number of samples than this node's update is weighted by.",
        advice="Have the task's train_count and the number that fit returns agree.",
        ends_after_times=2,
    ),
    # -- this node's place in the network ----------------------------------------------------------
    Rule(
        name="not_validator",
        meaning="This node has no vote and is drawn for nothing: evicted, left, or never joined.",
        advice="Have stake sent to this node, and join: `flocknode node join`.",
    ),
    Rule(
        name="short_of_stake",
        meaning="One or two lost votes more, and this node is no validator.",
        advice="Have stake sent to this node; find out why its votes or updates are refused.",
        ends_after_times=2,
    ),
    Rule(
        name="never_drawn",
        meaning="This node was not drawn for any role for longer than chance explains.",
        advice="Compare its stake and suspicion with the others': `flocknode ledger show`.",
    ),
    Rule(
        name="advert_missed",
        meaning="This node's key advert was not on the ledger when roles were drawn, round after round.",
        advice="Check this node's link, its clock of rounds (`behind`) and its load.",
    ),
)
"""In the order of docs/OPERATING.md."""
