import pytest
import torch
import torchvision
from small_hmmn import make_small_hmmn

from hmhi.config import ModelConfig
from hmhi.models.key_maps import CheckpointError
from hmhi.models.pretrained import load_pretrained
from hmhi.models.weights import load_backbone


def test_both_trunks_of_hmmn_take_torchvision_weights(tmp_path):
    """Without the last stage and the classifier; the masks' convolutions stay as they were."""
    torch.manual_seed(0)
    whole = torchvision.models.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    model = make_small_hmmn()
    masks = model.memory_encoder.mask.weight.clone()
    load_pretrained(model, str(tmp_path / "resnet18.pth"), ModelConfig(kind="hmmn"))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.layer3(
            whole.layer2(whole.layer1(whole.maxpool(whole.relu(whole.bn1(whole.conv1(x))))))
        )
        for trunk in (model.query_encoder, model.memory_encoder.trunk):
            torch.testing.assert_close(trunk(trunk.stem(x))[2], expected)
    assert torch.equal(model.memory_encoder.mask.weight, masks)
    torch.save({**whole.state_dict(), "layer9.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected \[layer9"):
        load_backbone(model.query_encoder, tmp_path / "other.pth")
