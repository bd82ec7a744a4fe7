"""Scores of a soft saliency map: MAE, F-measure, E-measure, S-measure and weighted F.

A map holds 256 levels, so all scores but weighted F follow from histograms of the levels on the object and
off it, taken in the four quadrants around the object's centroid: no score passes over the image once per
threshold. Two published sets of definitions are offered, because they disagree:

``toolbox``
    Fan et al.'s MATLAB toolbox as PySODMetrics 1.6.2 implements it.
``release``
    The HMHI-Net release. E has no special case for an empty or full truth (0.25 even for a perfect map), S
    treats a truth that covers less than 1e-4 of the image as empty, and its quadrants meet one row and one
    column further to the upper left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from hmhi.evaluation.region import Mask, check_masks

Definitions = Literal["toolbox", "release"]
Floats = NDArray[np.float64]

BETA_SQUARED = 0.3  # weight of precision in F (Achanta et al., CVPR 2009)
ALPHA = 0.5  # share of the object term in S (Fan et al., ICCV 2017)
EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Saliency:
    """Scores of one map. Curves are (256,) float64: entry i scores the pixels whose level is at least i."""

    mae: float
    s: float
    weighted_f: float
    adaptive_f: float
    adaptive_e: float
    precision: Floats
    recall: Floats
    f: Floats
    e: Floats


def score_map(
    prob: NDArray[np.uint8], truth: Mask, *, stretch: bool = True, definitions: Definitions = "toolbox"
) -> Saliency:
    """Score one map with every measure.

    Args:
        prob: (H, W) uint8, 255 where the object is certain.
        truth: (H, W) bool, True on the object.
        stretch: Stretch the map to the full range first (min-max), as the toolbox and the release do; a
            constant map stays as it is.
        definitions: Which published definitions to follow, see the module's text.

    Raises:
        ValueError: The map is not uint8, or differs in size from the truth.
    """
    if prob.dtype != np.uint8:
        raise ValueError(f"a saliency map must be uint8 (0-255), got {prob.dtype}")
    check_masks(prob.astype(np.bool_), truth)
    values, levels = _value_of_levels(prob, stretch, definitions)
    row, column = _centroid(truth) if truth.any() else (0, 0)
    if definitions == "toolbox":
        row, column = row + 1, column + 1
    quadrants = [
        _histograms(prob[rows, columns], truth[rows, columns])
        for rows in (slice(row), slice(row, None))
        for columns in (slice(column), slice(column, None))
    ]
    on, off = np.sum(quadrants, axis=0)
    counts = _Counts.of(on, off)

    true_positive, positive = _at_least(on, levels), _at_least(on + off, levels)
    precision = true_positive / np.maximum(positive, 1)
    recall = true_positive / max(counts.object, 1)
    threshold = min(2 * float((on + off) @ values) / counts.all, 1.0)
    passing = values >= threshold
    adaptive_true, adaptive_positive = on[passing].sum(), (on + off)[passing].sum()
    return Saliency(
        mae=float(on @ (1 - values) + off @ values) / counts.all,
        s=_s_measure(quadrants, on, off, values, definitions),
        weighted_f=_weighted_f(values[prob], truth),
        adaptive_f=float(_f_of_counts(adaptive_true, adaptive_positive, counts.object)),
        adaptive_e=float(_e_measure(adaptive_true, adaptive_positive, counts, definitions)),
        precision=precision,
        recall=recall,
        f=_f_of_counts(true_positive, positive, counts.object),
        e=_e_measure(true_positive, positive, counts, definitions),
    )


def f_curve(precision: Floats, recall: Floats) -> Floats:
    """F-measure with beta squared 0.3; 0 where precision and recall are both 0."""
    weighted = BETA_SQUARED * precision + recall
    return (1 + BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1)


@dataclass(frozen=True)
class _Counts:
    """Pixels of the image and of the object."""

    all: float
    object: float

    @classmethod
    def of(cls, on: Floats, off: Floats) -> _Counts:
        return cls(all=float(on.sum() + off.sum()), object=float(on.sum()))


def _value_of_levels(
    prob: NDArray[np.uint8], stretch: bool, definitions: Definitions
) -> tuple[Floats, NDArray[np.intp]]:
    """Value in [0, 1] and threshold index in 0-255 of each of the 256 levels that a pixel can have."""
    level = np.arange(256)
    low, high = int(prob.min()), int(prob.max())
    if not stretch or low == high:
        return level / 255, level
    if definitions == "release":  # its writer stretches, then cuts to 8 bits
        cut = np.clip(255 * (level - low) // (high - low), 0, 255)
        return cut / 255, cut
    value = np.clip((level / 255 - low / 255) / (high / 255 - low / 255), 0, 1)
    return value, (value * 255).astype(np.intp)


def _histograms(prob: NDArray[np.uint8], truth: Mask) -> Floats:
    """(2, 256) float64 counts of the levels on the object and off it."""
    if not prob.size:
        return np.zeros((2, 256))
    every = cv2.calcHist([prob], [0], None, [256], [0, 256]).reshape(256).astype(np.float64)
    on = cv2.calcHist([prob], [0], truth.view(np.uint8), [256], [0, 256]).reshape(256).astype(np.float64)
    return np.stack([on, every - on])


def _at_least(histogram: Floats, levels: NDArray[np.intp]) -> Floats:
    """Pixels whose threshold index reaches 0, 1, ... 255."""
    return np.bincount(levels, weights=histogram, minlength=256)[::-1].cumsum()[::-1]


def _f_of_counts(true_positive: Floats, positive: Floats, object_pixels: float) -> Floats:
    return f_curve(true_positive / np.maximum(positive, 1), true_positive / max(object_pixels, 1))


def _e_measure(true_positive: Floats, positive: Floats, counts: _Counts, definitions: Definitions) -> Floats:
    """Enhanced-alignment measure of binary maps that are known by their counts (Fan et al., IJCAI 2018).

    Alignment takes four values only, one for each combination of prediction and truth. The sum over pixels
    is divided by N - 1, so a perfect map scores N / (N - 1).
    """
    n, n_object = counts.all, counts.object
    if definitions == "toolbox" and n_object == 0:
        total = n - positive
    elif definitions == "toolbox" and n_object == n:
        total = positive
    else:
        pred_mean, truth_mean = positive / n, n_object / n
        total = np.zeros_like(positive)
        for pred_value, truth_value, pixels in (
            (1, 1, true_positive),
            (1, 0, positive - true_positive),
            (0, 1, n_object - true_positive),
            (0, 0, n - positive - n_object + true_positive),
        ):
            a, b = pred_value - pred_mean, truth_value - truth_mean
            alignment = 2 * a * b / (a * a + b * b + EPS)
            total = total + pixels * (alignment + 1) ** 2 / 4
    return total / max(n - 1, 1)


def _s_measure(
    quadrants: list[Floats], on: Floats, off: Floats, values: Floats, definitions: Definitions
) -> float:
    """Structure measure: the mean of an object term and a region term (Fan et al., ICCV 2017)."""
    counts = _Counts.of(on, off)
    share, mean = counts.object / counts.all, float((on + off) @ values) / counts.all
    if share < (1e-4 if definitions == "release" else EPS):
        return 1 - mean
    if share == 1:
        return mean
    object_term = share * _object_score(on, values) + (1 - share) * _object_score(off, 1 - values)
    region_term: float = sum(
        float(quadrant.sum()) / counts.all * _similarity(quadrant[0], quadrant[1], values)
        for quadrant in quadrants
        if quadrant.any()
    )
    return float(max(0.0, ALPHA * object_term + (1 - ALPHA) * region_term))


def _object_score(histogram: Floats, values: Floats) -> float:
    mean, variance = _mean_and_variance(histogram, values)
    return 2 * mean / (mean * mean + 1 + variance**0.5 + EPS)


def _similarity(on: Floats, off: Floats, values: Floats) -> float:
    """SSIM without its constants, of one quadrant; 1 where both sides are constant, or both means are 0."""
    counts = _Counts.of(on, off)
    n, freedom = counts.all, max(counts.all - 1, 1)
    x, x_variance = _mean_and_variance(on + off, values)
    y = counts.object / n
    y_variance = n * y * (1 - y) / freedom
    covariance = (on @ values - counts.object * x) / freedom if 0 < y < 1 and x_variance else 0.0
    numerator = 4 * x * y * covariance
    denominator = (x * x + y * y) * (x_variance + y_variance)
    if numerator:
        return float(numerator / (denominator + EPS))
    return 0.0 if denominator else 1.0


def _mean_and_variance(histogram: Floats, values: Floats) -> tuple[float, float]:
    """Mean and unbiased variance; the variance of a constant, or of a single pixel, is exactly 0."""
    n = float(histogram.sum())
    mean = float(histogram @ values) / n
    if np.count_nonzero(histogram) == 1:
        return float(values[np.argmax(histogram)]), 0.0
    return mean, float(histogram @ (values - mean) ** 2) / (n - 1)


def _centroid(truth: Mask) -> tuple[int, int]:
    """Row and column of the object's centre of mass, rounded half to even."""
    moments = cv2.moments(truth.view(np.uint8), binaryImage=True)
    return round(moments["m01"] / moments["m00"]), round(moments["m10"] / moments["m00"])


