"""Random draws that several modules need."""

from __future__ import annotations

import math

import numpy as np


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A value between two positive bounds, every factor as likely as any other."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def log_normal(rng: np.random.Generator, median: float, spread: float) -> float:
    """A positive value about `median`; the logarithm has standard deviation `spread`."""
    return float(median * math.exp(rng.normal(0, spread)))
