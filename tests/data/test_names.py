"""Names of classes: two forms of a file, and what is wrong with one."""

import pytest

from flowbrush.data.names import read_names
from flowbrush.errors import UserError

TABS = "n1\ttench\tテンチ\nn2\tgoldfish\t金魚\n"
SYNSETS = """n01440764 tench, Tinca tinca
n02012849 crane
n03126707 crane
n03710637 maillot
n03710721 maillot, tank suit
n02123045 tabby, tabby cat
"""


def read(tmp_path, text):
    path = tmp_path / "names.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_names(path)


def test_names_stand_in_two_languages(tmp_path):
    assert read(tmp_path, TABS) == {
        "n1": {"en": "tench", "ja": "テンチ"},
        "n2": {"en": "goldfish", "ja": "金魚"},
    }


@pytest.mark.parametrize(
    "text", [TABS.replace("\n", "\r\n"), "\ufeff" + TABS, "# names\n\n" + TABS]
)
def test_ends_of_lines_marks_and_remarks_make_no_difference(tmp_path, text):
    assert list(read(tmp_path, text)) == ["n1", "n2"]


def test_japanese_may_be_left_out(tmp_path):
    assert read(tmp_path, "n1\ttench\n") == {"n1": {"en": "tench"}}


def test_of_synonyms_the_first_is_taken_where_it_tells_classes_apart(tmp_path):
    found = {key: names["en"] for key, names in read(tmp_path, SYNSETS).items()}
    assert found == {
        "n01440764": "tench",
        "n02012849": "crane (n02012849)",
        "n03126707": "crane (n03126707)",
        "n03710637": "maillot",
        "n03710721": "maillot, tank suit",
        "n02123045": "tabby",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; write KEY"),
        ("n1\n", ":1: 'n1' is not KEY"),
        ("n1\ta\tb\tc\n", ":1: .* is not KEY"),
        ("n1\ta\nn2\t\n", ":2: .* is not KEY"),
        ("n1\ta\tb\nn2\tc\n", ":2: as many columns"),
        ("n1\ta\nn1\tb\n", ":2: n1 stands there twice"),
        ("n1\ta\nn2\ta\n", "2 classes are called 'a'; tell them apart"),
        ("犬\t犬\n".encode("shift_jis"), "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_of_its_line(tmp_path, text, said):
    with pytest.raises(UserError, match=rf"names\.tsv.*{said}"):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.tsv: No such file"):
        read_names(tmp_path / "gone.tsv")
