"""Conditions are chosen, repeated, dropped and joined row by row; what does not fit is padded and
masked."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowbrush.condition import Condition

CAT = Condition(
    label=torch.tensor([1, 2, 3]),
    text=torch.arange(24.0).reshape(3, 2, 4),
    text_mask=torch.tensor([[True, True], [True, False], [True, True]]),
    pooled=torch.arange(6.0).reshape(3, 2),
)
NULL = Condition(
    label=torch.tensor([9]),
    text=-torch.ones(1, 2, 4),
    text_mask=torch.tensor([[True, False]]),
    pooled=-torch.ones(1, 2),
)


def texts(b: int, n: int, start: float) -> Tensor:
    """`b` texts of `n` tokens, no two numbers of which are equal."""
    return start + torch.arange(b * n * 2, dtype=torch.float32).reshape(b, n, 2)


def parts(condition: Condition) -> dict[str, list]:
    return {name: part.tolist() for name, part in vars(condition).items() if part is not None}


def real_tokens(condition: Condition) -> list[list]:
    """The unmasked tokens of each row."""
    assert condition.text is not None
    mask = condition.text_mask
    if mask is None:
        mask = torch.ones(condition.text.shape[:2], dtype=torch.bool)
    return [text[kept].tolist() for text, kept in zip(condition.text, mask, strict=True)]


def test_map_reaches_every_field_that_is_there():
    assert parts(CAT.map(lambda part: part[:1])) == {k: v[:1] for k, v in parts(CAT).items()}


def test_map_leaves_absent_fields_absent():
    assert set(parts(Condition(pooled=torch.ones(1, 2)).map(torch.neg))) == {"pooled"}


def test_rows_chooses_the_same_rows_of_every_field():
    chosen = CAT.rows(torch.tensor([2, 0]))
    assert parts(chosen) == {name: [part[2], part[0]] for name, part in parts(CAT).items()}


def test_to_moves_every_field():
    moved = CAT.to(torch.device("meta"))
    assert {part.device.type for part in vars(moved).values()} == {"meta"}


def test_expanded_repeats_one_condition_for_a_batch():
    assert parts(NULL.expanded(3)) == {name: part * 3 for name, part in parts(NULL).items()}


def test_dropped_rows_become_the_null_condition_in_every_field():
    mixed = CAT.replaced_where(torch.tensor([False, True, False]), NULL)
    own, null = parts(CAT), parts(NULL)
    assert parts(mixed) == {name: [own[name][0], null[name][0], own[name][2]] for name in own}


def test_dropping_no_row_changes_nothing():
    assert parts(CAT.replaced_where(torch.zeros(3, dtype=torch.bool), NULL)) == parts(CAT)


def test_a_field_that_only_the_null_condition_has_stays_absent():
    labels = Condition(label=torch.tensor([1, 2]))
    assert set(parts(labels.replaced_where(torch.tensor([True, False]), NULL))) == {"label"}


def test_a_shorter_null_text_is_padded_with_masked_zeros():
    own, null = Condition(text=texts(2, 3, 1)), Condition(text=texts(1, 1, 100))
    mixed = own.replaced_where(torch.tensor([False, True]), null)
    assert mixed.text is not None and mixed.text_mask is not None
    assert mixed.text[1].tolist() == [[100, 101], [0, 0], [0, 0]]
    assert mixed.text_mask.tolist() == [[True, True, True], [True, False, False]]


def test_a_longer_null_text_pads_the_texts_that_are_kept():
    own, null = Condition(text=texts(2, 1, 1)), Condition(text=texts(1, 2, 100))
    mixed = own.replaced_where(torch.tensor([False, True]), null)
    assert mixed.text is not None and mixed.text_mask is not None
    assert mixed.text[0].tolist() == [[1, 2], [0, 0]]
    assert mixed.text_mask.tolist() == [[True, False], [True, True]]


def test_texts_of_one_length_without_masks_need_no_mask():
    own, null = Condition(text=texts(2, 3, 1)), Condition(text=texts(1, 3, 100))
    assert own.replaced_where(torch.tensor([True, False]), null).text_mask is None
    assert own.followed_by(null).text_mask is None


def test_a_text_without_a_mask_is_all_real_beside_one_with_a_mask():
    masked = Condition(text=texts(1, 2, 1), text_mask=torch.tensor([[True, False]]))
    joined = Condition(text=texts(1, 2, 100)).followed_by(masked)
    assert joined.text_mask is not None
    assert joined.text_mask.tolist() == [[True, True], [True, False]]


def test_followed_by_appends_every_field():
    own, null = parts(CAT), parts(NULL)
    assert parts(CAT.followed_by(NULL)) == {name: own[name] + null[name] for name in own}


@settings(deadline=None)
@given(
    n=st.integers(1, 4),
    n_null=st.integers(1, 4),
    dropped=st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_dropout_keeps_the_real_tokens_of_texts_of_any_length(n, n_null, dropped):
    own, null = texts(len(dropped), n, 1), texts(1, n_null, 100)
    mixed = Condition(text=own).replaced_where(torch.tensor(dropped), Condition(text=null))
    wanted = [null[0] if gone else mine for gone, mine in zip(dropped, own, strict=True)]
    assert real_tokens(mixed) == [text.tolist() for text in wanted]


@settings(deadline=None)
@given(n=st.integers(1, 4), n_other=st.integers(1, 4), b=st.integers(1, 3))
def test_joining_keeps_the_real_tokens_of_texts_of_any_length(n, n_other, b):
    first, second = texts(b, n, 1), texts(2, n_other, 100)
    joined = Condition(text=first).followed_by(Condition(text=second))
    assert real_tokens(joined) == first.tolist() + second.tolist()
