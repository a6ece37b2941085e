"""Which columns of a Hugging Face dataset hold images and captions, by their names and types."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flowbrush.data import columns
from flowbrush.data.columns import caption_columns, existing
from flowbrush.data.source import IncompleteExample
from flowbrush.errors import UserError

LABELS = ("label", "fine_label", "labels", "class")
LISTS = ("captions", "texts", "sentences", "alt_texts")  # known names beside `columns.CAPTIONS`
LANGUAGE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2,8})*")  # en, ja, pt-BR, zh_Hans


@dataclass(frozen=True)
class Captions:
    """Where captions stand in a row: a text, the number of a class, or a list of either.

    fields: of structs that lead from the column there; a number is a place in a list.
    """

    kind: str
    column: str
    fields: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of classes

    def of(self, row: Mapping[str, Any], name: str) -> dict[str, str]:
        """By kind. Those of a list are KIND.0, KIND.1, ...; what is empty in it is passed over.

        Raises IncompleteExample where there is none, UnreadablePicture where one is too long.
        """
        where = ".".join((self.column, *self.fields))
        value = _inside(row[self.column], self.fields)
        if not isinstance(value, list):
            return {self.kind: columns.one_line(self._text(value), where, name)}
        texts = [text for one in value if (text := self._text(one)) and text.strip()]
        if not texts:
            raise IncompleteExample(name, f"no caption in {where}")
        return {
            f"{self.kind}.{i}": columns.one_line(text, where, name) for i, text in enumerate(texts)
        }

    def _text(self, value: Any) -> Any:
        if self.names and isinstance(value, int):
            return self.names[value] if 0 <= value < len(self.names) else None
        return value


def captions_in(row: Mapping[str, Any], kinds: Iterable[Captions], name: str) -> dict[str, str]:
    """Those that a row has, by kind. Raises what `captions_from` raises."""
    readers = [(one.column, partial(one.of, row, name)) for one in kinds]
    return columns.captions_from(readers, name)


def captions_of(given: tuple[str, ...], features: Mapping[str, Any], where: str) -> list[Captions]:
    """The captions that are given, as COLUMN.FIELD or KIND=COLUMN.FIELD, or those with known names.

    Raises UserError for a column that is not there or holds no text, and where none is known.
    """
    paths = list(features)
    for text in given:
        path = text.rpartition("=")[2]
        if text not in features and path not in features and path.partition(".")[0] in features:
            paths.append(path)
    if given:
        kinds = caption_columns(given, paths, where)
        return _told_apart([one for k, path in kinds.items() for one in _given(k, path, features)])
    known = caption_columns((), list(features), where) or {n: n for n in LISTS if n in features}
    reasons = dict[str, str]()
    found = list[Captions]()
    for kind, column in known.items():
        try:
            found += _given(kind, column, features)
        except UserError as error:
            reasons[column] = str(error)
    if found:
        return _told_apart(found)
    if reasons:
        raise UserError(next(iter(reasons.values())))
    for column in LABELS:
        if column in features and (names := _classes(features[column])):
            return [Captions(column, column, names=names)]
    raise UserError(
        f"source.captions: no column of captions is known among {', '.join(features)} of {where}; "
        "give one"
    )


def _given(kind: str, path: str, features: Mapping[str, Any]) -> Iterator[Captions]:
    """Those of one column: several where it is a struct of texts in different languages."""
    column, *fields = (path,) if path in features else path.split(".")
    feature = _feature(features[column], fields)
    if feature is None:
        raise UserError(
            f"source.captions: {column} has no {'.'.join(fields)}; it holds {features[column]}"
        )
    if (names := _text_names(feature)) is not None:
        yield Captions(kind, column, tuple(fields), names)
        return
    inner = _fields(feature)
    texts = {field: names for field in inner if (names := _text_names(inner[field])) is not None}
    known = [field for field in (*columns.CAPTIONS, *LISTS, "raw") if field in texts]
    if known or len(texts) == 1:
        field = known[0] if known else next(iter(texts))
        yield Captions(kind, column, (*fields, field), texts[field])
    elif texts and all(map(LANGUAGE.fullmatch, texts)):
        for field, names in texts.items():
            yield Captions(field, column, (*fields, field), names)
    elif texts:
        raise UserError(
            f"source.captions: {path} holds {', '.join(texts)}; give one, as in "
            f"--source.captions {path}.{next(iter(texts))}"
        )
    else:
        raise UserError(f"source.captions: {path} holds {feature}, no text; give another column")


def _told_apart(found: list[Captions]) -> list[Captions]:
    """Kinds that two columns share go by their whole paths."""
    kinds = [one.kind for one in found]
    return [
        one
        if kinds.count(one.kind) == 1
        else Captions(".".join((one.column, *one.fields)), one.column, one.fields, one.names)
        for one in found
    ]


def _inside(value: Any, fields: Iterable[str]) -> Any:
    for field in fields:
        if isinstance(value, list) and field.isdigit():
            value = value[int(field)] if int(field) < len(value) else None
        elif isinstance(value, list):
            value = [one.get(field) for one in value if isinstance(one, dict)]
        else:
            value = value.get(field) if isinstance(value, dict) else None
    return value


def _feature(feature: Any, fields: Iterable[str]) -> Any:
    """What stands at the end of the fields; None where it is not there."""
    for field in fields:
        if field.isdigit() and (item := _item(feature)) is not None:
            feature = item
        else:
            feature = _fields(feature).get(field)
    return feature


def _item(feature: Any) -> Any:
    """What a list holds; None for what is none."""
    from datasets import LargeList, List

    return feature.feature if isinstance(feature, LargeList | List) else None


def _fields(feature: Any) -> dict[str, Any]:
    """Of a struct, or of each in a list of them."""
    from datasets import Translation, Value

    if isinstance(feature, Translation):
        return dict.fromkeys(feature.languages, Value("string"))
    if (item := _item(feature)) is not None:
        return _fields(item)
    return dict(feature) if isinstance(feature, dict) else {}


def _text_names(feature: Any) -> tuple[str, ...] | None:
    """Of a class label or a list of them; () of a text or a list of those, None of other things."""
    from datasets import Value

    if (item := _item(feature)) is not None and _item(item) is None:
        return _text_names(item)
    if names := _classes(feature):
        return names
    text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    return () if text else None


def _classes(feature: Any) -> tuple[str, ...]:
    from datasets import ClassLabel

    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def image_column(given: str, features: Mapping[str, Any], where: str) -> str:
    """The column that is given; or the one of images, by its name if there are several.

    Raises UserError where none is known, or which of several is meant.
    """
    if given:
        existing(given, list(features), where, "source.picture")
        if isinstance(_item(features[given]), _image()):
            raise UserError(_several(given, where))
        return given
    images = [name for name, kind in features.items() if isinstance(kind, _image())]
    encoded = [name for name, kind in features.items() if _is_encoded(kind)]
    known = [n for n in columns.PICTURES if n in images or n in encoded]
    found = known or images or encoded
    if len(found) == 1 or "image" in known:
        return found[0]
    if found:
        raise UserError(
            f"source.picture: {where} has several columns of images, {', '.join(found)}; give the "
            "one to be learned"
        )
    for name, kind in features.items():
        if isinstance(_item(kind), _image()):
            raise UserError(_several(name, where))
    if named := [name for name in columns.PICTURES if name in features]:
        return named[0]  # of paths, which `datasets` takes for images
    raise UserError(
        f"source.picture: no column of pictures is known among {', '.join(features)} of {where}; "
        "give one"
    )


def _several(column: str, where: str) -> str:
    return (
        f"source.picture: {column} of {where} holds several images a row; give a column with one, "
        "or write a row for each"
    )


def _image() -> type:
    from datasets import Image

    return Image


def _is_encoded(feature: Any) -> bool:
    """Bytes, or a struct of them as images are stored."""
    from datasets import Value

    if isinstance(feature, dict):
        feature = feature.get("bytes")
    return isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
