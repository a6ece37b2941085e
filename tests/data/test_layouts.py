"""Folders as people have them: captions that are there are read, or what is not read is named."""

import json
import os
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_folders import captions, opened, paint, refusal, write

from flowbrush.data.folders import Folder
from flowbrush.data.source import UnreadablePicture


def learned(folder: Folder) -> dict[str, dict[str, str]]:
    """The captions of each image."""
    return {folder.names[i]: dict(folder[i].captions) for i in range(len(folder))}


def said(root: Path, **choices) -> str:
    return opened(root, **choices).summary


# -- tables


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(lines))
        case _:
            pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("below", ["", "train", "images"])
def test_a_table_of_metadata_is_read(tmp_path, ending, below):
    for name in ("a.png", "deep/b.png"):
        paint(tmp_path / below / name)
    rows = [{"file_name": "deep/b.png", "text": "two"}, {"file_name": "a.png", "text": "one"}]
    table(tmp_path / below / f"metadata{ending}", rows)
    folder = opened(tmp_path)
    assert (folder.layout, [c["text"] for c in learned(folder).values()]) == (
        "table",
        ["one", "two"],
    )
    assert f"captions from {below + '/' if below else ''}metadata{ending} (text)" in folder.summary


def test_each_folder_may_have_a_table_of_its_own(tmp_path):
    for name in "ab":
        paint(tmp_path / name / "1.png")
        table(tmp_path / name / "metadata.jsonl", [{"file_name": "1.png", "text": name}])
    assert learned(opened(tmp_path)) == {"a/1.png": {"text": "a"}, "b/1.png": {"text": "b"}}


def test_a_table_above_the_splits_tells_of_the_one_that_is_read(tmp_path):
    for name in ("train/a.png", "val/b.png"):
        paint(tmp_path / name)
    rows = [{"file_name": f"{s}.png", "caption": s} for s in ("train/a", "val/b")]
    table(tmp_path / "metadata.jsonl", rows)
    folder = opened(tmp_path)
    assert learned(folder) == {"a.png": {"caption": "train/a"}}
    assert sum(folder.left_out.values()) == 1


def test_columns_of_captions_are_kinds_and_a_row_has_those_that_it_has(tmp_path):
    for name in "abc":
        paint(tmp_path / f"{name}.png")
    rows = [{"file_name": "a.png", "text": "x", "ja": "y"}, {"file_name": "b.png", "text": "z"}]
    table(tmp_path / "metadata.jsonl", [*rows, {"file_name": "c.png", "text": " ", "ja": None}])
    folder = opened(tmp_path, captions=("en=text", "ja"))
    assert learned(folder) == {"a.png": {"en": "x", "ja": "y"}, "b.png": {"en": "z"}}
    assert folder.left_out == {"no caption in ja": 1}


def test_what_a_table_leaves_out_is_counted(tmp_path):
    for name in "ab":
        paint(tmp_path / f"{name}.png")
    names = ["a.png", "gone.png", "../a.png"]
    table(tmp_path / "metadata.jsonl", [{"file_name": n, "text": "x"} for n in names])
    told = opened(tmp_path).left_out
    assert told == {"named in a table, but not there": 2, "not named in a table": 1}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"image": "a.png", "text": "x"}], "no column file_name"),
        ([{"file_name": "a.png", "label": 3}], "no column of captions"),
        ([{"file_name": "a.png", "text": ["x", "y"]}], "text holds no text"),
        ([{"file_name": "a.png", "text": "x"}] * 2, "named twice"),
        ([{"file_name": "b.png", "text": "x"}], "has a caption in its table"),
        ([], "no rows"),
    ],
)
def test_a_table_that_gives_no_captions_is_refused_by_its_name(tmp_path, rows, told):
    paint(tmp_path / "a.png")
    table(tmp_path / "metadata.jsonl", rows)
    assert told in (line := refusal(tmp_path)) and ("metadata" in line or "table" in line)


@pytest.mark.parametrize(
    ("ending", "content", "told"),
    [
        (".jsonl", b'{"file_name": "a.png"', "metadata.jsonl:1: no JSON object"),
        (".jsonl", b"[1]", "metadata.jsonl:1: no JSON object"),
        (".csv", "file_name,text\na.png,é".encode("latin-1"), "not UTF-8"),
        (".csv", b'file_name,text\na.png,"' + b"x" * 200_000, "no table"),
        (".parquet", b"PAR1", "no parquet file"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, ending, content, told):
    paint(tmp_path / "a.png")
    write(tmp_path / f"metadata{ending}", content)
    assert re.match(
        rf"{re.escape(str(tmp_path))}/metadata\{ending}:.*{told[-12:]}", refusal(tmp_path)
    )


def test_two_forms_of_captions_are_not_chosen_between(tmp_path):
    paint(tmp_path / "a.png")
    write(tmp_path / "a.txt", "beside")
    table(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "in a table"}])
    assert "--source.layout table or beside" in refusal(tmp_path)
    assert captions(opened(tmp_path, layout="beside")) == ["beside"]
    assert learned(opened(tmp_path, layout="table")) == {"a.png": {"text": "in a table"}}


