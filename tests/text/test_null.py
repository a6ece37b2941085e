"""The null caption is a run's own: what comes back to it with another text model is refused."""

import pytest
import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.text.null import NULL_FILE, check_null, record_null


def null(scale: float = 1.0, width: int = 8) -> Condition:
    torch.manual_seed(0)
    return Condition(text=scale * torch.randn(1, 3, width), pooled=torch.ones(1, 4))


def test_what_was_recorded_is_found_the_same_again(tmp_path):
    record_null(tmp_path, null())
    written = (tmp_path / NULL_FILE).read_bytes()
    record_null(tmp_path, null())
    check_null(tmp_path, null())
    assert (tmp_path / NULL_FILE).read_bytes() == written


def test_a_rounded_null_caption_is_the_same(tmp_path):
    record_null(tmp_path, null())
    check_null(tmp_path, null().map(lambda part: part.bfloat16().float()))


@pytest.mark.parametrize(
    "other", [null(scale=1.1), null(width=6), Condition(text=null().text), Condition()]
)
def test_another_null_caption_is_refused_in_one_line(tmp_path, other):
    record_null(tmp_path, null())
    with pytest.raises(UserError, match="another null caption") as refused:
        check_null(tmp_path, other)
    assert "\n" not in str(refused.value)


def test_zeros_and_labels_are_told_from_others(tmp_path):
    zeros = null().map(torch.zeros_like)
    record_null(tmp_path, zeros)
    check_null(tmp_path, zeros)
    with pytest.raises(UserError):
        check_null(tmp_path, null())
    (tmp_path / NULL_FILE).unlink()
    record_null(tmp_path, Condition(label=torch.tensor([10])))
    with pytest.raises(UserError):
        check_null(tmp_path, Condition(label=torch.tensor([11])))


def test_a_run_without_a_record_is_not_refused(tmp_path):
    check_null(tmp_path, null())
