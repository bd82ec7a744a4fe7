import torch

from hmhi.layers.normalize import Normalize


def test_pixels_are_normalised_as_imagenet():
    pixels = torch.tensor([0, 255, 128], dtype=torch.uint8).view(3, 1, 1).expand(2, 3, 4, 6)
    expected = torch.tensor([-0.485 / 0.229, (1 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225])
    torch.testing.assert_close(Normalize()(pixels), expected.view(3, 1, 1).expand(2, 3, 4, 6))
    assert not Normalize().state_dict()
