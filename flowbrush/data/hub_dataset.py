"""Datasets of Hugging Face: a name on the hub, or a folder that `datasets` can load.

Pictures come as they were encoded and are decoded here, with the limits of `pictures.decode`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbrush import hub
from flowbrush.data import columns, licences
from flowbrush.data.columns import caption_columns, existing
from flowbrush.data.pictures import LARGEST_PICTURE, TOO_LARGE, decode
from flowbrush.data.source import (
    Example,
    IncompleteExample,
    Origin,
    UnreadablePicture,
    listing_sha256,
)
from flowbrush.errors import UserError, nearest

LABELS = ("label", "fine_label", "labels", "class")


@dataclass(frozen=True, kw_only=True)
class HubDatasetConfig:
    """A dataset that is downloaded as a whole, once. A column of class labels is a caption too."""

    name: str = ""  # on the hub, such as ylecun/mnist, or a folder
    subset: str = ""  # where the dataset has several configurations
    split: str = "train"  # also "train[:10%]"
    picture: str = ""  # column; empty = the one of pictures
    captions: tuple[str, ...] = ()  # columns, or KIND=COLUMN; empty = caption, text, ..., or label

    def build(self, size: int) -> "HubDataset":
        """Raises UserError where it cannot be had, or a column is missing."""
        return HubDataset(self, size)


class HubDataset:
    """A Source over the rows of a dataset, which stay on disk. It can be pickled."""

    def __init__(self, config: HubDatasetConfig, size: int) -> None:
        self.name, self.size = config.name, size
        loaded = _loaded(config)
        self._kinds = _captions(config, loaded.features)
        self._names = {
            column: tuple(loaded.features[column].names)
            for column in self._kinds.values()
            if _is_labels(loaded.features[column])
        }
        self._picture = _picture_column(config, loaded.features)
        self._licences = loaded.select_columns(licences.licence_columns(loaded.features)[:1])
        self._folders = _folders(config)
        self._files = [Path(file["filename"]) for file in loaded.cache_files]
        self._rows = _undecoded(loaded, self._picture).select_columns(
            sorted({self._picture, *self._kinds.values()})
        )
        if not len(self):
            raise UserError(f"source.split: {config.split} of {config.name} is empty; give another")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < len(self):
            raise IndexError(i)
        row, name = self._rows[int(i)], f"{self.name}:{i}"
        captions = columns.captions_of(self._kinds, lambda c: self._text(row[c], c), name)
        picture = decode(self._encoded(row[self._picture], name), self.size, name)
        return Example(picture, captions, truth=name)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the first caption's classes, if it is a label."""
        return self._names.get(next(iter(self._kinds.values())), ())

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
        """The bytes of a picture, which stand in the table or in a file that it names."""
        if held and held.get("bytes"):
            return held["bytes"]
        if not held or not held.get("path"):
            raise IncompleteExample(name, "no picture in this row")
        path, name = Path(held["path"]), f"{name} ({held['path']})"
        try:
            if not any(path.resolve().is_relative_to(folder) for folder in self._folders):
                raise UnreadablePicture(name, "a file outside of the dataset")
            if path.stat().st_size > LARGEST_PICTURE:
                raise UnreadablePicture(name, TOO_LARGE)
            return path.read_bytes()
        except OSError as error:
            raise UnreadablePicture(name, str(error.strerror)) from None

    def _text(self, value: Any, column: str) -> Any:
        if (names := self._names.get(column)) and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return value


def _loaded(config: HubDatasetConfig) -> Any:
    """The split, as a table on disk."""
    if not config.name:
        raise UserError("source.name: empty; give a dataset's name on the hub, or its folder")
    try:
        import datasets
    except ImportError:
        raise UserError("source: datasets need pip install 'flowbrush[data]'") from None
    folder = Path(config.name).expanduser()
    try:
        if any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(str(folder))
            return _split(saved, config) if isinstance(saved, dict) else saved
        name = str(folder) if folder.exists() else config.name
        return datasets.load_dataset(name, config.subset or None, split=config.split)
    except UserError:
        raise
    except Exception as error:  # of any kind: what goes wrong is up to the dataset
        raise UserError(f"source.name: {config.name} {hub.reason(error)}") from None


def _split(saved: dict[str, Any], config: HubDatasetConfig) -> Any:
    if config.split not in saved:
        raise UserError(
            f"source.split: {config.name} has no {config.split}{nearest(config.split, saved)}; it "
            f"has {', '.join(saved)}"
        )
    return saved[config.split]


def _picture_column(config: HubDatasetConfig, features: Any) -> str:
    from datasets import Image

    if config.picture:
        return existing(config.picture, list(features), config.name, "source.picture")
    if found := next((n for n, kind in features.items() if isinstance(kind, Image)), ""):
        return found
    if found := next((name for name in columns.PICTURES if name in features), ""):
        return found
    raise UserError(
        f"source.picture: no column of pictures is known among {', '.join(features)} of "
        f"{config.name}; give one"
    )


def _undecoded(table: Any, column: str) -> Any:
    from datasets import Image

    try:
        return table.cast_column(column, Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"source.picture: {column} holds no pictures ({line})") from None


def _captions(config: HubDatasetConfig, features: Any) -> dict[str, str]:
    if kinds := caption_columns(config.captions, list(features), config.name):
        return kinds
    for column in LABELS:
        if column in features and _is_labels(features[column]):
            return {column: column}
    raise UserError(
        f"source.captions: no column of captions is known among {', '.join(features)} of "
        f"{config.name}; give one"
    )


def _is_labels(kind: Any) -> bool:
    from datasets import ClassLabel

    return isinstance(kind, ClassLabel)


def _folders(config: HubDatasetConfig) -> list[Path]:
    """Where the files of a dataset may lie, which its table names."""
    from datasets import config as settings

    given = [Path(config.name).expanduser()] if Path(config.name).expanduser().is_dir() else []
    caches = (settings.HF_CACHE_HOME, settings.HF_DATASETS_CACHE)
    return [folder.resolve() for folder in (*given, *map(Path, caches))]
