import make_inputs
import pytest
import torch
from model_tester import ModelTester
from small_model import SETTINGS, make_small_model

from hmhi.config import ModelConfig, load_config
from hmhi.inference.base import EMBEDDED
from hmhi.models.build import build_model
from hmhi.models.interaction import PLAM, SGIM
from hmhi.models.weights import load_model

GOLDEN = [-4.65728, -6.83737, -7.50852, -5.00395, -9.59792, 1.5198]  # three frames at two pixels
BASELINE = {"memory_stages": [], "high_to_shallow": "none", "shallow_to_high": "none"}


def clip(frames=3, batch=1, size=(64, 64)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, batch, frames, 3, *size, generator=generator)


class TestHMHINet(ModelTester):
    kind = "hmhi"
    config = load_config(None, [*SETTINGS, "model.memory_topk=10"])

    def clip(self, frames, batch, size):
        return tuple(clip(frames, batch, size))

    def step(self, model, clip, t, state):
        images, flows = clip
        return model.step(images[:, t], flows[:, t], state)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BASELINE,
        *({**BASELINE, "memory_stages": [stage]} for stage in (1, 2, 3, 4)),
        {"memory_stages": [1, 2, 3, 4]},
        {"memory_stages": [1, 3]},
        {"shallow_to_high": "none"},
        {"high_to_shallow": "none"},
        {"high_to_shallow": "none", "shallow_to_high": "none"},
        {"shallow_to_high": "sgim", "high_to_shallow": "plam"},
        {"shallow_to_high": "sgim", "high_to_shallow": "sgim"},
        {"flow_adapters": False},
        {"inputs": "image"},
        {"inputs": "flow"},
        {"memory_topk": 0},
        {"memory_interval": 2},
    ],
    ids=str,
)
def test_every_switch_trains(changes):
    """Forward and backward, and every parameter gets a gradient: DDP needs no search for unused ones."""
    model = make_small_model(**changes).train()
    model(*clip()).square().mean().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


def test_swapped_interaction_uses_the_other_module():
    model = make_small_model(shallow_to_high="sgim", high_to_shallow="plam")
    assert isinstance(model.shallow_to_high, SGIM)
    assert isinstance(model.high_to_shallow, PLAM)


def test_padding_is_the_same_as_padding_the_input():
    model = make_small_model()
    images, flows = clip(3, 1, (64, 50))
    padded = [torch.nn.functional.pad(x[0], (0, 14, 0, 0), mode="replicate")[None] for x in (images, flows)]
    with torch.inference_mode():
        torch.testing.assert_close(model(images, flows), model(*padded)[..., :50])


def test_clip_is_a_loop_over_steps():
    model = make_small_model()
    images, flows = clip(4)
    memory, steps = None, []
    with torch.inference_mode():
        for t in range(4):
            logits, memory = model.step(images[:, t], flows[:, t], memory)
            steps.append(logits)
        assert torch.equal(model(images, flows), torch.stack(steps, dim=1))


@pytest.mark.parametrize("size", [(64, 64), (50, 83)])
def test_encoding_ahead_in_one_batch_changes_nothing(size):
    model = make_small_model()
    images, flows = clip(4, 1, size)
    memory = None
    with torch.inference_mode():
        encoded = model.encode(images[0], flows[0])  # the video's frames are the batch
        for t, expected in enumerate(model(images, flows)[0]):
            features = {stage: feature[t : t + 1] for stage, feature in encoded.items()}
            logits, memory = model.advance(features, size, memory)
            torch.testing.assert_close(logits[0], expected, atol=1e-5, rtol=1e-5)


def test_memory_changes_the_result_and_is_never_shared():
    model = make_small_model()
    images, flows = clip(2)
    with torch.inference_mode():
        _, memory = model.step(images[:, 0], flows[:, 0])
        first, _ = model.step(images[:, 1], flows[:, 1], memory)
        again, _ = model.step(images[:, 1], flows[:, 1], memory)  # the memory given is left as it was
        alone, _ = model.step(images[:, 1], flows[:, 1])
    assert torch.equal(first, again)
    assert not torch.allclose(first, alone, atol=1e-4)


@pytest.mark.parametrize(("frames", "interval", "held"), [(2, 1, [1, 2, 2, 2, 2]), (5, 2, [1, 1, 2, 2, 3])])
def test_bank_fills_and_writes_every_kth_frame(frames, interval, held):
    model = make_small_model(memory_frames=frames, memory_interval=interval)
    memory, sizes = None, []
    with torch.inference_mode():
        for image, flow in zip(*(x[0].split(1) for x in clip(5)), strict=True):
            _, memory = model.step(image, flow, memory)
            sizes.append(len(memory.banks[2]))
    assert sizes == held
    assert memory.banks[2].joined("key").shape == (1, held[-1] * 8 * 8, 64)
    assert memory.banks[4].joined("key").shape == (1, held[-1] * 2 * 2, 256)


def test_single_inputs_ignore_the_other_modality():
    images, flows = clip(1)
    with torch.inference_mode():
        image_only, flow_only = make_small_model(inputs="image"), make_small_model(inputs="flow")
        expected, _ = image_only.step(images[:, 0], flows[:, 0])
        assert torch.equal(image_only.step(images[:, 0], None)[0], expected)
        expected, _ = flow_only.step(images[:, 0], flows[:, 0])
        assert torch.equal(flow_only.step(None, flows[:, 0])[0], expected)


def test_adapters_act_on_flow_only():
    model = make_small_model()
    backbone = model.encoder.backbone
    image, flow = (x[:, 0] for x in clip(1))
    with torch.inference_mode():
        before = backbone(torch.cat((image, flow)), flow_from=1)
        for name, parameter in backbone.named_parameters():
            if "adapter" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        after = backbone(torch.cat((image, flow)), flow_from=1)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:1], new[:1])
        assert not torch.allclose(old[1:], new[1:], atol=1e-3)


@pytest.mark.parametrize(
    ("image", "flow", "message"),
    [
        ((1, 3, 64, 64), None, "flow is None"),
        ((1, 3, 64, 64), (1, 3, 64, 32), "differ in shape"),
        ((3, 64, 64), (3, 64, 64), "must have shape"),
        ((1, 1, 64, 64), (1, 1, 64, 64), "must have shape"),
    ],
)
def test_wrong_inputs_are_named(image, flow, message):
    image, flow = (None if shape is None else torch.zeros(shape) for shape in (image, flow))
    with pytest.raises(ValueError, match=message):
        make_small_model().step(image, flow)


def test_timm_backbone():
    model = make_small_model(backbone="timm/resnet18")
    with torch.inference_mode():
        assert model(*clip(2)).shape == (1, 2, 1, 64, 64)


@pytest.mark.parametrize(
    "name", ["mit_b9", "timm/no_such_model", "timm/vit_tiny_patch16_224", "timm/repvit_m1"]
)
def test_unfit_backbones_are_config_errors(name):
    from hmhi import ConfigError

    with pytest.raises(ConfigError, match=r"model\.backbone"):
        build_model(ModelConfig(backbone=name))


def test_golden_logits_of_the_bundled_weights():
    """Other bundled weights need other numbers; nothing else may change them."""
    model = load_model(EMBEDDED)
    images, flows = (torch.from_numpy(x)[None] for x in make_inputs.clip(3, 96, 128))
    with torch.inference_mode():
        logits = model(images, flows)  # (1, 3, 1, 96, 128)
    found = logits[0, :, 0, [20, 48], [33, 64]].flatten()
    torch.testing.assert_close(found, torch.tensor(GOLDEN), atol=1e-4, rtol=0)