def _weighted_f(prob: Floats, truth: Mask) -> float:
    """Weighted F-measure with beta 1 (Margolin et al., CVPR 2014); 0 where the truth is empty.

    Errors on the object are smoothed by a Gaussian (7 x 7, sigma 5), in which a background pixel stands for
    the nearest object pixel; errors on the background weigh more the further they lie from the object.
    """
    if not truth.any():
        return 0.0
    error = np.abs(prob - truth)
    window = _window_around(truth, margin=3)  # the Gaussian reaches no pixel beyond it
    object_here, smoothed = truth[window], error[window].copy()
    nearest = distance_transform_edt(~object_here, return_distances=False, return_indices=True)
    smoothed[~object_here] = smoothed[tuple(nearest[:, ~object_here])]
    kernel = cv2.getGaussianKernel(7, 5, cv2.CV_64F)
    smoothed = cv2.sepFilter2D(smoothed, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    object_error = np.minimum(smoothed, error[window])[object_here]

    far = (error > 0) & ~truth
    distance = cv2.distanceTransform((~truth).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[far]
    false_positive = float((error[far] * (2 - 0.5 ** (distance.astype(np.float64) / 5))).sum())
    true_positive = max(object_error.size - float(object_error.sum()), 0.0)
    recall = true_positive / object_error.size
    precision = true_positive / (true_positive + false_positive + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def _window_around(mask: Mask, margin: int) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)
