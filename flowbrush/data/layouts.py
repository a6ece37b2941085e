"""How a folder of images keeps its captions: seen from its files, or as the user says.

    pairs     images/NAME.jpg and captions/NAME.txt
    beside    NAME.jpg and NAME.txt or NAME.caption
    table     metadata.jsonl, .csv or .parquet, whose rows name the images
    classes   CLASS/NAME.jpg: the folder's name is the caption

Where the layout is seen, a file that may hold captions is not passed over unless the user says so:
what would be learned instead, such as the name of a folder, is not what the captions say.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from unicodedata import category

from flowbrush.data.caption_tables import read_tables
from flowbrush.data.file_kinds import CAPTIONS, ending
from flowbrush.data.listing import Listing, listed
from flowbrush.data.names import composed, shown
from flowbrush.data.pictures import ENDINGS
from flowbrush.data.splits import SplitName, kind_of, splits
from flowbrush.errors import UserError

Layout = Literal["auto", "pairs", "beside", "table", "classes"]
HALVES = ("images", "captions")  # folders of `pairs`
REPEATED = re.compile(r"([1-9]\d*)_(.*\S)")  # kohya's folders: 10_dog is taken ten times an epoch
UNNAMED = "not named in a table"
NOT_ONE_LINE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of what no caption may have


@dataclass
class Reading:
    """What is read of a folder.

    pictures, texts: folders of the images and of their captions, from the root. names, captions:
    files from there, of each image. rows: of a table, each image's captions by kind. classes: the
    caption of each folder. left: images that are left out, by cause. told: what was found.
    """

    layout: Layout
    pictures: str = ""
    texts: str = ""
    names: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)


def reading(
    root: Path, layout: Layout, split: SplitName, columns: Sequence[str], ignore: Sequence[str]
) -> Reading:
    """columns: of captions in a table. ignore: names or patterns of what is passed over.

    Raises UserError for what is missing, or unclear, or may hold captions and would not be read.
    """
    pairs = layout in ("auto", "pairs") and _are_pairs(root)
    folder = _Folder(root, listed(root, ignore, HALVES if pairs else ()), Reading(layout))
    if not pairs:
        folder.narrow(split)
        pairs = layout == "pairs" or (layout == "auto" and _are_pairs(folder.at()))
    found = folder.reading
    if pairs:
        narrowed, found.layout = bool(found.pictures), "pairs"
        found.pictures, found.texts = (os.path.join(found.pictures, half) for half in HALVES)
        folder.narrow("all" if narrowed else split)
    folder.take_images()
    if layout == "auto":
        found.layout = folder.seen()
    if found.layout == "table":
        folder.take_rows(columns)
    elif found.layout == "classes":
        folder.take_classes(repeats=layout == "auto")
    else:
        folder.take_captions()
    if layout == "auto":
        folder.refuse_unread()
    folder.tell()
    return found


class _Folder:
    """What is known of a folder while it is looked at."""

    def __init__(self, root: Path, listing: Listing, reading: Reading) -> None:
        self.root, self.listing, self.reading = root, listing, reading
        self.all_images = [*listing.images, *listing.left]  # of all splits
        self.keys: dict[
            str, str
        ] = {}  # of each image: its path without ending, in one Unicode form
        self.read: set[str] = set()  # files that captions are read from
        self.captioned: set[str] = set()  # keys of images whose captions these are

    def at(self, *names: str) -> Path:
        return self.root.joinpath(self.reading.pictures, *names)

    def narrow(self, split: SplitName) -> None:
        """To the folder of the split, where there are such; what is in the others is left out."""
        found = self.reading
        images = _inside(self.listing.images, found.pictures)
        chosen, others = splits(images, split, shown(str(self.at())))
        if not chosen:
            return
        for folder, count in others.items():
            found.left[f"in {shown(folder)}/ (--source.split {kind_of(folder)} reads it)"] += count
        halves = {found.pictures, found.texts}
        apart = [os.path.join(half, folder) for half in halves for folder in others]
        self.listing = self.listing.without(apart)
        found.pictures, found.texts = (
            os.path.join(half, chosen) for half in (found.pictures, found.texts)
        )
        found.told.append(f"of {shown(chosen)}/")

    def take_images(self) -> None:
        """Those of the folder, in the order of their names. Raises UserError for none."""
        found = self.reading
        images = _inside(self.listing.images, found.pictures)
        found.names = sorted(images, key=lambda name: (composed(name), name))
        self.keys = {name: _key(name) for name in found.names}
        for name in _inside(self.listing.left, found.pictures):
            if ending(name) not in CAPTIONS:
                found.left[self.listing.left[os.path.join(found.pictures, name)]] += 1
        self._check_any(f"no images in it ({', '.join(ENDINGS)})")

    def seen(self) -> Layout:
        """The layout. Raises UserError where captions are there in two forms."""
        keys, listing = {*self.keys.values()}, self.listing
        texts = [t for t in _inside(listing.texts, self.reading.texts) if _key(t) in keys]
        texts += [t for t in _inside(listing.left, self.reading.texts) if ending(t) in CAPTIONS]
        beside: Layout = "pairs" if self.reading.layout == "pairs" else "beside"
        if texts and listing.tables:
            raise UserError(
                f"{shown(str(self.root / listing.tables[0]))} and {shown(texts[0])} both hold "
                f"captions; choose with --source.layout table or {beside}"
            )
        if listing.tables:
            return "table"
        folders = set(map(os.path.dirname, self.reading.names))
        if texts or beside == "pairs" or folders == {""}:
            return beside
        if folders == {HALVES[0]}:
            raise UserError(f"{self.at(HALVES[1])}: missing beside images/; write captions there")
        return "classes"

    def take_captions(self) -> None:
        """A file for each image. Raises UserError where one has none or two, or has no image."""
        found, texts = self.reading, dict[str, str]()
        for text in sorted(_inside(self.listing.texts, found.texts)):
            other = texts.setdefault(_key(text), text)
            if other != text:
                raise UserError(
                    f"{self._text(other)} and {shown(text)} are captions of one image; pass over "
                    f"one kind with --source.ignore '*{ending(other)}'"
                )
        left = {
            _key(name): cause
            for name, cause in self._left_below(found.texts)
            if ending(name) in CAPTIONS
        }
        stems = {*self.keys.values(), *(_key(n) for n, _ in self._left_below(found.pictures))}
        if lonely := next((text for key, text in texts.items() if key not in stems), None):
            raise UserError(
                f"{self._text(lonely)}: a caption without its image in {self._shown_at()}; add it, "
                f"move the caption away, or --source.ignore {shown(os.path.basename(lonely))}"
            )
        found.left.update(left[key] for key in self.keys.values() if key in left)
        found.names = [name for name in found.names if self.keys[name] not in left]
        self.read, self.captioned = {*self.listing.texts}, {*texts}
        if missing := [name for name in found.names if self.keys[name] not in texts]:
            self.refuse_unread()
            file = f"{os.path.splitext(missing[0])[0]}.txt"
            raise UserError(
                f"{self._text(file)}: missing, the caption of {self._shown_at(missing[0])}; write "
                "it, or move the image away"
            )
        found.captions = [texts[self.keys[name]] for name in found.names]
        self._check_any("no image of it has a caption that is read")
        where = f"{shown(found.texts)}/" if found.layout == "pairs" else "the file beside each"
        found.told.append(f"captions from {where}")
        if any(REPEATED.fullmatch(name.partition(os.sep)[0]) for name in found.names):
            found.told.append(_repeats(found.names[0].partition(os.sep)[0]))

    def take_rows(self, columns: Sequence[str]) -> None:
        """The captions of a table's rows. Images without one are left out."""
        found, tables = self.reading, self.listing.tables
        if not tables:
            raise UserError(f"{self._shown_at()}: no metadata.jsonl, .csv or .parquet; write one")
        base = os.path.normpath(found.pictures) if found.pictures else ""
        whole = {composed(os.path.join(base, name)): name for name in found.names}
        others = set(map(composed, self.all_images))
        rows = read_tables(self.root, tables, columns, whole.keys() | others)
        if not rows.kinds:
            raise UserError(f"{shown(str(self.root / tables[0]))}: no rows; write one an image")
        captions = {name: rows.of.get(key) for key, name in whole.items()}
        found.left.update(rows.left)
        found.left[UNNAMED] += sum(row is None for row in captions.values())
        found.names = [name for name in found.names if captions[name]]
        found.rows = [row for name in found.names if (row := captions[name])]
        self.read, self.captioned = {*tables}, {self.keys[name] for name in found.names}
        self._check_any("no image of it has a caption in its table")
        names, kinds = ", ".join(map(shown, sorted(tables))), ", ".join(rows.kinds.values())
        found.told.append(f"captions from {names} ({kinds})")

    def take_classes(self, repeats: bool) -> None:
        """The folders' names. repeats: whether 10_dog may be kohya's, whose name is dog."""
        found = self.reading
        folders = sorted(set(map(os.path.dirname, found.names)), key=composed)
        if not folders[0]:
            stray = next(name for name in found.names if not os.path.dirname(name))
            raise UserError(
                f"{self._shown_at(stray)}: an image outside the class folders; move it into one"
            )
        for folder in folders:
            found.classes[folder] = composed(folder.replace(os.sep, " "))
            if any(category(character) in NOT_ONE_LINE for character in folder):
                raise UserError(
                    f"{self._shown_at(folder)}: its name would be a caption, but is not one line "
                    "of UTF-8; rename the folder"
                )
        matches = {folder: REPEATED.fullmatch(folder) for folder in folders}
        numbers = sorted(int(match[1]) for match in matches.values() if match)
        if repeats and len(numbers) == len(folders) and not _counts_up(numbers):
            found.classes = {f: composed(match[2]) for f, match in matches.items() if match}
            found.told.append(_repeats(folders[0]))
        names = list(dict.fromkeys(map(shown, found.classes.values())))
        few = ", ".join(repr(name) for name in names[:3]) + ", ..." * (len(names) > 3)
        found.told.append(f"captions from the names of {len(names):,} folders ({few})")

    def refuse_unread(self) -> None:
        """Raises UserError for a file that may hold captions, where these are not read.

        A file beside an image that has its caption is taken for something else.
        """
        files = [*self.listing.tables, *self.listing.texts, *self.listing.others]
        base = self.reading.pictures
        unread = sorted(
            file
            for file in files
            if file not in self.read and _key(_from(file, base)) not in self.captioned
        )
        if unread:
            more = f" and {len(unread) - 1:,} more files" if len(unread) > 1 else ""
            kind, name = ending(unread[0]), shown(os.path.basename(unread[0]))
            pattern = name if len({ending(one) for one in unread}) == len(unread) else f"'*{kind}'"
            layout = self.reading.layout
            instead = f", choose --source.layout {layout}" if layout == "classes" else ""
            raise UserError(
                f"{shown(str(self.root / unread[0]))}{more}: may hold captions, and would not be "
                f"read; pass over it with --source.ignore {pattern}{instead}, or write captions as "
                "NAME.txt beside each image or into metadata.jsonl (file_name, text)"
            )

    def tell(self) -> None:
        """What is passed over."""
        passed, listing = self.listing.passed.copy(), self.listing
        passed.update(shown(os.path.basename(file)) for file in listing.about)
        files = (*listing.tables, *listing.texts, *listing.others)
        passed.update(ending(file) for file in files if file not in self.read)
        if passed := +passed:
            few = ", ".join(f"{count:,} {shown(what)}" for what, count in passed.most_common(5))
            more = f" and {len(passed) - 5} more kinds" if len(passed) > 5 else ""
            self.reading.told.append(f"passed over: {few}{more}")

    def _check_any(self, otherwise: str) -> None:
        if not self.reading.names:
            told = ", ".join(f"{n:,} {cause}" for cause, n in (+self.reading.left).items())
            raise UserError(f"{self._shown_at()}: {otherwise}{'; left out: ' * bool(told)}{told}")

    def _left_below(self, folder: str) -> Iterable[tuple[str, str]]:
        for name, cause in self.listing.left.items():
            if not folder or name.startswith(folder + os.sep):
                yield _from(name, folder), cause

    def _text(self, name: str) -> str:
        return shown(str(self.root / self.reading.texts / name))

    def _shown_at(self, *names: str) -> str:
        return shown(str(self.at(*names)))


def _are_pairs(folder: Path) -> bool:
    return all((folder / half).is_dir() for half in HALVES)


def _repeats(folder: str) -> str:
    return (
        f"the repeats of folders such as {shown(folder)} are not applied: an epoch has each image "
        "once; give folders their shares in a mixture"
    )


def _counts_up(numbers: Sequence[int]) -> bool:
    """Whether they number the folders, as in 1_cat and 2_dog."""
    return len(numbers) > 1 and numbers == [*range(1, len(numbers) + 1)]


def _inside(names: Iterable[str], folder: str) -> list[str]:
    """The names below a folder, from there."""
    if not folder:
        return [*names]
    return [_from(name, folder) for name in names if name.startswith(folder + os.sep)]


def _from(name: str, folder: str) -> str:
    return name[len(folder) + 1 :] if folder else name


def _key(name: str) -> str:
    return composed(os.path.splitext(name)[0])
