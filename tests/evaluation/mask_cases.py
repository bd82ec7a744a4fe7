"""Masks that the metric tests share: every edge case by name, and random ones for hypothesis."""

import numpy as np
from hypothesis import strategies as st

H, W = 24, 32


def edge_masks() -> dict[str, np.ndarray]:
    masks = {name: np.zeros((H, W), bool) for name in EDGE_NAMES}
    masks["full"][:] = True
    masks["one pixel"][10, 12] = True
    masks["corner pixel"][0, 0] = True
    masks["last corner pixel"][-1, -1] = True
    masks["first row"][0] = True
    masks["last column"][:, -1] = True
    masks["all but one pixel"][:] = True
    masks["all but one pixel"][5, 5] = False
    masks["box"][6:15, 8:20] = True
    masks["box on the border"][10:, 20:] = True
    masks["ring"][4:20, 4:28] = True
    masks["ring"][9:15, 9:23] = False
    return masks


EDGE_NAMES = [
    "empty", "full", "one pixel", "corner pixel", "last corner pixel", "first row", "last column",
    "all but one pixel", "box", "box on the border", "ring",
]  # fmt: skip
EDGE_PAIRS = [(a, b) for a in EDGE_NAMES for b in EDGE_NAMES]


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of one size; dense, sparse and blocky ones all occur."""
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    block = draw(st.sampled_from([1, 4, 9]))

    def one() -> np.ndarray:
        coarse = rng.random((-(-size[0] // block), -(-size[1] // block))) < draw(
            st.sampled_from([0.0, 0.05, 0.5, 1.0])
        )
        return np.kron(coarse, np.ones((block, block), bool))[: size[0], : size[1]]

    return one(), one()
