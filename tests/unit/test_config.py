"""Node directories: what is written is read back, and whatever is wrong is named by file and key."""

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from flocknode.blobs import BlobStore
from flocknode.config import (
    CONFIG_FILE,
    GENESIS_FILE,
    Behaviour,
    ConfigError,
    LearningSettings,
    NodeConfig,
    NodeDirectory,
    NodeSettings,
    from_toml,
    load_node_dir,
    to_toml,
    write_node_dir,
)
from flocknode.keystore import DEALER_FILE, PSK_FILE, KeystoreError
from flocknode.learning.models import MODELS
from flocknode.transport.base import Member
from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.keys import Identity, peer_name
from protocol.params import MICRO, Genesis, GenesisMember, hardened, sort_members, vcdfl
from protocol.secrets import DealerPackage

IDENTITIES = [Identity.from_seed(bytes([i]) * 32) for i in range(5)]
FILE = Path("/somewhere/node.toml")
DIGITS = MODELS["digits"]
PARAMS = hardened(dimension=DIGITS.dimension, n_proposers=4, n_voters=2)
MODEL = initial_checkpoint(PARAMS, DIGITS.initial_weights(7))


def genesis(profile: object = None) -> Genesis:
    params = PARAMS if profile is None else vcdfl(dimension=DIGITS.dimension, n_proposers=4, n_voters=2)
    return Genesis(
        name="test",
        task="digits",
        params=params,
        members=sort_members([GenesisMember(identity.peer, 64 * MICRO) for identity in IDENTITIES]),
        beacon=bytes(32),
        model_digest=blob_digest(MODEL),
    )


def config() -> NodeConfig:
    return NodeConfig(
        node=NodeSettings(name="node-0", listen="/ip4/127.0.0.1/tcp/4001"),
        learning=LearningSettings(task="digits", shard=0, shards=5, seed=3, learning_rate=0.05),
        behaviour=Behaviour(kind="poison", scale=2.5),
        members=tuple(
            Member(identity.peer, f"/ip4/127.0.0.1/tcp/{4001 + i}") for i, identity in enumerate(IDENTITIES)
        ),
    )


def node_dir(path: Path) -> NodeDirectory:
    return NodeDirectory(path=path, config=config(), genesis=genesis(), identity=IDENTITIES[0])


def test_a_directory_is_read_back_and_holds_the_initial_model(tmp_path: Path) -> None:
    closed = evolve(node_dir(tmp_path / "a" / "n0"), psk=bytes(range(32)))
    dealt = evolve(
        node_dir(tmp_path / "n1"), genesis=genesis("vcdfl"), dealer=DealerPackage(b"a" * 32, b"b" * 32)
    )
    for directory in (closed, dealt):
        write_node_dir(directory, MODEL)
        assert load_node_dir(directory.path) == directory
        assert BlobStore(directory.path).read(blob_digest(MODEL)) == MODEL
        assert directory.path.stat().st_mode & 0o077 == 0
    assert "psk" not in repr(closed)


