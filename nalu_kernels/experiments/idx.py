"""MNIST in its own files: images and labels in the IDX format.

An IDX file is two zero bytes, a byte for the type of its numbers (8: unsigned bytes), a byte for
how many dimensions it has, the size of each as a big-endian 32-bit integer, and the numbers.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .refusal import Refusal

PARTS = {"train": "train", "test": "t10k"}  # and how their files' names begin
_UNSIGNED_BYTES = 8


class Digits(NamedTuple):
    """images: (count, rows, columns), unsigned bytes; labels: (count,), 0 to 9."""

    images: Tensor
    labels: Tensor


def load(folder: Path) -> dict[str, Digits]:
    """The parts of MNIST, "train" and "test", that ``folder`` has; each file plain or as .gz.

    Raises:
        Refusal: naming the file, what was expected and what was found.
    """
    if not folder.is_dir():
        raise Refusal(f"--data {folder}: no such folder")
    found: dict[str, Digits] = {}
    for part, begins in PARTS.items():
        names = (f"{begins}-images-idx3-ubyte", f"{begins}-labels-idx1-ubyte")
        paths = [_path(folder, name) for name in names]
        images, labels = paths
        if images and labels:
            found[part] = _pair(images, labels)
        elif images or labels:
            missing = names[0] if labels else names[1]
            raise Refusal(f"--data {folder}: {images or labels} is there, but no {missing}[.gz]")
    if not found:
        raise Refusal(
            f"--data {folder}: expected MNIST's files there, such as t10k-images-idx3-ubyte[.gz] "
            "and t10k-labels-idx1-ubyte[.gz]"
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


def _path(folder: Path, name: str) -> Path | None:
    """The file of this name, or its compressed form."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def _pair(images_path: Path, labels_path: Path) -> Digits:
    images, labels = read(images_path, 3), read(labels_path, 1)
    if len(images) != len(labels):
        raise Refusal(f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels")
    if not images.numel():
        raise Refusal(f"{images_path}: no images in it")
    if labels.max() > 9:
        raise Refusal(f"{labels_path}: expected labels from 0 to 9, got {int(labels.max())}")
    return Digits(images, labels)
