"""MNIST's files: read as they are, and whatever is wrong with one is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nalu_kernels.experiments import idx
from nalu_kernels.experiments.refusal import Refusal


def idx_bytes(numbers: Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in numbers.shape)
    return bytes((0, 0, 8, numbers.dim())) + sizes + bytes(numbers.flatten().tolist())


def write_mnist(
    folder: Path, images: Tensor, labels: Tensor, *, begins: str = "t10k", compress: bool = False
) -> None:
    for name, numbers in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx_bytes(numbers)
        if compress:
            (folder / f"{begins}-{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{begins}-{name}").write_bytes(content)


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    return torch.randint(256, (5, 4, 3), generator=rng, dtype=torch.uint8)


LABELS = torch.tensor([9, 0, 3, 3, 7], dtype=torch.uint8)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("parts", [["train"], ["test"], ["train", "test"]], ids=str)
def test_read_as_written(tmp_path: Path, images: Tensor, compress: bool, parts: list[str]) -> None:
    for part in parts:
        write_mnist(tmp_path, images, LABELS, begins=idx.PARTS[part], compress=compress)
    found = idx.load(tmp_path)
    assert list(found) == parts
    for digits in found.values():
        assert torch.equal(digits.images, images) and torch.equal(digits.labels, LABELS)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    "layout",
    [
        "{begins}-{kind}.{idx}",
        "{begins}-{kind}-{idx}/{begins}-{kind}-{idx}",
        "{begins}-{kind}-{idx}/{begins}-{kind}.{idx}",
        "MNIST/raw/{begins}-{kind}-{idx}",
        "raw/{begins}-{kind}-{idx}",
    ],
)
def test_found_as_kaggle_and_torchvision_lay_them_out(
    tmp_path: Path, images: Tensor, layout: str, ending: str
) -> None:
    for begins in idx.PARTS.values():
        for kind, number, values in (("images", "idx3", images), ("labels", "idx1", LABELS)):
            name = layout.format(begins=begins, kind=kind, idx=f"{number}-ubyte") + ending
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = idx_bytes(values)
            path.write_bytes(gzip.compress(content) if ending else content)
    found = idx.load(tmp_path)
    assert list(found) == list(idx.PARTS)
    for digits in found.values():
        assert torch.equal(digits.images, images) and torch.equal(digits.labels, LABELS)


def refused(folder: Path) -> str:
    with pytest.raises(Refusal) as refusal:
        idx.load(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)
    return str(refusal.value)


def test_missing_files_are_named(tmp_path: Path, images: Tensor) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "no such folder" in refused(tmp_path / "file")
    message = refused(tmp_path)
    for looked_for in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-images.idx3"):
        assert looked_for in message
    for place in (tmp_path, tmp_path / "raw", tmp_path / "MNIST" / "raw"):
        assert str(place) in message
    assert "no such folder" in refused(tmp_path / ("long" * 99))
    write_mnist(tmp_path, images, LABELS)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert "but no t10k-labels-idx1-ubyte[.gz]" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("images-idx3", lambda content: b"", "this one with nothing"),
        ("images-idx3", lambda content: content[:3], "this one with 00 00 08"),
        ("images-idx3", lambda content: b"\x89PNG" + content[4:], "this one with 89 50 4e 47"),
        ("images-idx3", lambda content: b"\0\0\x0d\x03" + content[4:], "this one with 00 00 0d 03"),
        ("images-idx3", lambda content: content[:9], "ends within its header, after 9 bytes of 16"),
        ("images-idx3", lambda content: content[:-1], "expected 76 bytes for sizes [5, 4, 3]"),
        ("images-idx3", lambda content: content + b"1", "got 77"),
        ("images-idx3", lambda content: content[:4] + b"\xff" * 12 + content[16:], "4294967295"),
        ("labels-idx1", lambda content: content[:-1] + b"\x0a", "labels from 0 to 9, got 10"),
        ("labels-idx1", lambda content: b"\0\0\x08\x01\0\0\0\1\0", "5 images, "),
    ],
)
def test_a_corrupt_file_is_named(
    tmp_path: Path, images: Tensor, name: str, change: object, words: str
) -> None:
    write_mnist(tmp_path, images, LABELS)
    path = tmp_path / f"t10k-{name}-ubyte"
    path.write_bytes(change(path.read_bytes()))
    message = refused(tmp_path)
    assert words in message and path.name in message


@pytest.mark.parametrize("cut", [0, 5, 30, -4])
def test_a_corrupt_gzip_is_named(tmp_path: Path, images: Tensor, cut: int) -> None:
    write_mnist(tmp_path, images, LABELS, compress=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    assert path.name in refused(tmp_path)
    path.write_bytes(b"not compressed at all")
    assert "cannot be read" in refused(tmp_path)


def test_empty_and_mixed_sets_are_refused(tmp_path: Path, images: Tensor) -> None:
    write_mnist(tmp_path, images[:0], LABELS[:0])
    assert "no images in it" in refused(tmp_path)
    write_mnist(tmp_path, images, LABELS)
    write_mnist(tmp_path, images[:, :2], LABELS, begins="train")
    assert "images of one size expected" in refused(tmp_path)
