"""A folder of pictures with a CSV of labels, in the form of ChestX-ray14 (Wang et al. 2017).

The CSV, there Data_Entry_2017.csv, has a column "Image Index", the picture's file name, and a column "Finding
Labels", findings separated by "|" or "No Finding"; other columns are ignored. ChestX-ray14 itself cannot be
had without the internet, so nothing here has seen more of it than its description.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from attrs import frozen

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The fourteen of ChestX-ray14, in the order of its article."""

NO_FINDING = "No Finding"
FILE_COLUMN, LABEL_COLUMN = "Image Index", "Finding Labels"

SIDE = 64
"""Pictures are scaled to SIDE x SIDE grey values: what the small CNN of these experiments can use."""


class ImageError(ValueError):
    """Pictures or labels cannot be read; the message names the file, and the line where there is one."""


@frozen(eq=False)
class Pictures:
    """pixels float32[n, SIDE * SIDE] in [0, 1], findings bool[n, 14], in the order of the CSV."""

    pixels: npt.NDArray[np.float32]
    findings: npt.NDArray[np.bool_]


def load_images(folder: Path, labels: Path) -> Pictures:
    """Every picture that the CSV `labels` lists, read from `folder`.

    ImageError for a missing file, column or picture, a finding that is none of `FINDINGS`, a picture listed
    twice, one that cannot be decoded, or a CSV without a row.
    """
    rows = _read_labels(labels)
    pixels = np.stack([_read_picture(folder / name) for name in rows])
    return Pictures(pixels, np.array(list(rows.values()), np.bool_))


def _read_labels(path: Path) -> dict[str, tuple[bool, ...]]:
    rows: dict[str, tuple[bool, ...]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in (FILE_COLUMN, LABEL_COLUMN):
                if column not in (reader.fieldnames or ()):
                    raise ImageError(f"{path}: no column {column!r}")
            for row in reader:
                name, text = row[FILE_COLUMN], row[LABEL_COLUMN]
                where = f"{path}, line {reader.line_num}"
                if not name or text is None or Path(name).name != name:
                    raise ImageError(f"{where}: {name!r} is no file name with findings")
                if name in rows:
                    raise ImageError(f"{where}: {name} is listed twice")
                rows[name] = _parse_findings(text, where)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path}: not a CSV file: {error}") from error
    if not rows:
        raise ImageError(f"{path}: no pictures are listed")
    return rows


def _parse_findings(text: str, where: str) -> tuple[bool, ...]:
    named = [part.strip() for part in text.split("|")]
    if named == [NO_FINDING]:
        return (False,) * len(FINDINGS)
    for finding in named:
        if finding not in FINDINGS:
            raise ImageError(f"{where}: unknown label {finding!r}; known are {', '.join(FINDINGS)}")
    return tuple(finding in named for finding in FINDINGS)


def _read_picture(path: Path) -> npt.NDArray[np.float32]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            scaled = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: listed, but there is no such picture") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: a damaged picture, or none at all: {error}") from error
    return np.asarray(scaled, np.float32).ravel() / np.float32(255)