# -- files beside the images


@pytest.mark.parametrize("ending", [".txt", ".TXT", ".caption", ".Caption"])
def test_a_caption_beside_its_image_may_have_these_endings(tmp_path, ending):
    paint(tmp_path / "IMG_1.JPG")
    write(tmp_path / f"IMG_1{ending}", "a cat")
    assert captions(opened(tmp_path)) == ["a cat"]


def test_kohyas_folders_are_read_and_their_repeats_told(tmp_path):
    paint(tmp_path / "10_dog/1.png")
    write(tmp_path / "10_dog/1.caption", "a good dog")
    assert captions(opened(tmp_path)) == ["a good dog"]
    assert "repeats of folders such as 10_dog are not applied" in said(tmp_path)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["10_sks dog"], ("sks dog",)),
        (["10_dog", "2_cat"], ("dog", "cat")),
        (["1_cat", "2_dog"], ("1_cat", "2_dog")),  # they are numbered
        (["0_cat", "10_dog"], ("0_cat", "10_dog")),
    ],
)
def test_kohyas_folders_without_captions_are_classes_without_their_repeats(
    tmp_path, folders, classes
):
    for folder in folders:
        paint(tmp_path / folder / "1.png")
    assert opened(tmp_path).classes == classes
    assert opened(tmp_path, layout="classes").classes == tuple(sorted(folders))


def test_two_captions_of_one_image_are_refused(tmp_path):
    paint(tmp_path / "a.png")
    write(tmp_path / "a.txt", "tags")
    write(tmp_path / "a.caption", "a sentence")
    assert "are captions of one image" in refusal(tmp_path)
    assert captions(opened(tmp_path, ignore=("*.txt",))) == ["a sentence"]


def test_files_about_an_image_that_has_its_caption_are_passed_over(tmp_path):
    paint(tmp_path / "00000/1.jpg")
    for ending in ("txt", "json"):
        write(tmp_path / f"00000/1.{ending}", "a cat")
    write(tmp_path / "LICENSE.txt", "free")
    assert captions(opened(tmp_path)) == ["a cat"]
    assert "passed over: 1 LICENSE.txt, 1 .json" in said(tmp_path)


# -- what is not read


@pytest.mark.parametrize(
    "file",
    ["captions.json", "cat/1.json", "prompts.txt", "labels.csv", "cat/captions.tsv",
     "annotations/captions_train2017.json", "data.jsonl", "cat/1.tags"],
)  # fmt: skip
def test_a_file_that_may_hold_captions_is_not_passed_over_in_silence(tmp_path, file):
    paint(tmp_path / "cat/1.png")
    write(tmp_path / file, "{}")
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / file}: may hold captions") and "classes" in line
    assert opened(tmp_path, ignore=(Path(file).name,)).classes == ("cat",)
    assert Path(file).suffix in said(tmp_path, layout="classes")


def test_a_list_of_captions_beside_flat_images_is_named_rather_than_a_missing_caption(tmp_path):
    paint(tmp_path / "1.png")
    write(tmp_path / "captions.json", "{}")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'captions.json'}: may hold captions")


@pytest.mark.parametrize("name", ["README.txt", "LICENSE", "classes.txt", "class_names.json"])
def test_a_file_about_the_whole_set_makes_no_captions(tmp_path, name):
    paint(tmp_path / "cat/1.png")
    write(tmp_path / name, "about")
    assert opened(tmp_path).classes == ("cat",) and f"passed over: 1 {name}" in said(tmp_path)


@pytest.mark.parametrize(
    "place", ["@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/1.png", "$RECYCLE.BIN/1.png"]
)
def test_thumbnails_that_a_system_left_are_no_images(tmp_path, place):
    paint(tmp_path / "cat/1.png")
    paint(tmp_path / "cat" / place)
    folder = opened(tmp_path)
    assert (folder.classes, len(folder)) == (("cat",), 1)
    assert f"passed over: 1 {place.split('/')[0]}" in folder.summary


def test_masks_of_onetrainer_are_counted_and_not_learned(tmp_path):
    for name in ("1.png", "1-masklabel.png"):
        paint(tmp_path / "cat" / name)
    assert opened(tmp_path).left_out == {"masks of other images": 1}


@pytest.mark.parametrize("layout", ["classes", "beside", "pairs"])
def test_images_that_are_not_decoded_are_counted_in_every_layout(tmp_path, layout):
    images = tmp_path / {"classes": "cat", "beside": "", "pairs": "images"}[layout]
    for name in ("1.png", "2.avif", "3.tif"):
        paint(images / name)
    write(images / "4.HEIC", b"\0\0\0\x18ftypheic")
    if layout != "classes":
        texts = tmp_path / ("captions" if layout == "pairs" else "")
        for number in range(1, 5):
            write(texts / f"{number}.txt", "x")
    folder = opened(tmp_path)
    assert (folder.layout, len(folder)) == (layout, 3)
    assert [folder[i].picture[0, 0].argmax() for i in range(3)] == [0, 0, 0]
    assert folder.left_out == {"HEIC images, which cannot be decoded": 1}


# -- splits


