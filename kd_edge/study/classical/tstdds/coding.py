"""From the descriptors of one video to one vector: PCA, locality-constrained linear coding, pooling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_edge.study.classical.tstdds.config import Pooling
from kd_edge.types import Float32

_ROWS = 4096  # descriptors coded at a time
_SOFTENING = 1e-4  # of the covariance's trace, as in the authors' approximated LLC


@dataclass(frozen=True)
class Codebook:
    """Codewords of one kind of descriptor.

    Attributes:
        mean: (C,) float32, mean of the descriptors.
        axes: (D, C) float32, principal axes.
        words: (W, D) float32, codewords.
    """

    mean: Float32
    axes: Float32
    words: Float32

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return self.mean.size + self.axes.size + self.words.size

    def encode(self, descriptors: Float32, neighbours: int, pooling: Pooling) -> Float32:
        """One vector (W,) float32 of a video from its descriptors (N, C), power- and L2-normalised; 0 without any."""
        pooled = np.zeros(len(self.words), dtype=np.float64)
        for first in range(0, len(descriptors), _ROWS):
            reduced = (descriptors[first : first + _ROWS] - self.mean) @ self.axes.T  # (n, D)
            codes = llc(reduced, self.words, neighbours)
            pooled = pooled + codes.sum(axis=0) if pooling == "sum" else np.maximum(pooled, codes.max(axis=0))
        return power_normalise(pooled).astype(np.float32)


def fit_codebook(descriptors: Float32, *, dimensions: int, words: int, seed: int) -> Codebook:
    """PCA, then k-means.

    Args:
        descriptors: (N, C) of training videos, N >= 2.
        dimensions: Number D of principal axes; at most C and N are kept.
        words: Number W of codewords; at most N are made.
        seed: Seed of the k-means.
    """
    # Imported here: reading a configuration must not wait for scikit-learn.
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    count, channels = descriptors.shape
    pca = PCA(min(dimensions, channels, count), svd_solver="full").fit(descriptors.astype(np.float64))
    mean, axes = pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
    reduced = (descriptors - mean) @ axes.T
    means = MiniBatchKMeans(min(words, count), random_state=seed, batch_size=_ROWS, n_init=1).fit(reduced)
    return Codebook(mean, axes, np.ascontiguousarray(means.cluster_centers_, dtype=np.float32))


def llc(
    descriptors: npt.NDArray[np.floating], words: npt.NDArray[np.floating], neighbours: int
) -> npt.NDArray[np.float64]:
    """Approximated locality-constrained linear coding.

    The k nearest codewords B reconstruct a descriptor x: ``min_c |x - B^T c|^2 + e |c|^2`` subject to ``sum(c) = 1``,
    with e = 1e-4 of the trace of the covariance ``(B - x)(B - x)^T``; c is the solution of one k x k system.

    Args:
        descriptors: (N, D).
        words: (W, D).
        neighbours: Number k of nearest codewords; at most W.

    Returns:
        (N, W) float64; each row sums to 1 and has at most k entries that are not 0. A descriptor that equals all of
        its nearest codewords gets equal shares.

    Source: Wang et al., "Locality-constrained Linear Coding for Image Classification", CVPR 2010, section 4.
    """
    x, b = np.asarray(descriptors, dtype=np.float64), np.asarray(words, dtype=np.float64)
    k = min(neighbours, len(b))
    distances = (x * x).sum(1)[:, None] - 2 * x @ b.T + (b * b).sum(1)  # (N, W), squared
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    centred = b[nearest] - x[:, None]  # (N, k, D)
    covariance = centred @ centred.transpose(0, 2, 1)  # (N, k, k)
    trace = np.trace(covariance, axis1=1, axis2=2)
    ridge = np.where(trace > 0, _SOFTENING * trace, 1.0)
    solved = np.linalg.solve(covariance + ridge[:, None, None] * np.eye(k), np.ones((len(x), k, 1)))[:, :, 0]
    codes = np.zeros((len(x), len(b)))
    np.put_along_axis(codes, nearest, solved / solved.sum(axis=1, keepdims=True), axis=1)
    return codes


def power_normalise(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """``sign(v) sqrt(|v|)``, then to Euclidean length 1; 0 stays 0."""
    rooted = np.sign(vector) * np.sqrt(np.abs(np.asarray(vector, dtype=np.float64)))
    length = float(np.linalg.norm(rooted))
    return np.asarray(rooted / length if length > 0 else rooted)
