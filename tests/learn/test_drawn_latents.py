"""Latents are drawn, blended, and pictures' directions counted."""

import matplotlib.pyplot as plt
import torch

from flowbrush.learn.latents import blended, draw_channels, explained, patches, variances


def test_a_picture_stands_before_its_channels() -> None:
    figure, axes = plt.subplots(1, 4)
    draw_channels(axes, torch.zeros(3, 16, 16, dtype=torch.uint8), torch.randn(6, 4, 4))
    assert [ax.images[0].get_array().shape for ax in axes] == [(16, 16, 3)] + 3 * [(4, 4)]
    plt.close(figure)


def test_a_blend_begins_with_one_and_ends_with_the_other() -> None:
    first, last = torch.zeros(2, 3, 3), torch.ones(2, 3, 3)
    between = blended(first, last, 5)
    assert between.mean(dim=(1, 2, 3)).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_patches_hold_each_number_once() -> None:
    x = torch.arange(2 * 3 * 8 * 8).float().view(2, 3, 8, 8)
    rows = patches(x, 4)
    assert rows.shape == (8, 48)
    assert rows[1].view(3, 4, 4).equal(x[0, :, :4, 4:])
    assert rows.flatten().sort().values.equal(x.flatten())


def test_what_lies_on_a_line_has_one_direction() -> None:
    line = torch.randn(500, 1) * torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    found = explained(variances(line))
    assert torch.allclose(found, torch.ones(4), atol=1e-4)


def test_noise_has_as_much_along_every_direction() -> None:
    found = explained(variances(torch.randn(40_000, 4)))
    assert torch.allclose(found, torch.tensor([0.25, 0.5, 0.75, 1.0]), atol=0.02)