@pytest.mark.parametrize("above", ["", "my set"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "dev"])
def test_of_splits_the_one_for_training_is_read(tmp_path, above, val):
    for place in ("train/cat", "train/dog", "test/cat", f"{val}/dog"):
        paint(tmp_path / above / place / "1.png")
    folder = opened(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert sorted(folder.left_out.values()) == [1, 1] and "--source.split" in folder.summary
    assert opened(tmp_path, split="validation").classes == ("dog",)
    assert len(opened(tmp_path, split="all")) == 4


@pytest.mark.parametrize("first", ["images/train", "train/images"])
def test_splits_of_pairs_are_found_on_either_side(tmp_path, first):
    for split in ("train", "val"):
        paint(tmp_path / first.replace("train", split) / "1.png")
        place = first.replace("train", split).replace("images", "captions")
        write(tmp_path / place / "1.txt", split)
    assert captions(opened(tmp_path)) == ["train"]
    assert captions(opened(tmp_path, split="validation")) == ["val"]
    assert sum(opened(tmp_path).left_out.values()) == 1


def test_captions_beside_images_of_another_split_are_not_asked_for(tmp_path):
    for split in ("train", "val"):
        paint(tmp_path / split / "1.png")
        write(tmp_path / split / "1.txt", split)
    assert captions(opened(tmp_path)) == ["train"]


def test_cocos_folders_are_splits_and_its_annotations_are_named(tmp_path):
    for split in ("train2017", "val2017"):
        paint(tmp_path / split / "1.jpg")
    write(tmp_path / "annotations/captions_train2017.json", "{}")
    assert "captions_train2017.json: may hold captions" in refusal(tmp_path)


def test_a_class_may_have_a_splits_name_beside_other_classes(tmp_path):
    for name in ("train", "car"):
        paint(tmp_path / name / "1.png")
    assert opened(tmp_path).classes == ("car", "train")


@pytest.mark.parametrize(
    ("folders", "split"), [(["test", "val"], "train"), (["train", "train2"], "test"),
                           (["train_2014", "train_2017"], "train"), (["train"], "validation")]
)  # fmt: skip
def test_a_split_that_is_not_there_or_twice_is_refused(tmp_path, folders, split):
    for folder in folders:
        paint(tmp_path / folder / "cat/1.png")
    assert refusal(tmp_path, split=split).startswith("source.split: ")


# -- names


NFC, NFD = (unicodedata.normalize(form, "バナナ") for form in ("NFC", "NFD"))
BYTES = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(("image", "text"), [(NFC, NFD), (NFD, NFC), (BYTES, BYTES)])
def test_an_image_finds_its_caption_whatever_form_the_names_have(tmp_path, image, text):
    paint(tmp_path / f"{image}.png")
    write(tmp_path / f"{text}.txt", "fruit")
    assert captions(opened(tmp_path)) == ["fruit"]


def test_a_class_in_two_forms_is_one_and_finds_its_name(tmp_path):
    for name in (NFC, NFD):
        paint(tmp_path / "set" / name / "1.png")
    write(tmp_path / "names.tsv", f"{NFC}\tbanana\n")
    assert opened(tmp_path / "set").classes == (NFC,)
    assert opened(tmp_path / "set", names=tmp_path / "names.tsv").classes == ("banana",)


def test_a_table_names_images_in_either_form(tmp_path):
    paint(tmp_path / f"{NFD}.png")
    table(tmp_path / "metadata.jsonl", [{"file_name": f"{NFC}.png", "text": "fruit"}])
    assert [*learned(opened(tmp_path)).values()] == [{"text": "fruit"}]


def test_names_in_macos_form_change_neither_order_nor_hash(tmp_path):
    found = []
    for form in ("NFC", "NFD"):
        for i, name in enumerate(["カン", "ガ", "カメ", "café", "cafz", "Äpfel", "Apfelz"]):
            at = tmp_path / form / unicodedata.normalize(form, name)
            paint(at.with_suffix(".png"))
            write(at.with_suffix(".txt"), f"number {i}")
        folder = opened(tmp_path / form)
        found.append((captions(folder), folder.origin().sha256))
    assert found[0] == found[1]


def test_the_name_of_an_image_that_is_not_utf8_can_be_printed_and_stored(tmp_path):
    write(tmp_path / f"{BYTES}.png", b"no image")
    write(tmp_path / f"{BYTES}.txt", "a cat")
    with pytest.raises(UnreadablePicture, match=r"caf\\xe9\.png"):
        opened(tmp_path)[0]


@pytest.mark.parametrize("name", [BYTES, "two\nlines", "a\u2028b"])
def test_a_class_whose_name_is_no_caption_is_refused(tmp_path, name):
    paint(tmp_path / name / "1.png")
    line = refusal(tmp_path)
    assert "rename the folder" in line and line.encode()


def test_a_caption_that_is_wrong_is_named_though_its_name_is_not_utf8(tmp_path):
    paint(tmp_path / f"{BYTES}.png")
    write(tmp_path / f"{BYTES}.txt", "")
    assert "caf\\xe9.txt: empty" in refusal(tmp_path)
