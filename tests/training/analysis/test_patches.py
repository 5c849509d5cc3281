"""Components are the eigenvectors of the filters' covariance; the table and the picture show them beside noise."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from training.analysis.patches import COUNT, layer, picture, principal, table


def filters(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Random filters of unequal variances."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, side, side, generator=generator) * torch.rand(1, 3, side, side, generator=generator)


@pytest.mark.parametrize(("count", "side"), [(200, 4), (40, 8)])
def test_components_are_the_eigenvectors_of_the_covariance(count: int, side: int) -> None:
    weight_DCPP = filters(count, side)
    found = principal(weight_DCPP)
    rows = weight_DCPP.double().flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(found.explained_K, values[::-1][:COUNT] / values.sum(), rtol=1e-9)
    patterns = found.patterns_KCPP.flatten(1).double().numpy()
    np.testing.assert_allclose(np.abs(np.sum(patterns * vectors.T[::-1][:COUNT], 1)), 1, atol=1e-6)
    assert found.dimensions == pytest.approx(values.sum() ** 2 / np.square(values).sum())


def test_the_largest_weight_of_a_component_is_positive_and_the_sign_of_the_filters_does_not_matter() -> None:
    weight_DCPP = filters(50, 4)
    for signed in (weight_DCPP, -weight_DCPP):
        patterns_KD = principal(signed).patterns_KCPP.flatten(1)
        assert (patterns_KD.gather(1, patterns_KD.abs().argmax(1, keepdim=True)) > 0).all()
        torch.testing.assert_close(patterns_KD, principal(weight_DCPP).patterns_KCPP.flatten(1))


def test_what_all_filters_have_in_common_is_no_component() -> None:
    weight_DCPP = filters(50, 4)
    torch.testing.assert_close(
        principal(weight_DCPP + 3).patterns_KCPP, principal(weight_DCPP).patterns_KCPP, atol=1e-4, rtol=1e-4
    )


def test_two_patterns_are_found_with_their_shares() -> None:
    first, second = torch.zeros(2, 3, 4, 4)
    first[0], second[2, :2] = 1 / 4, 1 / 8**0.5
    amounts = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    found = principal(torch.einsum("dk,kchw->dchw", amounts, torch.stack([first, second])))
    torch.testing.assert_close(found.patterns_KCPP[:2], torch.stack([first, second]), atol=1e-6, rtol=0)
    assert found.explained_K[:2] == pytest.approx([0.9, 0.1])
    assert found.dimensions == pytest.approx(1 / 0.82)
    assert len(found.explained_K) == 3  # four points have no more
    assert found.kernels[0].structured
    assert [kernel.chroma for kernel in found.kernels[:2]] == pytest.approx([2 / 3, 2 / 3])


def test_noise_has_the_dimensions_of_a_wishart_matrix_and_is_the_same_every_time() -> None:
    first, again = (layer("embedding", filters(160, 8)).noise for _ in range(2))
    assert torch.equal(first.patterns_KCPP, again.patterns_KCPP)
    points, dimensions = 159, 192
    assert first.dimensions == pytest.approx(points * dimensions / (points + dimensions + 1), rel=0.02)
    assert sum(kernel.structured for kernel in first.kernels) == 0


def test_the_table_has_each_layer_beside_its_noise() -> None:
    layers = [layer("patch embedding", filters(40, 4)), layer("conv1", filters(30, 8))]
    head, *rows = table(layers).splitlines()
    assert head.split("  ")[-4:] != rows[0].split("  ")[-4:]
    assert "patch embedding, 40 x 3 x 4 x 4" in head
    assert "conv1, 30 x 3 x 8 x 8" in head
    assert head.count("noise") == 2
    assert len({len(line) for line in (head, *rows)}) == 1
    shares = [f"{sum(found.explained_K):.1%}" for one in layers for found in (one.learned, one.noise)]
    assert rows[0].split()[-4:] == shares
    pixels, per_filter = (list(map(float, row.split()[-4:])) for row in rows[-2:])
    np.testing.assert_allclose(per_filter, np.multiply(pixels, [4, 4, 8, 8]), atol=0.01)


def test_the_picture_has_the_components_scaled_about_grey_and_their_shares() -> None:
    layers = [layer("patch embedding", filters(40, 4)), layer("conv1", filters(12, 8))]
    figure = picture(layers)
    assert isinstance(figure, Figure)
    above, below = figure.subfigs
    for axes, one in zip(above.axes, layers, strict=True):
        assert axes.get_title().startswith(one.name)
        patterns = one.learned.patterns_KCPP.permute(0, 2, 3, 1).numpy()
        assert len(axes.images) == len(patterns) == len(axes.texts)
        for drawn, text, pattern, share in zip(axes.images, axes.texts, patterns, one.learned.explained_K, strict=True):
            np.testing.assert_allclose(np.asarray(drawn.get_array()), 0.5 + pattern / np.abs(pattern).max() / 2, atol=1e-6)
            assert text.get_text() == f"{share:.1%}"
    lines = below.axes[0].lines
    assert len(lines) == 4
    np.testing.assert_allclose(np.asarray(lines[2].get_ydata()), np.cumsum(layers[1].learned.explained_K))
