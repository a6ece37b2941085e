"""Datasets of Hugging Face: a name on the hub, or a folder that `datasets` can load.

Pictures come as they were encoded and are decoded here, with the limits of `pictures.decode`.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbrush import hub
from flowbrush.data import licences
from flowbrush.data.hub_columns import captions_in, captions_of, image_column
from flowbrush.data.pictures import LARGEST_PICTURE, TOO_LARGE, decode
from flowbrush.data.source import (
    Example,
    IncompleteExample,
    Origin,
    UnreadablePicture,
    listing_sha256,
)
from flowbrush.data.zips import read_member
from flowbrush.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class HubDatasetConfig:
    """A dataset that is downloaded as a whole, once. A column of class labels is a caption too.

    captions: COLUMN or COLUMN.FIELD, or KIND=...; a list of them gives KIND.0, KIND.1, ...
    """

    name: str = ""  # on the hub, such as ylecun/mnist, or a folder
    subset: str = ""  # where the dataset has several configurations
    split: str = "train"  # also "train[:10%]", "train+test" or "all"
    picture: str = ""  # column; empty = the one of images, or "image" among several
    captions: tuple[str, ...] = ()  # empty = caption, text, ..., or label

    def build(self, size: int) -> "HubDataset":
        """Raises UserError where it cannot be had, or a column is missing."""
        return HubDataset(self, size)


class HubDataset:
    """A Source over the rows of a dataset, which stay on disk. It can be pickled."""

    def __init__(self, config: HubDatasetConfig, size: int) -> None:
        self.name, self.size = config.name, size
        loaded = _loaded(config)
        if not len(loaded):
            raise UserError(f"source.split: {config.split} of {config.name} is empty; give another")
        self._captions = captions_of(config.captions, loaded.features, config.name)
        self._picture = image_column(config.picture, loaded.features, config.name)
        self._licences = loaded.select_columns(licences.licence_columns(loaded.features)[:1])
        self._folders = _folders(config)
        self._files = [Path(file["filename"]) for file in loaded.cache_files]
        texts = {one.column for one in self._captions}
        self._rows = _undecoded(
            loaded.select_columns(sorted({self._picture, *texts})), self._picture
        )
        self._refuse_addresses()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < len(self):
            raise IndexError(i)
        row, name = self._rows[int(i)], f"{self.name}:{i}"
        captions = captions_in(row, self._captions, name)
        picture = decode(self._encoded(row[self._picture], name), self.size, name)
        return Example(picture, captions, truth=name)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the first caption's classes, if it is a label."""
        return self._captions[0].names

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the names and sizes of the files that it lies in. Licences are the first rows'."""
        sha256 = listing_sha256((file.name, file.stat().st_size) for file in self._files)
        rows = self._licences[: licences.MOST_LOOKED_AT]
        found = licences.counted(next(iter(rows.values()), ()))
        return Origin(sha256, {}, found, found.total())

    def _encoded(self, held: dict[str, Any] | None, name: str) -> bytes:
        """The bytes of an image, which are in the table, in a file that it names, or in a zip."""
        if held and held.get("bytes"):
            return held["bytes"]
        if not held or not held.get("path"):
            raise IncompleteExample(name, "no picture in this row")
        name = f"{name} ({held['path']})"
        inside, file = _place(held["path"])
        path = self._folders[0] / file  # an absolute one stays
        try:
            if not any(path.resolve().is_relative_to(folder) for folder in self._folders):
                raise UnreadablePicture(name, "a file outside of the dataset")
            if inside:
                return read_member(path, inside, LARGEST_PICTURE)
            if path.stat().st_size > LARGEST_PICTURE:
                raise UnreadablePicture(name, TOO_LARGE)
            return path.read_bytes()
        except OSError as error:
            raise UnreadablePicture(name, str(error.strerror or error)) from None
        except ValueError as error:
            raise UnreadablePicture(name, str(error)) from None
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise UnreadablePicture(name, f"in a zip that cannot be read: {error}") from None

    def _refuse_addresses(self) -> None:
        """Raises UserError where the first image is elsewhere, as then all of them are."""
        held = self._rows[0][self._picture] or {}
        scheme, found, _ = (held.get("path") or "").partition("://")
        if found and scheme != "zip" and not held.get("bytes"):
            raise UserError(
                f"source.picture: {self._picture} of {self.name} holds addresses ({scheme}://), no "
                "images; download or unpack them first"
            )


def _place(path: str) -> tuple[str, str]:
    """Of zip://INSIDE::FILE the two; of a file an empty one and the file."""
    inside, found, file = path.removeprefix("zip://").rpartition("::")
    return (inside, file) if found and path.startswith("zip://") else ("", path)


def _loaded(config: HubDatasetConfig) -> Any:
    """The split, as a table on disk."""
    if not config.name:
        raise UserError("source.name: empty; give a dataset's name on the hub, or its folder")
    if not config.split:
        raise UserError("source.split: empty; give one, such as train")
    try:
        import datasets
    except ImportError:
        raise UserError("source: datasets need pip install 'flowbrush[data]'") from None
    folder = Path(config.name).expanduser()
    try:
        if any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            return _saved_split(datasets.load_from_disk(str(folder)), config)
        name = str(folder) if folder.exists() else config.name
        return datasets.load_dataset(name, config.subset or None, split=config.split)
    except UserError:
        raise
    except Exception as error:  # of any kind: what goes wrong is up to the dataset
        raise UserError(f"source.name: {config.name} {hub.reason(error)}") from None


def _saved_split(saved: Any, config: HubDatasetConfig) -> Any:
    """The split, or a part of one, of what `save_to_disk` wrote.

    A single split that has no name is the one to train on. Raises UserError for any other.
    """
    from datasets import ReadInstruction, concatenate_datasets

    splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    if config.split in splits:
        return splits[config.split]
    if config.split == "all":
        return concatenate_datasets([*splits.values()])
    lengths = {name: len(rows) for name, rows in splits.items()}
    try:
        parts = ReadInstruction.from_spec(config.split).to_absolute(lengths)
    except (ValueError, AssertionError):
        single = "" if isinstance(saved, dict) else ", as the only one"
        raise UserError(
            f"source.split: {config.name} has no {config.split}{nearest(config.split, splits)}; it "
            f"has {', '.join(splits)}{single}"
        ) from None
    chosen = [splits[part.splitname].select(range(part.from_, part.to)) for part in parts]
    return concatenate_datasets(chosen)


def _undecoded(table: Any, column: str) -> Any:
    from datasets import Image

    try:
        return table.cast_column(column, Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"source.picture: {column} holds no pictures ({line})") from None


def _folders(config: HubDatasetConfig) -> list[Path]:
    """Where the files of a dataset may lie, which its table names."""
    from datasets import config as settings
    from huggingface_hub.constants import HF_HUB_CACHE

    given = [Path(config.name).expanduser()] if Path(config.name).expanduser().is_dir() else []
    caches = (settings.HF_CACHE_HOME, settings.HF_DATASETS_CACHE, HF_HUB_CACHE)
    return [folder.resolve() for folder in (*given, *map(Path, caches))]
