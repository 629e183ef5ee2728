from __future__ import annotations

import numpy as np
import pytest

from kd_edge.study.classical.tstdds.coding import Codebook, fit_codebook, llc, power_normalise


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def by_lagrange(x: np.ndarray, words: np.ndarray, k: int) -> np.ndarray:
    """The same minimum from the stationary point of its Lagrangian, one descriptor at a time."""
    nearest = np.argsort(((words - x) ** 2).sum(axis=1))[:k]
    b = words[nearest]
    ridge = 1e-4 * ((b - x) ** 2).sum()
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = 2 * (b @ b.T + ridge * np.eye(k))
    system[:k, k] = system[k, :k] = 1
    code = np.zeros(len(words))
    code[nearest] = np.linalg.solve(system, np.append(2 * b @ x, 1))[:k]
    return code


def test_llc_is_the_constrained_least_squares_solution(rng: np.random.Generator) -> None:
    words, x = rng.normal(size=(40, 12)), rng.normal(size=(25, 12))
    codes = llc(x, words, 5)
    np.testing.assert_allclose(codes, [by_lagrange(one, words, 5) for one in x], atol=1e-9)
    np.testing.assert_allclose(codes.sum(axis=1), 1, atol=1e-12)
    assert ((codes != 0).sum(axis=1) == 5).all()


def test_no_other_code_of_sum_one_is_better(rng: np.random.Generator) -> None:
    words, x = rng.normal(size=(9, 4)), rng.normal(size=4)
    code = llc(x[None], words, 5)[0]
    used = np.flatnonzero(code)
    ridge = 1e-4 * ((words[used] - x) ** 2).sum()

    def cost(c: np.ndarray) -> float:
        return float(((x - c @ words[used]) ** 2).sum() + ridge * (c**2).sum())

    for _ in range(200):
        change = rng.normal(size=5) * 0.01
        assert cost(code[used] + change - change.mean()) > cost(code[used])


def test_a_descriptor_between_two_words_is_shared_by_its_distance() -> None:
    words = np.array([[0.0], [1.0], [50.0]])
    np.testing.assert_allclose(llc(np.array([[0.25]]), words, 2), [[0.75, 0.25, 0]], atol=1e-3)


def test_a_descriptor_that_equals_its_words_gets_equal_shares() -> None:
    words = np.array([[2.0, 1.0], [2.0, 1.0], [9.0, 9.0]])
    np.testing.assert_allclose(llc(np.array([[2.0, 1.0]]), words, 2), [[0.5, 0.5, 0]])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_codes_do_not_depend_on_the_unit(rng: np.random.Generator, scale: float) -> None:
    words, x = rng.normal(size=(20, 6)), rng.normal(size=(4, 6))
    np.testing.assert_allclose(llc(scale * x, scale * words, 5), llc(x, words, 5), rtol=1e-6, atol=1e-9)


def test_more_neighbours_than_words_takes_all_words(rng: np.random.Generator) -> None:
    assert (llc(rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), 5) != 0).all()


def test_power_normalisation_by_hand() -> None:
    np.testing.assert_allclose(power_normalise(np.array([4.0, -9.0, 0.0])), np.array([2, -3, 0]) / np.sqrt(13))
    np.testing.assert_array_equal(power_normalise(np.zeros(3)), 0)


def line_book() -> Codebook:
    """Codewords 0, 10 and 20 on the first axis of two."""
    return Codebook(np.float32([100, 100]), np.float32([[1, 0]]), np.float32([[0], [10], [20]]))


@pytest.mark.parametrize(("pooling", "expected"), [("max", [0.8, 1.0, 0.4]), ("sum", [0.8, 0.2 + 1.0 + 0.6, 0.4])])
def test_a_video_is_the_pooled_codes_of_its_descriptors(pooling: str, expected: list[float]) -> None:
    # minus the mean, on the first axis: 2, 10 and 14, whatever the second axis says
    descriptors = np.float32([[102, 7], [110, -5], [114, 0]])
    vector = line_book().encode(descriptors, 2, pooling)  # type: ignore[arg-type]
    np.testing.assert_allclose(vector, np.sqrt(expected) / np.sqrt(np.sum(expected)), atol=2e-3)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_many_descriptors_are_coded_in_pieces_to_the_same_vector(rng: np.random.Generator) -> None:
    book = Codebook(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), rng.normal(size=(8, 3)).astype(np.float32))
    descriptors = rng.normal(size=(5000, 3)).astype(np.float32)
    at_once = power_normalise(np.maximum(llc(descriptors, book.words, 5).max(axis=0), 0))
    np.testing.assert_allclose(book.encode(descriptors, 5, "max"), at_once, atol=1e-6)


def test_a_video_without_descriptors_is_zero() -> None:
    np.testing.assert_array_equal(line_book().encode(np.zeros((0, 2), np.float32), 2, "max"), np.zeros(3))


def test_a_codebook_finds_separate_clusters(rng: np.random.Generator) -> None:
    centres = np.array([[0, 0, 5.0], [30, 0, 5], [0, 60, 5]])  # the third axis says nothing
    descriptors = np.repeat(centres, 50, axis=0) + rng.normal(size=(150, 3)) * [0.1, 0.1, 0.001]
    book = fit_codebook(descriptors.astype(np.float32), dimensions=2, words=3, seed=0)
    assert (book.axes.shape, book.words.shape) == ((2, 3), (3, 2))
    back = book.words @ book.axes + book.mean
    order = np.lexsort((back[:, 1].round(), back[:, 0].round()))
    np.testing.assert_allclose(back[order], centres[[0, 2, 1]], atol=0.2)
    assert book.parameters == 3 + 6 + 6


def test_a_codebook_never_has_more_words_or_axes_than_the_data_give(rng: np.random.Generator) -> None:
    book = fit_codebook(rng.normal(size=(6, 4)).astype(np.float32), dimensions=64, words=1024, seed=0)
    assert (book.axes.shape, book.words.shape) == ((4, 4), (6, 4))


def test_a_codebook_repeats_with_its_seed(rng: np.random.Generator) -> None:
    descriptors = rng.normal(size=(300, 5)).astype(np.float32)
    first, again, other = (fit_codebook(descriptors, dimensions=5, words=16, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.words, again.words)
    assert not np.array_equal(first.words, other.words)
