import numpy as np

from hmhi.viz.overlay import COLOUR, draw_overlay, draw_strip


def test_overlay_tints_inside_and_leaves_outside():
    frame = np.full((60, 80, 3), 100, dtype=np.uint8)
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:40, 30:50] = True
    out = draw_overlay(frame, mask)
    assert (out[5, 5] == 100).all()
    assert (out[30, 40] == [(100 + c) // 2 for c in COLOUR]).all()
    assert (out[20, 30] == COLOUR).all()  # the outline
    assert (frame == 100).all()


def test_overlay_of_nothing_is_the_frame():
    frame = np.random.default_rng(0).integers(0, 255, (30, 41, 3), dtype=np.uint8)
    assert np.array_equal(draw_overlay(frame, np.zeros((30, 41), dtype=bool)), frame)


def test_strip_pads_rows_to_the_widest():
    image = np.zeros((40, 80, 3), dtype=np.uint8)
    strip = draw_strip([[image, np.ones((40, 80), dtype=bool)], [image]], height=20)
    assert strip.shape == (40, 80, 3)
    assert (strip[10, 60] == 255).all()  # the mask
    assert (strip[30, 60] == 255).all()  # padding
    assert (strip[30, 10] == 0).all()
