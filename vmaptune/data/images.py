"""Images with labels from files: the IDX files of MNIST and its kin, or folders with one folder of images a class."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmaptune.data.splits import Splits, split_rows
from vmaptune.errors import ConfigError, did_you_mean

_IDX = {"train": "train", "test": "t10k"}
_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_BYTES = 0x08  # the type of an IDX file's elements, unsigned bytes: the only one that data sets of images use


class Images(NamedTuple):
    """A data set of images.

    Attributes:
        splits: Parts of `(f32[n, height, width, channels], i32[n])`: pixels in [0, 1], labels 0..classes-1.
        classes: The name of each label.
    """

    splits: Splits
    classes: tuple[str, ...]


def load_images(
    path: str,
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    limit: int = 0,
    size: int = 0,
    where: str = "data",
) -> Images:
    """Reads a folder of images.

    It holds IDX files by MNIST's names (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and `t10k-...` for the test
    split, each gzipped or not); or a folder of images for each class; or folders `train`, `validation` and `test` of such.
    A part without files of its own is cut from train, with the same share of every class.

    Args:
        path: The folder.
        validation: Share of the images outside of given parts for validation, if that has no files.
        test: Share of them for test, if that has no files.
        seed: Seed of the cut and of the limit.
        limit: Training images to keep, drawn at random; 0: all.
        size: Height and width in pixels to which images are resized; 0: none is, and all must be of one size.
        where: What to call the data in an error.

    Returns:
        The images; of a folder, in one channel if all are grey, else in red, green and blue.

    Raises:
        ConfigError: A file is missing, unreadable, truncated or of another format; there are no images, images of different
            sizes, or images of one class only; a class is too small to be cut.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise ConfigError(f"{where}: {what}: {path}; give a folder of IDX files, or of folders of images, one a class")
    idx = any(folder.glob("*idx3-ubyte*"))
    parts, classes = _idx_parts(folder, size, where) if idx else _folder_parts(folder, size, where)
    if len(classes) < 2:
        raise ConfigError(f"{where}: one class only, {', '.join(classes)}, in {path}; a classifier needs two or more")
    expected = parts["train"][0].shape[1:]
    for part, (pixels, _) in parts.items():
        if pixels.shape[1:] != expected:
            raise ConfigError(f"{where}: images of the {part} split are {pixels.shape[1:]}, of train {expected}; set size")
    return Images(_cut(parts, validation, test, seed, limit, where), classes)


def read_images(files: Sequence[str | Path], shape: tuple[int, ...], *, size: int = 0, where: str = "data") -> np.ndarray:
    """Reads image files as a trained network wants them.

    Args:
        files: Their paths; a folder stands for the images in it.
        shape: Height, width and channels of an image.
        size: Height and width to which images are resized; 0: none is.
        where: What to call the data in an error.

    Returns:
        Their pixels u8[n, height, width, channels].

    Raises:
        ConfigError: One cannot be read, or is of another size, or has colours where the network knows none.
    """
    found = []
    for file in map(Path, files):
        if not file.is_file():
            raise ConfigError(f"{where}: there is no image {str(file)!r}")
        pixels = _read(file, size, where)
        pixels = _coloured(pixels) if shape[-1] == 3 else pixels
        if pixels.shape != shape:
            raise ConfigError(f"{where}: the network takes images of shape {shape}; given: {pixels.shape}, {file}")
        found.append(pixels)
    return np.stack(found)


def image_files(path: str | Path, where: str = "data") -> list[Path]:
    """The image files in a folder and its folders, in order, or the one that a path names.

    Raises:
        ConfigError: There is none.
    """
    found = sorted(p for p in Path(path).rglob("*") if p.suffix.lower() in _SUFFIXES) if Path(path).is_dir() else [Path(path)]
    if not found:
        raise ConfigError(f"{where}: no images in {path}; known are files of {', '.join(sorted(_SUFFIXES))}")
    return found


def _cut(parts: dict[str, Any], validation: float, test: float, seed: int, limit: int, where: str) -> Splits:
    """The three parts, those that are not given cut from train; pixels scaled to [0, 1]."""
    pixels, labels = parts.pop("train")
    validation, test = 0.0 if "validation" in parts else validation, 0.0 if "test" in parts else test
    try:
        rows = split_rows(len(labels), validation=validation, test=test, seed=seed, stratify=labels)
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('data: ')}") from None
    if 0 < limit < len(rows[0]):
        rows = (np.sort(np.random.default_rng(seed).permutation(rows[0])[:limit]), *rows[1:])
    cut = {part: (pixels[taken], labels[taken]) for part, taken in zip(Splits._fields, rows, strict=True)} | parts
    return Splits(*((cut[part][0].astype(np.float32) / np.float32(255), cut[part][1]) for part in Splits._fields))


# ------------------------------------------------------------------------------------------------------------ IDX files


