"""`sim -> flocknode -> protocol`, one way; `protocol` touches no clock, file, socket, thread or entropy."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

THIRD_PARTY = {"numpy", "numba", "cryptography", "nacl", "attrs", "attr", "cattrs", "msgpack"}
IMPURE = {
    "asyncio", "concurrent", "datetime", "glob", "http", "importlib", "io", "locale", "multiprocessing",
    "os", "pathlib", "platform", "queue", "random", "sched", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib", "uuid",
}  # fmt: skip
ALLOWED = (set(sys.stdlib_module_names) - IMPURE) | THIRD_PARTY | {"protocol"}
# `hash` of bytes and str differs between processes; the others read or write outside.
IMPURE_BUILTINS = {"open", "input", "print", "hash", "__import__", "exec", "eval"}
# Constructors of the cryptography package that draw their own entropy, and numpy's generators.
ENTROPY_ATTRIBUTES = {"generate", "generate_key", "generate_private_key", "random", "default_rng"}
# What may be taken of PyNaCl, many of whose functions draw entropy.
NACL_NAMES = {"crypto_sign", "crypto_sign_open", "crypto_sign_seed_keypair", "BadSignatureError"}


def _python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module), with a leading dot for a relative import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def _of_nacl(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        taken = [alias.name for alias in node.names if alias.name.split(".")[0] == "nacl"]
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nacl":
        taken = [alias.name for alias in node.names if alias.name not in NACL_NAMES]
    else:
        return
    for name in taken:
        yield f"line {node.lineno}: takes {name} of nacl"


def _impurities(source: str) -> list[str]:
    tree = ast.parse(source)
    found = []
    for line, module in _imports(tree):
        if module.startswith("."):
            found.append(f"line {line}: relative import of {module}")
        elif module.split(".")[0] not in ALLOWED:
            found.append(f"line {line}: imports {module}")
    for node in ast.walk(tree):
        found += _of_nacl(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            found.append(f"line {node.lineno}: calls {node.func.id}")
        if isinstance(node, ast.Attribute) and node.attr in ENTROPY_ATTRIBUTES:
            found.append(f"line {node.lineno}: uses .{node.attr}")
    return found


@pytest.mark.parametrize("path", _python_files("protocol"), ids=lambda path: str(path.relative_to(ROOT)))
def test_protocol_is_pure(path: Path) -> None:
    assert _impurities(path.read_text()) == []


@pytest.mark.parametrize(
    ("package", "forbidden"), [("protocol", {"flocknode", "sim", "tests"}), ("flocknode", {"sim", "tests"})]
)
def test_dependencies_point_one_way(package: str, forbidden: set[str]) -> None:
    files = _python_files(package)
    assert files
    backward = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files
        for line, module in _imports(ast.parse(path.read_text()))
        if module.split(".")[0] in forbidden
    ]
    assert backward == []


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "import os.path as p",
        "from time import monotonic",
        "from . import field",
        "from flocknode.store import Store",
        "import torch",
        "def f():\n    import asyncio",
        "x = hash(b'')",
        "k = X25519PrivateKey.generate()",
        "import numpy as np\nx = np.random.default_rng()",
        "open('x')",
        "from nacl.bindings import randombytes",
        "import nacl.utils",
    ],
)
def test_the_rule_sees_an_offence(source: str) -> None:
    assert _impurities(source)


def test_the_rule_lets_pure_code_pass() -> None:
    pure = "import hashlib\nimport numpy as np\nfrom protocol.algebra import field\nfrom attrs import frozen"
    assert _impurities(pure) == []
