"""Statistics of real pictures are kept whole, and read from others' files too."""

import numpy as np
import pytest
import torch

from flowbrush.data.source import Example, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.evaluate import reference
from flowbrush.evaluate.reference import Reference, make_reference, read_reference


class Corners:
    """PictureFeatures: the first pixel's channels."""

    name, width = "corners", 3

    def __call__(self, pictures):
        return pictures[:, :, 0, 0].float()


class Greys:
    """A Source of 100 pictures, each nearly grey; number 10 and number 20 are broken."""

    classes: tuple[str, ...] = ()
    attribution = ""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> Example:
        if i in (10, 20):
            raise UnreadablePicture(f"grey {i}", "torn")
        picture = np.full((4, 4, 3), i, np.uint8)
        picture[..., 1] = i**2 % 97
        picture[..., 2] = i**3 % 89
        return Example(picture, {"en": f"grey {i}"})


class Latents(Greys):
    def __getitem__(self, i: int) -> Example:
        return Example(np.zeros((4, 4, 16), np.float16), {})


def made(limit: int = 0, source=None) -> tuple[Reference, list[str]]:
    said: list[str] = []
    found = make_reference(source or Greys(), Corners(), limit, said.append, "greys")
    return found, said


# -- making


def test_statistics_are_those_of_numpy():
    found, _ = made()
    rows = [Greys()[i].picture[0, 0] for i in range(100) if i not in (10, 20)]
    x = np.array(rows, np.float64)
    np.testing.assert_allclose(found.gaussian.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.gaussian.covariance, np.cov(x, rowvar=False), rtol=1e-12)
    assert (found.gaussian.count, found.features, found.source) == (98, "corners", "greys")
    np.testing.assert_array_equal(found.vectors, x)


def test_broken_pictures_are_counted_and_the_first_is_named():
    assert made()[1] == ["2 of 100 pictures cannot be read, the first is grey 10: torn"]


def test_a_limit_takes_pictures_from_all_over_the_source():
    found, said = made(limit=4)
    assert found.vectors[:, 0].tolist() == [0, 25, 50, 75] and said == []


def test_a_limit_beyond_the_source_is_all_of_it():
    assert made(limit=1000)[0].gaussian.count == 98


def test_many_pictures_are_told_of_and_their_vectors_left_out(monkeypatch):
    monkeypatch.setattr(reference, "KEPT", 99)
    monkeypatch.setattr(reference, "TOLD", 40)
    found, said = made()
    assert found.vectors is None
    assert said[:-1] == ["64 of 100 pictures", "96 of 100 pictures"]


def test_latents_are_no_pictures():
    with pytest.raises(UserError, match=r"^source: it holds latents;"):
        made(source=Latents())


def test_one_picture_has_no_statistics():
    with pytest.raises(UserError, match="2 pictures or more"):
        made(limit=1)


# -- the file


def test_what_was_saved_is_read_back(tmp_path):
    whole, path = made()[0], tmp_path / "folder" / "greys.npz"
    whole.save(path)
    found = read_reference(path, Corners())
    assert torch.equal(found.gaussian.mean, whole.gaussian.mean)
    assert torch.equal(found.gaussian.covariance, whole.gaussian.covariance)
    assert torch.equal(found.vectors, whole.vectors)
    assert (found.gaussian.count, found.features, found.source) == (98, "corners", "greys")
    assert [p.name for p in path.parent.iterdir()] == ["greys.npz"]


def test_other_software_finds_mu_and_sigma_in_it(tmp_path):
    whole, path = made()[0], tmp_path / "greys.npz"
    whole.save(path)
    with np.load(path) as file:
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        np.testing.assert_array_equal(file["sigma"], whole.gaussian.covariance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_of_other_software_is_read(tmp_path, dtype):
    """As ADM's: its pictures are left alone, and need not be loadable."""
    path = tmp_path / "VIRTUAL.npz"
    sigma = np.diag([1.0, 4.0, 9.0]).astype(dtype)
    pictures = np.array([{}], dtype=object)
    np.savez(path, arr_0=pictures, mu=np.arange(3, dtype=dtype), sigma=sigma, mu_s=0, sigma_s=0)
    found = read_reference(path, Corners())
    assert found.gaussian.mean.tolist() == [0, 1, 2]
    assert found.gaussian.covariance.dtype == torch.float64
    assert (found.features, found.source, found.vectors) == ("", "", None)


@pytest.mark.parametrize(("variances", "count"), [([1.0, 2.0, 3.0], 4), ([1.0, 2.0, 0.0], 3)])
def test_an_unknown_count_is_the_least_that_gives_such_a_covariance(tmp_path, variances, count):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.diag(variances))
    assert read_reference(tmp_path / "a.npz", Corners()).gaussian.count == count


# -- errors


def refusal(path, features=None) -> str:
    with pytest.raises(UserError) as error:
        read_reference(path, features or Corners())
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "PATH")


def test_a_missing_file_is_told(tmp_path):
    assert refusal(tmp_path / "no.npz") == (
        "PATH: there is no such file; make it with flowbrush evaluate reference"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"some words", b"\x80\x04K\x01."])
def test_a_broken_file_is_told(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert refusal(path).startswith("PATH: no .npz of statistics (")


def test_a_single_array_is_told(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    assert refusal(path) == "PATH: no .npz of statistics (a single array)"


def test_a_pickled_array_is_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    assert refusal(tmp_path / "a.npz").startswith("PATH: no .npz of statistics (Object arrays")


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3))
    assert refusal(tmp_path / "a.npz") == (
        "PATH: it holds no sigma; statistics are the arrays mu and sigma"
    )


def test_shapes_that_do_not_go_together_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros((3, 4)))
    assert refusal(tmp_path / "a.npz") == (
        "PATH: mu is (3,) and sigma (3, 4); they must be (d,) and (d, d)"
    )


def test_statistics_of_another_width_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    assert refusal(tmp_path / "a.npz") == (
        "PATH: statistics of 2048 numbers a picture; corners gives 3. "
        "Make a reference with these features"
    )


def test_statistics_of_other_features_are_refused(tmp_path):
    made()[0].save(tmp_path / "a.npz")

    class Others(Corners):
        name = "other corners"

    assert refusal(tmp_path / "a.npz", Others()) == (
        "PATH: made with corners, not other corners; choose those, or make another"
    )


@pytest.mark.parametrize("key", ["mu", "sigma", "vectors"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_statistics_that_are_not_finite_are_refused(tmp_path, key, bad):
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3), "vectors": np.zeros((9, 3))}
    arrays[key][..., 0] = bad
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=f"{key} holds what is no finite number"):
        read_reference(tmp_path / "bad.npz", Corners())


@pytest.mark.parametrize("sigma", [-np.eye(3), np.triu(np.ones((3, 3)))])
def test_a_matrix_that_is_no_covariance_is_refused(tmp_path, sigma):
    np.savez(tmp_path / "bad.npz", mu=np.zeros(3), sigma=sigma)
    with pytest.raises(UserError, match="sigma is no covariance"):
        read_reference(tmp_path / "bad.npz", Corners())


def test_a_reference_tells_the_size_of_its_images(tmp_path):
    made()[0].save(tmp_path / "r.npz")
    assert read_reference(tmp_path / "r.npz", Corners()).size == 4