def _idx_parts(folder: Path, size: int, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    parts: dict[str, Any] = {}
    for part, prefix in _IDX.items():
        if part == "test" and not any(folder.glob(f"{prefix}-*")):
            continue
        pixels, labels = (_idx(_found(folder, f"{prefix}-{what}", where), where) for what in ("images-idx3", "labels-idx1"))
        if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
            given = f"{pixels.shape} and {labels.shape}"
            raise ConfigError(f"{where}: images and labels of {prefix} do not fit together; given: {given} in {folder}")
        if not len(labels):
            raise ConfigError(f"{where}: no images in the {part} files of {folder}")
        resized = np.stack([_resized(image, size) for image in pixels]) if size else pixels
        parts[part] = resized[..., None], labels.astype(np.int32)
    count = max(int(labels.max()) for _, labels in parts.values()) + 1
    present = len(np.unique(parts["train"][1]))
    return parts, tuple(map(str, range(count))) if present > 1 else (str(parts["train"][1][0]),)


def _found(folder: Path, stem: str, where: str) -> Path:
    for name in (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    names = [path.name for path in folder.iterdir()]
    raise ConfigError(f"{where}: no file {stem}-ubyte or {stem}-ubyte.gz in {folder}{did_you_mean(stem, names)}")


def _idx(path: Path, where: str) -> np.ndarray:
    """The array u8[...] of an IDX file, gzipped or not.

    References:
        LeCun, Cortes & Burges, The MNIST Database of Handwritten Digits, 1998
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{where}: cannot read {path}: {error}") from None
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != bytes([0, 0, _BYTES]) or not dimensions or len(content) < start:
        raise ConfigError(f"{where}: {path} is no IDX file of unsigned bytes; it begins with {content[:4].hex() or 'nothing'}")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    if len(content) - start != math.prod(shape):
        expected = f"{math.prod(shape):,} bytes for shape {shape}"
        raise ConfigError(f"{where}: {path} is damaged: expected {expected}; given: {len(content) - start:,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# --------------------------------------------------------------------------------------------------------------- folders


def _folder_parts(folder: Path, size: int, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    given = {
        part: next((folder / name for name in names if (folder / name).is_dir()), None) for part, names in _FOLDERS.items()
    }
    folders = {part: path for part, path in given.items() if path} if given["train"] else {"train": folder}
    classes = tuple(path.name for path in _sorted(folders["train"]) if path.is_dir())
    if not classes:
        raise ConfigError(f"{where}: no images in {folders['train']}; it must hold a folder of images for each class")
    read = {part: _read_part(path, classes, size, where) for part, path in folders.items()}
    grey = all(pixels.shape[-1] == 1 for pixels, _ in read.values())
    return {part: (pixels if grey else _coloured(pixels), labels) for part, (pixels, labels) in read.items()}, classes


def _read_part(folder: Path, classes: tuple[str, ...], size: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The images u8[n, height, width, channels] of a part, and their labels i32[n]."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    first = None
    for subfolder in (path for path in _sorted(folder) if path.is_dir()):
        if subfolder.name not in classes:
            raise ConfigError(f"{where}: {subfolder} is of no class of train{did_you_mean(subfolder.name, classes)}")
        files = [path for path in sorted(subfolder.rglob("*")) if path.suffix.lower() in _SUFFIXES]
        if not files:
            raise ConfigError(f"{where}: no images in {subfolder}; known are files of {', '.join(sorted(_SUFFIXES))}")
        for file in files:
            image, first = _read(file, size, where), first or file
            if images and image.shape[:2] != images[0].shape[:2]:
                sizes = f"{image.shape[1]}x{image.shape[0]}, {first} is {images[0].shape[1]}x{images[0].shape[0]}"
                raise ConfigError(f"{where}: images differ in size: {file} is {sizes}; set size to resize them all")
            images.append(image)
        labels += [classes.index(subfolder.name)] * len(files)
    if not images:
        raise ConfigError(f"{where}: no images in {folder}; it must hold a folder of images for each class")
    grey = all(image.shape[-1] == 1 for image in images)
    return np.stack(images if grey else [_coloured(image) for image in images]), np.asarray(labels, np.int32)


def _sorted(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _read(file: Path, size: int, where: str) -> np.ndarray:
    """The pixels u8[height, width, 1 or 3] of an image file."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise ConfigError(f"{where}: {file} has pixels of mode {image.mode}; convert it to 8 bits a channel")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own, and what its decoders raise
        raise ConfigError(f"{where}: cannot read the image {file}: {error}") from None
    pixels = _resized(pixels, size) if size else pixels
    return pixels.reshape(*pixels.shape[:2], -1)


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """The image u8[size, size] or u8[size, size, 3], bilinear, averaging where it shrinks."""
    from PIL import Image

    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
