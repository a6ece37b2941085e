"""One comparison a filter: what it keeps, and what is refused as a filter."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowbrush.data.filters import OPERATORS, Filter, Tally, parse
from flowbrush.errors import UserError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("clip_similarity_vitb32 >= 0.3", ("clip_similarity_vitb32", ">=", 0.3)),
        ("watermark_score<0.5", ("watermark_score", "<", 0.5)),
        ("  WIDTH   >=  256 ", ("WIDTH", ">=", 256.0)),
        ("a<=-1e-3", ("a", "<=", -1e-3)),
        ("a > .5", ("a", ">", 0.5)),
        ("NSFW == UNLIKELY", ("NSFW", "==", "UNLIKELY")),
        ("LICENSE != '?'", ("LICENSE", "!=", "?")),
        ("LICENSE == ?", ("LICENSE", "==", "?")),
        ('title == "it\'s >= 3"', ("title", "==", "it's >= 3")),
        ("n == '3'", ("n", "==", "3")),
        ("watermark == false", ("watermark", "==", 0.0)),
        ("watermark == true", ("watermark", "==", 1.0)),
        ("alt text != ''", ("alt text", "!=", "")),
        ("透かし < 0.5", ("透かし", "<", 0.5)),
    ],
)
def test_a_comparison_is_read(text, parts):
    assert parse(text) == Filter(*parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "width",
        "width >=",
        ">= 3",
        "width = 3",
        "width => 3",
        "width >= 3 >= 2",
        "width >= 3 and height >= 3",
        "width >= nan",
        "width < inf",
        "width < '3'",
        "NSFW > UNLIKELY",
        "a == 'b",
        "a == b'",
        "a == 'b' 'c'",
        "a == two words",
        "3 < width < 9",
        "__import__('os').system('true')",
        "a >= __import__('os')",
        "a >= open(x)",
        "a == f()",
        "a\n",
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"^filters: ") as refused:
        parse(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("operator", "kept"),
    [(">=", (2, 3)), ("<=", (1, 2)), ("==", (2,)), ("!=", (1, 3)), (">", (3,)), ("<", (1,))],
)
def test_the_six_operators(operator, kept):
    assert tuple(n for n in (1, 2, 3) if Filter("a", operator, 2.0).keeps(n)) == kept


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("value", [None, math.nan, "2", [2], {"a": 2}])
def test_what_is_missing_or_no_number_is_never_kept(operator, value):
    assert not Filter("a", operator, 2.0).keeps(value)


@pytest.mark.parametrize("operator", ["==", "!="])
@pytest.mark.parametrize("value", [None, math.nan, 2, True])
def test_what_is_missing_or_no_text_is_never_kept(operator, value):
    assert not Filter("a", operator, "b").keeps(value)


def test_truths_are_one_and_zero():
    assert parse("a == true").keeps(True) and not parse("a == true").keeps(False)


columns = st.from_regex(r"[a-zA-Z_][a-z0-9_]*", fullmatch=True)
numbers = st.floats(-1e12, 1e12).map(lambda n: float(f"{n:.15g}"))
texts = st.text(
    st.characters(blacklist_characters="'\n\r", blacklist_categories=("Cs", "Zl", "Zp"))
)
ordered = st.builds(Filter, columns, st.sampled_from(list(OPERATORS)), numbers)
equal = st.builds(Filter, columns, st.sampled_from(["==", "!="]), texts)


@given(ordered | equal)
def test_a_filter_that_is_written_out_is_read_again(one):
    assert parse(str(one)) == one


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_an_error_of_the_users(text):
    with suppress(UserError):
        parse(text)


def test_a_row_is_dropped_by_the_first_filter_that_does_not_keep_it():
    tally = Tally((parse("a > 1"), parse("b > 1")))
    rows = [{"a": 2, "b": 2}, {"a": 0, "b": 0}, {"a": 2, "b": 0}, {"a": 2}, {}]
    assert [tally.keeps(row) for row in rows] == [True, False, False, False, False]
    assert (tally.seen, tally.kept, list(tally.dropped.values())) == (5, 1, [2, 2])
    assert str(tally) == "1 of 5 kept; dropped: 2 by a > 1, 2 by b > 1"


def test_without_filters_all_are_kept():
    tally = Tally(())
    assert tally.keeps({}) and str(tally) == "1 of 1 kept"
