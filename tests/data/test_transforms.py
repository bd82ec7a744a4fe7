import numpy as np
import pytest
import torch
from PIL import Image
from trees import half_mask, picture

from hmhi.config import AugmentConfig
from hmhi.data.transforms import (
    Augmentation,
    Photometric,
    draw_augmentations,
    draw_photometric,
    normalize,
    resize_mask,
    resize_rgb,
    to_input,
)
from hmhi.flow.codec import flow_to_rgb, rgb_to_flow


def test_to_input_is_pillow_bilinear():
    rgb = picture(0, (50, 70))
    expected = np.array(Image.fromarray(rgb).resize((32, 48), Image.Resampling.BILINEAR))
    out = to_input(rgb, (48, 32))
    assert out.dtype == torch.uint8 and out.shape == (3, 48, 32)
    np.testing.assert_array_equal(out.permute(1, 2, 0).numpy(), expected)


def test_pictures_and_masks_do_not_mix():
    with pytest.raises(ValueError, match="picture"):
        resize_rgb(half_mask(), (32, 32))
    with pytest.raises(ValueError, match="mask"):
        resize_mask(picture(0), (32, 32))
    for size in ((17, 23), (100, 33), (40, 64)):
        assert set(np.unique(resize_mask(half_mask(value=1), size))) == {0, 1}


def test_normalize_is_imagenet():
    x = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((x.float() / 255).movedim(2, -1) - mean) / std
    assert torch.allclose(normalize(x), expected.movedim(-1, 2), atol=1e-6)


def test_flip_moves_image_flow_and_mask_together():
    image, mask = picture(0), half_mask(value=1)
    field = np.zeros((40, 64, 2), np.float32)
    field[:, :20] = (3, 1)  # right and down, on the left side
    draw = Augmentation(flip=True)
    np.testing.assert_array_equal(draw.image(image), image[:, ::-1])
    np.testing.assert_array_equal(draw.mask(mask), mask[:, ::-1])
    mirrored = field[:, ::-1] * (-1, 1)
    recoloured = rgb_to_flow(draw.flow(flow_to_rgb(field)))
    np.testing.assert_allclose(recoloured, rgb_to_flow(flow_to_rgb(mirrored)), atol=0.02)
    plain = Augmentation(flip=True, recolour=False)
    np.testing.assert_array_equal(plain.flow(flow_to_rgb(field)), flow_to_rgb(field)[:, ::-1])


def test_no_draw_changes_nothing():
    image = picture(2)
    np.testing.assert_array_equal(Augmentation().image(image), image)
    np.testing.assert_array_equal(Augmentation().flow(image), image)


def test_photometric_by_hand():
    grey = np.full((2, 2, 3), 100, np.uint8)
    np.testing.assert_array_equal(Photometric(brightness=30.0)(grey), grey + 30)
    np.testing.assert_array_equal(Photometric(contrast=1.5)(grey), grey + 50)
    assert Photometric(brightness=32.0, contrast=1.5)(np.full((1, 1, 3), 250, np.uint8)).max() == 255
    assert (Photometric(brightness=-32.0)(np.full((1, 1, 3), 10, np.uint8)) == 0).all()
    red = np.array([[[200, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(Photometric(hue=10)(red), [[[200, 67, 0]]])  # 20 degrees toward yellow
    np.testing.assert_array_equal(Photometric(hue=-10)(red), [[[200, 0, 67]]])
    pale = np.array([[[200, 100, 100]]], np.uint8)
    np.testing.assert_allclose(Photometric(saturation=0.5)(pale), [[[200, 150, 150]]], atol=1)


def test_contrast_before_and_after_colour_differ():
    image = picture(5)
    first = Photometric(contrast=1.5, saturation=1.5, contrast_first=True)(image)
    after = Photometric(contrast=1.5, saturation=1.5, contrast_first=False)(image)
    assert (first != after).any()


def test_photometric_draws_cover_the_stated_ranges():
    rng = np.random.default_rng(0)
    draws = [draw_photometric(rng) for _ in range(4000)]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ):
        values = [getattr(draw, name) for draw in draws]
        given = [value for value in values if value is not None]
        assert 0.45 < len(given) / len(values) < 0.55
        assert low <= min(given) < low + 0.02 * (high - low) and high >= max(given) > high - 0.02 * (
            high - low
        )


def test_one_draw_for_a_clip_or_one_for_each_frame():
    rng = np.random.default_rng(0)
    clips = [draw_augmentations(AugmentConfig(), 5, rng) for _ in range(200)]
    assert all(draw == clip[0] for clip in clips for draw in clip)
    assert 70 < sum(clip[0].flip for clip in clips) < 130
    frames = [draw_augmentations(AugmentConfig(per="frame"), 5, rng) for _ in range(50)]
    assert sum(len({draw.flip for draw in clip}) == 2 for clip in frames) > 30
    off = AugmentConfig(flip=0.0, photometric=False, flow_flip="none")
    assert draw_augmentations(off, 2, rng) == [Augmentation(recolour=False)] * 2