def test_a_directory_in_use_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path}: not empty"):
        write_node_dir(node_dir(tmp_path), MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_an_unfinished_directory_is_no_node(tmp_path: Path) -> None:
    path = tmp_path / "n"
    write_node_dir(node_dir(path), MODEL)
    for name in (CONFIG_FILE, GENESIS_FILE):
        (path / name).rename(tmp_path / name)
        with pytest.raises(ConfigError, match=f"{path / name}: No such file"):
            load_node_dir(path)
        (tmp_path / name).rename(path / name)
    (path / GENESIS_FILE).write_bytes(genesis().to_bytes()[:-1])
    with pytest.raises(ConfigError, match=f"{path / GENESIS_FILE}: Genesis"):
        load_node_dir(path)


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    good = node_dir(tmp_path / "n")
    mnist = evolve(good.config, learning=evolve(good.config.learning, task="mnist"))
    alone = evolve(good.config, members=good.config.members[1:])
    twice = evolve(good.config, members=(*good.config.members, good.config.members[0]))
    stranger = Identity.from_seed(b"s" * 32)
    for bad, message in (
        (evolve(good, config=mnist), "learning.task is 'mnist', the genesis is for 'digits'"),
        (evolve(good, config=alone), f"{peer_name(IDENTITIES[0].peer)} of the genesis is not listed"),
        (evolve(good, config=twice), "members: a peer is listed twice"),
        (evolve(good, identity=stranger), f"this node itself, {peer_name(stranger.peer)}, is not listed"),
        (evolve(good, dealer=DealerPackage(bytes(32), bytes(32))), f"{DEALER_FILE}: .* no use for a dealer"),
        (evolve(good, genesis=genesis("vcdfl")), f"{DEALER_FILE}: this network lacks a dealer"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_node_dir(bad, MODEL)
        assert not good.path.exists()
    with pytest.raises(ConfigError, match="initial model is not the one"):
        write_node_dir(good, MODEL + b"x")
    write_node_dir(good, MODEL)
    (good.path / CONFIG_FILE).write_text(to_toml(mnist))
    with pytest.raises(ConfigError, match=rf"{good.path / CONFIG_FILE}: learning\.task"):
        load_node_dir(good.path)


def test_a_pre_shared_key_that_is_none_is_named(tmp_path: Path) -> None:
    directory = node_dir(tmp_path / "n")
    write_node_dir(directory, MODEL)
    key = directory.path / PSK_FILE
    for content in (b"", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"\xff" * 64):
        key.write_bytes(content)
        key.chmod(0o600)
        with pytest.raises(KeystoreError, match=f"{key}: not 64 hexadecimal digits"):
            load_node_dir(directory.path)
    with pytest.raises(KeystoreError, match="32 bytes, not 31"):
        write_node_dir(evolve(node_dir(tmp_path / "m"), psk=bytes(31)), MODEL)


TEXT = to_toml(config())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "node-0"', "", "'node.name' is missing"),
        ('name = "node-0"', "name = 7", "'node.name' must be str, not int"),
        ('name = "node-0"', 'name = "a b"', "node: 'name' must match regex"),
        ('name = "node-0"', 'name = "n"\nnmae = "n"', "unknown key 'node.nmae'"),
        ("/tcp/4001", "/udp/4001/quic-v1", "node: 'listen': .*only TCP is carried"),
        ('"push"', '"shout"', r"node: 'broadcast' must be in \('push', 'gossipsub'\)"),
        ('"info"', '"loud"', "node: 'log_level' must be in"),
        ("torch_threads = 1", "torch_threads = 0", "node: 'torch_threads' must be >= 1: 0"),
        ("torch_threads = 1", "torch_threads = true", "'node.torch_threads' must be int, not bool"),
        ("torch_threads = 1", "torch_threads = 1.0", "'node.torch_threads' must be int, not float"),
        ("[learning]", "[learning]\nlearning_rte = 1", "unknown key 'learning.learning_rte'"),
        ('task = "digits"', 'task = "chess"', "learning: 'task' must be in"),
        ("shard = 0", "shard = 5", "learning: 'shard' must be below 'shards': 5 of 5"),
        ("shard = 0", "shard = -1", "learning: 'shard' must be >= 0: -1"),
        ("shards = 5", 'shards = "5"', "'learning.shards' must be int, not str"),
        ("seed = 3", "seed = 9223372036854775808", "learning: 'seed' must be <="),
        ("alpha = 0.5", "alpha = inf", "learning: 'alpha' must be finite: inf"),
        ("learning_rate = 0.05", "learning_rate = nan", "learning: 'learning_rate' must be finite: nan"),
        ('kind = "poison"', 'kind = "lazy"', "behaviour: 'kind' must be in"),
        ("scale = 2.5", "scale = [1]", "'behaviour.scale' must be float, not list"),
        ("[behaviour]", "[behavior]", "unknown key 'behavior'"),
        ("[node]", "node = 3\n[other]", "unknown key 'other'"),
        ('peer = "12D3', 'peer = "12d3', r"members\[0\].peer: "),
        ('address = "/ip4/127.0.0.1/tcp/4003"', "", r"'members\[2\].address' is missing"),
        ('"/ip4/127.0.0.1/tcp/4003"', '"localhost:4003"', r"members\[2\]: 'address': "),
        ("[node]", "[node", "Expected|expected"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=message) as caught:
        from_toml(TEXT.replace(old, new, 1).encode(), FILE)
    assert str(caught.value).startswith(f"{FILE}: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "'node.name' is missing"),
        (b"\xff\xfe", "decode"),
        (b"node = 3", "'node' must be a table"),
        (TEXT.split("[[members]]")[0].replace("[node]", "members = 1\n[node]").encode(), "array of tables"),
        (TEXT.split("[[members]]")[0].replace("[node]", "members = [1]\n[node]").encode(), r"'members\[0\]'"),
    ],
)
def test_a_file_of_another_shape_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_toml(data, FILE)


def test_integers_serve_as_floats_and_defaults_fill_in() -> None:
    text = TEXT.replace("scale = 2.5", "scale = 2").replace("learning_rate = 0.05\n", "")
    read = from_toml(text.replace('broadcast = "push"\n', "").encode(), FILE)
    assert type(read.behaviour.scale) is float
    assert read == evolve(
        config(),
        behaviour=Behaviour(kind="poison", scale=2.0),
        learning=evolve(config().learning, learning_rate=None),
    )
    assert read.learning.hyperparameters() == {}
    assert config().learning.hyperparameters() == {"learning_rate": 0.05}


learning = st.builds(
    lambda shards, **values: LearningSettings(shards=shards, shard=shards // 2, **values),
    shards=st.integers(1, 4096),
    task=st.sampled_from(["mnist", "digits", "lending-club"]),
    seed=st.integers(0, 2**63 - 1),
    partition=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.floats(1e-6, 1e6),
    epochs=st.none() | st.integers(1, 1000),
    batch_size=st.none() | st.integers(1, 2**20),
    learning_rate=st.none() | st.floats(0, 100),
    momentum=st.none() | st.floats(0, 0.999),
)


@settings(max_examples=60, deadline=None)
@given(
    learning=learning,
    name=st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z"),
    host=st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=40),
    scale=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_configuration_survives_the_file(
    learning: LearningSettings, name: str, host: str, scale: float
) -> None:
    written = evolve(
        config(),
        node=evolve(config().node, name=name, listen="/ip6/::1/tcp/0", log_level="debug"),
        learning=learning,
        behaviour=Behaviour(kind="poison", scale=scale),
        members=(*config().members, Member(bytes(32), f"/dns/{host}/tcp/65535")),
    )
    assert from_toml(to_toml(written).encode(), FILE) == written
