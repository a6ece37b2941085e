"""One's own pictures: the three layouts, and what is wrong with a folder said in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowbrush.data.folders import Folder, FolderConfig
from flowbrush.data.source import UnreadablePicture
from flowbrush.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def paint(path: Path, colour: tuple[int, int, int] = RED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), colour).save(path)


def write(path: Path, caption: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(caption if isinstance(caption, bytes) else caption.encode())


def beside(root: Path, *names: str) -> None:
    """A picture and a caption of that name each."""
    for name in names:
        paint(root / f"{name}.png")
        write(root / f"{name}.txt", f"a {name}")


def opened(root: Path, **choices) -> Folder:
    return FolderConfig(path=root, **choices).build(4)


def captions(folder: Folder) -> list[str]:
    return [folder[i].captions["caption"] for i in range(len(folder))]


def refusal(root: Path, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(root, **choices)
    return str(refused.value)


# -- the three layouts


def test_images_beside_captions_are_found(tmp_path):
    paint(tmp_path / "images/b.png", BLUE)
    paint(tmp_path / "images/a.jpg", RED)
    write(tmp_path / "captions/a.txt", "red")
    write(tmp_path / "captions/b.txt", "blue")
    folder = opened(tmp_path)
    assert (folder.layout, captions(folder)) == ("pairs", ["red", "blue"])


def test_pictures_beside_their_captions_are_found(tmp_path):
    beside(tmp_path, "cat", "apple")
    folder = opened(tmp_path)
    assert (folder.layout, captions(folder)) == ("beside", ["a apple", "a cat"])


def test_a_folder_a_class_is_found(tmp_path):
    paint(tmp_path / "dog/1.png")
    paint(tmp_path / "cat/1.png")
    paint(tmp_path / "cat/2.jpeg")
    folder = opened(tmp_path)
    assert (folder.layout, captions(folder)) == ("classes", ["cat", "cat", "dog"])


@pytest.mark.parametrize("inside", ["one", "one/two"])
def test_folders_within_images_are_mirrored_within_captions(tmp_path, inside):
    paint(tmp_path / f"images/{inside}/a.png")
    write(tmp_path / f"captions/{inside}/a.txt", "deep")
    assert captions(opened(tmp_path)) == ["deep"]


def test_a_layout_that_is_given_is_not_guessed(tmp_path):
    paint(tmp_path / "cat/1.png")
    write(tmp_path / "readme.txt", "my cats")
    assert captions(opened(tmp_path, layout="classes")) == ["cat"]


@pytest.mark.parametrize("name", ["images", "captions"])
def test_a_class_may_have_the_name_of_half_of_the_pairs(tmp_path, name):
    paint(tmp_path / name / "1.png")
    paint(tmp_path / "cat/1.png")
    assert opened(tmp_path).classes == tuple(sorted(["cat", name]))


def test_classes_are_the_names_of_the_folders(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "dog/2.png", "猫/1.png"):
        paint(tmp_path / name)
    assert opened(tmp_path).classes == ("cat", "dog", "猫")


def test_free_captions_are_no_classes(tmp_path):
    beside(tmp_path, "cat")
    assert opened(tmp_path).classes == ()


# -- what an example holds


def test_a_picture_is_decoded_at_the_size(tmp_path):
    paint(tmp_path / "a.png", BLUE)
    write(tmp_path / "a.txt", "blue")
    assert (opened(tmp_path)[0].picture == np.full((4, 4, 3), BLUE)).all()


def test_truth_is_the_path_from_the_folder_of_pictures(tmp_path):
    paint(tmp_path / "images/deep/a.png")
    write(tmp_path / "captions/deep/a.txt", "x")
    assert opened(tmp_path)[0].truth == "deep/a.png"


def test_names_and_captions_may_be_japanese(tmp_path):
    paint(tmp_path / "写真 その一.png")
    write(tmp_path / "写真 その一.txt", "赤い四角、きれい")
    assert captions(opened(tmp_path)) == ["赤い四角、きれい"]


@pytest.mark.parametrize("ending", [".JPG", ".Png", ".webp", ".bmp", ".gif"])
def test_endings_of_pictures_are_known_in_any_case(tmp_path, ending):
    paint(tmp_path / f"a{ending}")
    write(tmp_path / "a.txt", "x")
    assert len(opened(tmp_path)) == 1


@pytest.mark.parametrize(
    "written", ["a cat\n", "  a cat  ", "a cat\r\n", b"\xef\xbb\xbfa cat", "\n\na cat\n\n"]
)
def test_white_space_and_a_byte_order_mark_are_no_part_of_a_caption(tmp_path, written):
    paint(tmp_path / "a.png")
    write(tmp_path / "a.txt", written)
    assert captions(opened(tmp_path)) == ["a cat"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    beside(tmp_path, "cat")
    paint(tmp_path / "._cat.png")
    paint(tmp_path / ".thumbnails/cat.png")
    write(tmp_path / ".notes.txt", "nothing to see")
    assert captions(opened(tmp_path)) == ["a cat"]


def test_a_hidden_folder_is_no_class(tmp_path):
    paint(tmp_path / "cat/1.png")
    paint(tmp_path / ".trash/1.png")
    assert opened(tmp_path).classes == ("cat",)


def test_other_files_are_left_alone(tmp_path):
    beside(tmp_path, "cat")
    write(tmp_path / "licence.md", "free")
    assert len(opened(tmp_path)) == 1


# -- what is wrong with a folder


def test_a_missing_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


def test_an_empty_folder_is_named(tmp_path):
    assert str(tmp_path) in refusal(tmp_path)


def test_empty_images_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    assert str(tmp_path / "images") in refusal(tmp_path)


def without_caption(root: Path) -> Path:
    paint(root / "dog.png")
    return root / "dog.txt"


def without_picture(root: Path) -> Path:
    write(root / "dog.txt", "a dog")
    return root / "dog.txt"


def with_an_empty_caption(root: Path) -> Path:
    paint(root / "dog.png")
    write(root / "dog.txt", " \n ")
    return root / "dog.txt"


def with_a_caption_in_shift_jis(root: Path) -> Path:
    paint(root / "dog.png")
    write(root / "dog.txt", "犬の写真".encode("shift_jis"))
    return root / "dog.txt"


def with_several_lines(root: Path) -> Path:
    paint(root / "dog.png")
    write(root / "dog.txt", "a dog\na good dog")
    return root / "dog.txt"


WRONG = [
    (without_caption, "missing"),
    (without_picture, "without its image"),
    (with_an_empty_caption, "empty"),
    (with_a_caption_in_shift_jis, "not UTF-8"),
    (with_several_lines, "2 lines"),
]


@pytest.mark.parametrize(("spoil", "what"), WRONG)
def test_what_is_wrong_with_a_caption_is_said_of_its_file(tmp_path, spoil, what):
    beside(tmp_path, "cat")
    culprit = spoil(tmp_path)
    assert re.match(f"{re.escape(str(culprit))}: .*{what}", refusal(tmp_path))


@pytest.mark.parametrize("spoil", [spoil for spoil, _ in WRONG])
def test_what_is_wrong_is_said_in_one_line(tmp_path, spoil):
    beside(tmp_path, "cat")
    spoil(tmp_path)
    assert "\n" not in refusal(tmp_path)


def test_a_caption_missing_from_captions_is_named_there(tmp_path):
    paint(tmp_path / "images/a.png")
    (tmp_path / "captions").mkdir()
    assert str(tmp_path / "captions/a.txt") in refusal(tmp_path)


def test_a_picture_outside_the_classes_is_named(tmp_path):
    paint(tmp_path / "cat/1.png")
    paint(tmp_path / "stray.png")
    assert str(tmp_path / "stray.png") in refusal(tmp_path)


# -- broken pictures


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_picture(path: Path) -> None:
    path.write_text("I am a letter")


@pytest.mark.parametrize(("spoil", "name"), [(truncated, "bad.jpg"), (no_picture, "bad.png")])
def test_a_broken_picture_is_reported_when_it_is_asked_for(tmp_path, spoil, name):
    beside(tmp_path, "cat")
    spoil(tmp_path / name)
    write(tmp_path / "bad.txt", "a bad picture")
    folder = opened(tmp_path)
    with pytest.raises(UnreadablePicture, match=re.escape(str(tmp_path / name))):
        folder[folder.names.index(name)]


def test_a_broken_picture_leaves_the_others_readable(tmp_path):
    beside(tmp_path, "cat")
    no_picture(tmp_path / "bad.png")
    write(tmp_path / "bad.txt", "a bad picture")
    folder = opened(tmp_path)
    assert folder[folder.names.index("cat.png")].captions["caption"] == "a cat"


def test_a_picture_that_went_away_is_unreadable(tmp_path):
    beside(tmp_path, "cat")
    folder = opened(tmp_path)
    (tmp_path / "cat.png").unlink()
    with pytest.raises(UnreadablePicture, match="No such file"):
        folder[0]


# -- classes whose folders have other names


def imagenet(root: Path) -> Path:
    """Two folders of ImageNet's, and a file of three names."""
    paint(root / "train/n02123045/n02123045_7.JPEG")
    paint(root / "train/n01440764/n01440764_1.JPEG", BLUE)
    write(root / "names.tsv", "n02123045\ttabby\tトラ猫\nn01440764\ttench\tテンチ\nn0\tx\ty\n")
    return root


