"""Principal components against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA as OraclePCA

from groundup.maths import linalg
from matrices import assert_orthonormal, random


@pytest.mark.parametrize(("n", "d", "k"), [(50, 6, 6), (50, 6, 2), (5, 9, 4), (30, 1, 1)])
def test_pca_equals_scikit_learns(n: int, d: int, k: int) -> None:
    data = random().normal(size=(n, d)) @ random(1).normal(size=(d, d)) + 10
    ours, oracle = linalg.PCA.fit(data, k), OraclePCA(k, svd_solver="full").fit(data)
    signs = np.sign(np.sum(oracle.components_ * ours.components, axis=1))
    np.testing.assert_allclose(ours.mean, oracle.mean_)
    np.testing.assert_allclose(ours.components, oracle.components_ * signs[:, None], atol=1e-12)
    np.testing.assert_allclose(ours.explained_variance, oracle.explained_variance_)
    np.testing.assert_allclose(ours.explained_variance_ratio, oracle.explained_variance_ratio_)
    scores = ours.transform(data)
    np.testing.assert_allclose(scores, oracle.transform(data) * signs, atol=1e-11)
    expected = oracle.inverse_transform(oracle.transform(data))
    np.testing.assert_allclose(ours.reconstruct(scores), expected, atol=1e-11)


def test_pca_finds_a_small_variance_next_to_a_large_mean() -> None:
    data = random().normal(size=(100, 3)) * np.array([1.0, 1e-4, 1e-6]) + 1e3
    variances = linalg.PCA.fit(data).explained_variance
    np.testing.assert_allclose(variances, data.var(axis=0, ddof=1), rtol=0.05)


def test_variance_ratios_do_not_depend_on_scale() -> None:
    data = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    shares = linalg.PCA.fit(data).explained_variance_ratio
    np.testing.assert_allclose(linalg.PCA.fit(data * 1e-200).explained_variance_ratio, shares)
    with pytest.warns(RuntimeWarning, match="overflow"):  # the variances themselves are infinite
        large = linalg.PCA.fit(data * 1e200)
    np.testing.assert_allclose(large.explained_variance_ratio, shares)


def test_the_largest_entry_of_a_component_is_positive() -> None:
    components = linalg.PCA.fit(random().normal(size=(40, 5))).components
    assert np.all(components[np.arange(5), np.abs(components).argmax(axis=1)] > 0)
    assert_orthonormal(components.T)
