"""MNIST in its own files: images and labels in the IDX format.

An IDX file is two zero bytes, a byte for the type of its numbers (8: unsigned bytes), a byte for
how many dimensions it has, the size of each as a big-endian 32-bit integer, and the numbers.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .refusal import Refusal

PARTS = {"train": "train", "test": "t10k"}  # and how their files' names begin
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")  # and end; or with a dot: images.idx3-ubyte
_WITHIN = ("", "raw", "MNIST/raw")  # the latter two as torchvision keeps them
_UNSIGNED_BYTES = 8


class Digits(NamedTuple):
    """images: (count, rows, columns), unsigned bytes; labels: (count,), 0 to 9."""

    images: Tensor
    labels: Tensor


def load(folder: Path) -> dict[str, Digits]:
    """The parts of MNIST, "train" and "test", that ``folder`` has, or its raw or MNIST/raw: the
    first of these that has any. Each file plain or as .gz, named as in train-images-idx3-ubyte or
    train-images.idx3-ubyte, alone or in a folder of such a name.

    Raises:
        Refusal: naming the file, what was expected and what was found.
    """
    if not os.path.isdir(folder):  # where a path's own is_dir() may raise
        raise Refusal(f"--data {folder}: no such folder")
    found: dict[str, Digits] = {}
    for within in _WITHIN:
        for part, begins in PARTS.items():
            images, labels = (_path(folder / within, begins, kind) for kind in _KINDS)
            if images and labels:
                found[part] = _pair(images, labels)
            elif images or labels:
                missing = _KINDS[0] if labels else _KINDS[1]
                raise Refusal(
                    f"--data {folder}: {images or labels} is there, but no {begins}-{missing}[.gz]"
                )
        if found:
            break
    else:
        names = ", ".join(f"{begins}-{kind}" for begins in PARTS.values() for kind in _KINDS)
        places = ", ".join(str(folder / within) for within in _WITHIN)
        raise Refusal(
            f"--data {folder}: expected MNIST's files there; looked for {names}, each also with a "
            "dot (train-images.idx3-ubyte), with .gz, and in a folder of its own name, in "
            f"{places}"
        )
    sizes = {tuple(digits.images.shape[1:]) for digits in found.values()}
    if len(sizes) > 1:
        raise Refusal(f"--data {folder}: images of one size expected, got {sorted(sizes)}")
    return found


def read(path: Path, dimensions: int) -> Tensor:
    """The unsigned bytes in an IDX file of so many dimensions; Refusal if it is not one."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise Refusal(f"{path}: cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if content[:4] != magic:
        raise Refusal(
            f"{path}: an IDX file of unsigned bytes in {dimensions} dimensions begins with "
            f"{magic.hex(' ')}, this one with {content[:4].hex(' ') or 'nothing'}"
        )
    if len(content) < header:
        raise Refusal(f"{path}: ends within its header, after {len(content)} bytes of {header}")
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    count = math.prod(sizes)
    if len(content) != header + count:
        raise Refusal(
            f"{path}: expected {header + count} bytes for sizes {sizes}, got {len(content)}"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(sizes)


def _path(folder: Path, begins: str, kind: str) -> Path | None:
    """The file of one of its names, or its compressed form."""
    return next(filter(os.path.isfile, _candidates(folder, begins, kind)), None)


def _candidates(folder: Path, begins: str, kind: str) -> Iterator[Path]:
    names = (f"{begins}-{kind}", f"{begins}-{kind.replace('-', '.', 1)}")
    files = [f"{name}{ending}" for name in names for ending in ("", ".gz")]
    for place in (folder, *(folder / file for file in files)):
        yield from (place / file for file in files)


def _pair(images_path: Path, labels_path: Path) -> Digits:
    images, labels = read(images_path, 3), read(labels_path, 1)
    if len(images) != len(labels):
        raise Refusal(f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels")
    if not images.numel():
        raise Refusal(f"{images_path}: no images in it")
    if labels.max() > 9:
        raise Refusal(f"{labels_path}: expected labels from 0 to 9, got {int(labels.max())}")
    return Digits(images, labels)