def test_names_of_classes_are_captions_by_language(tmp_path):
    root = imagenet(tmp_path)
    folder = opened(root / "train", names=root / "names.tsv")
    assert [folder[i].captions for i in (0, 1)] == [
        {"en": "tench", "ja": "テンチ"},
        {"en": "tabby", "ja": "トラ猫"},
    ]


def test_classes_with_names_keep_the_order_of_their_folders(tmp_path):
    root = imagenet(tmp_path)
    assert opened(root / "train", names=root / "names.tsv").classes == ("tench", "tabby")


def test_imagenets_own_file_of_names_is_read(tmp_path):
    root = imagenet(tmp_path)
    write(root / "LOC.txt", "n01440764 tench, Tinca tinca\nn02123045 tabby, tabby cat\n")
    folder = opened(root / "train", names=root / "LOC.txt")
    assert folder[1].captions == {"en": "tabby"} and folder.classes == ("tench", "tabby")


def test_names_may_lie_within_the_folder(tmp_path):
    root = imagenet(tmp_path)
    names = (root / "names.tsv").rename(root / "train/names.txt")
    assert len(opened(root / "train", names=names)) == 2


def test_a_folder_without_a_name_is_named(tmp_path):
    root = imagenet(tmp_path)
    paint(root / "train/n99/1.png")
    said = refusal(root / "train", names=root / "names.tsv")
    assert re.match(rf"{re.escape(str(root))}/names\.tsv: no name for the folder n99", said)


@pytest.mark.parametrize("layout", ["pairs", "beside"])
def test_names_of_what_are_no_classes_are_refused(tmp_path, layout):
    root = imagenet(tmp_path)
    said = refusal(root / "train", names=root / "names.tsv", layout=layout)
    assert "source.names: of classes, but the layout is" in said
