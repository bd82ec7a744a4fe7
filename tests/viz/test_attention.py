import logging

import numpy as np
import pytest
import torch
from small_model import SETTINGS, save_small_checkpoint

import hmhi.viz.attention as attention
from hmhi.config import load_config
from hmhi.flow.files import read_flow_rgb
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.layers.attention import Attention
from hmhi.layers.blocks import CBAM
from hmhi.layers.position import rotary_table
from hmhi.media.pictures import read_rgb
from hmhi.models.build import build_model
from hmhi.viz.attention import PixelView
from hmhi.viz.probe import MemoryProbe, cbam_gates, cell_weights

NO_INTERACTION = ["model.high_to_shallow=none", "model.shallow_to_high=none"]


def small_model(*overrides):
    torch.manual_seed(0)
    return build_model(load_config(None, [*SETTINGS, *overrides]).model).eval()


def pictures_of(count, size=(64, 96)):
    return np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)


@torch.inference_mode()
def run(model, view, frames, input_size=(64, 96), new_scenes=()):
    """Step through frames of noise, and let a view follow."""
    generator = torch.Generator().manual_seed(0)
    memory = None
    for index, frame in enumerate(frames):
        image, flow = torch.randn(2, 1, 3, *input_size, generator=generator)
        _, memory = model.step(image, flow, None if index in new_scenes else memory)
        view.follow(index, frame, input_size)


@pytest.fixture
def pages(monkeypatch):
    """Title and labels of every page that is drawn."""
    seen = []
    draw = attention._page

    def noted(title, panels, scale):
        seen.append((title, [label for _, label in panels]))
        return draw(title, panels, scale)

    monkeypatch.setattr(attention, "_page", noted)
    return seen


@pytest.mark.parametrize("with_rotary", [True, False], ids=["rotary", "plain"])
@pytest.mark.parametrize("topk", [0, 7, 500])
def test_weights_of_a_cell_give_the_output_at_that_cell(topk, with_rotary):
    torch.manual_seed(0)
    layer = Attention(16, topk=topk).eval()
    torch.nn.init.normal_(layer.q_proj.weight)
    rotary = rotary_table(4, 6, 16, torch.device("cpu")) if with_rotary else None
    q, keys, values = torch.randn(2, 24, 16), torch.randn(2, 72, 16), torch.randn(2, 72, 16)
    output = layer(q, keys, values, rotary)
    for cell in (0, 11, 23):
        weights = cell_weights(layer, q, keys, cell, rotary)
        torch.testing.assert_close(weights.sum(1), torch.ones(2))
        assert ((weights > 0).sum(1) == (topk if topk == 7 else 72)).all()
        mixed = torch.einsum("bm,bmc->bc", weights, values)
        torch.testing.assert_close(layer.out_proj(mixed), output[:, cell], atol=1e-5, rtol=1e-5)


def test_the_probe_notes_what_the_model_itself_reads():
    """Weights from a probed step times the values that went into the layers, against what came out of them."""
    model = small_model("model.memory_topk=20")
    layers = {
        ("reads", 2): model.readouts["2"].memory_attention,
        ("reads", 4): model.readouts["4"].memory_attention,
        ("sgim", 2): model.high_to_shallow.integrate.memory_attention,
    }
    calls = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, args, out, name=name: calls.__setitem__(name, (args[2], out)))
    image, flow = torch.randn(2, 4, 1, 3, 64, 96)
    memory = None
    with MemoryProbe(model) as probe, torch.inference_mode():
        for t in range(4):
            _, memory = model.step(image[t], flow[t], memory)
        steps = [probe.take() for _ in range(4)]
        assert steps[0].reads == steps[0].sgim == steps[0].plam == {}
        assert all(step.written for step in steps)
        for (kind, stage), layer in layers.items():
            values, output = calls[kind, stage]
            q, keys, rotary = getattr(steps[3], kind)[stage]
            for cell in (0, q.shape[1] - 1):
                mixed = cell_weights(layer, q, keys, cell, rotary) @ values[0]
                torch.testing.assert_close(layer.out_proj(mixed), output[:, cell], atol=1e-5, rtol=1e-5)
        assert len(steps[3].reads[2][1][0]) == 3 * 8 * 12
        assert len(steps[3].sgim[2][1][0]) == 2 * 3


def test_gates_of_a_cbam_give_its_output():
    torch.manual_seed(0)
    block = CBAM(6).eval()
    x = torch.randn(2, 6, 5, 4)
    convolved, channel, spatial = cbam_gates(block, x)
    assert channel.shape == (2, 6, 1, 1) and spatial.shape == (2, 1, 5, 4)
    torch.testing.assert_close(convolved * channel * spatial, block(x))


def test_the_model_is_left_as_it_was():
    model = small_model()
    image, flow = torch.randn(2, 1, 3, 64, 64)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    with torch.inference_mode():
        _, memory = model.step(image, flow)
        expected, _ = model.step(image, flow, memory)
        with pytest.raises(KeyError, match="inside"), MemoryProbe(model) as probe:
            assert hooks() > 0
            probed, _ = model.step(image, flow, memory)
            assert torch.equal(probed, expected)
            raise KeyError("inside")
    assert hooks() == 0
    with pytest.raises(RuntimeError, match="no further step"):
        probe.take()


@pytest.mark.parametrize("input_size", [(64, 96), (70, 100)], ids=["whole cells", "padded"])
@pytest.mark.parametrize("stage", [2, 4])
def test_the_cell_of_a_pixel_is_drawn_over_that_pixel(stage, input_size):
    frame = pictures_of(1, (140, 200))[0]
    panel = attention._shrink(frame)
    for x, y in [(0, 0), (199, 139), (57, 31), (150, 90)]:
        view = PixelView(MemoryProbe(small_model()), (x, y))
        cell = view._cell(attention._Moment(0, frame, input_size, attention.ProbedStep(), ()), stage)
        one = np.zeros(attention._grid(input_size, stage), np.float32)
        one.flat[cell] = 1
        drawn = attention._spread(one, stage, input_size, panel, smooth=False)
        assert drawn.shape == panel.shape[:2]
        scale = panel.shape[0] / 140
        assert drawn[int((y + 0.5) * scale), int((x + 0.5) * scale)] == 1
        assert drawn.mean() < 3 / one.size  # and over little else


def test_every_picture_of_the_full_model(pages):
    model = small_model("model.memory_topk=20")
    with MemoryProbe(model) as probe:
        view = PixelView(probe, (30, 20))
        run(model, view, pictures_of(4))
        drawn = view.draw()
    assert list(drawn) == ["memory_stage2", "memory_stage4", "sgim_stage2", "plam_stage4"]
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in drawn.values())
    assert view.drawn_frame == 3
    assert "20 best of 288 cells" in pages[0][0]
    assert "all 18 cells" in pages[1][0]
    for _, (current, *held) in pages[:2]:
        assert current == "frame 3, pixel (30, 20)"
        assert [label.split(":")[0] for label in held] == ["frame 0", "frame 1", "frame 2"]
        assert sum(float(label.split(": ")[1].rstrip("%")) for label in held) == pytest.approx(100, abs=0.2)


def test_held_frames_follow_the_policy_of_the_bank(pages):
    model = small_model("model.memory_frames=2", "model.memory_interval=3", *NO_INTERACTION)
    with MemoryProbe(model) as probe:
        view = PixelView(probe, (30, 20), frame=8)
        run(model, view, pictures_of(10))
        view.draw()
    assert view.drawn_frame == 8
    assert [label.split(":")[0] for label in pages[0][1][1:]] == ["frame 3", "frame 6"]


def test_a_new_scene_has_no_frames_of_the_old_one(pages):
    model = small_model()
    with MemoryProbe(model) as probe:
        view = PixelView(probe, (30, 20))
        run(model, view, pictures_of(6), new_scenes=[3])
        view.draw()
    assert [label.split(":")[0] for label in pages[0][1][1:]] == ["frame 3", "frame 4"]


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["model.memory_stages=[3]", *NO_INTERACTION], ["memory_stage3"]),
        (NO_INTERACTION, ["memory_stage2", "memory_stage4"]),
        (
            ["model.high_to_shallow=plam", "model.shallow_to_high=sgim"],
            ["memory_stage2", "memory_stage4", "sgim_stage4", "plam_stage2"],
        ),
    ],
    ids=["one bank", "no interaction", "swapped"],
)
def test_only_what_a_model_has_is_drawn(overrides, names, caplog):
    model = small_model(*overrides)
    with MemoryProbe(model) as probe, caplog.at_level(logging.INFO):
        view = PixelView(probe, (30, 20))
        run(model, view, pictures_of(2))
        assert list(view.draw()) == names
    lacking = [name for name in ("PLAM", "SGIM") if not any(name.lower() in drawn for drawn in names)]
    assert caplog.messages == [f"no picture of {name}: this model has none" for name in lacking]


@pytest.mark.parametrize(
    ("overrides", "frame", "count", "reason"),
    [
        (["model.memory_stages=[]", *NO_INTERACTION], None, 3, "the model has no memory bank"),
        ([], None, 1, "no frame read the memory"),
        ([], 0, 3, "frame 0 is not there, or has not read the memory"),
        ([], 7, 3, "frame 7 is not there, or has not read the memory"),
    ],
    ids=["no bank", "one frame", "first frame", "beyond the end"],
)
def test_nothing_to_draw_is_an_error(overrides, frame, count, reason):
    model = small_model(*overrides)
    with MemoryProbe(model) as probe:
        view = PixelView(probe, (30, 20), frame)
        run(model, view, pictures_of(count))
        with pytest.raises(ValueError, match=f"^no attention to draw: {reason}"):
            view.draw()
    assert view.drawn_frame is None


@pytest.mark.parametrize("pixel", [(96, 10), (10, 64), (-1, 0)])
def test_a_pixel_outside_the_frame_is_refused(pixel):
    model = small_model()
    with MemoryProbe(model) as probe, pytest.raises(ValueError, match="outside frame 0 of 96x64 pixels"):
        run(model, PixelView(probe, pixel), pictures_of(1))


@pytest.mark.parametrize("size", [(480, 40), (40, 480), (1, 1)], ids=["tall", "wide", "one pixel"])
def test_frames_of_odd_shapes_are_drawn(size):
    model = small_model()
    with MemoryProbe(model) as probe:
        view = PixelView(probe, (0, 0))
        run(model, view, pictures_of(7, size), input_size=(64, 64))
        assert len(view.draw()) == 4


@pytest.mark.parametrize("look_ahead", [1, 3])
def test_real_video(tmp_path, shared_data, pages, look_ahead):
    folder = shared_data / "davis16"
    images = sorted((folder / "JPEGImages" / "480p" / "dog").iterdir())[:4]
    flows = [read_flow_rgb(folder / "Flow" / "dog" / f"{path.stem}.jpg") for path in images]
    checkpoint = save_small_checkpoint(tmp_path / "best.pt")
    segmenter = VideoSegmenter(checkpoint, "cpu", short_side=96, look_ahead=look_ahead)
    with MemoryProbe(segmenter.model) as probe:
        view = PixelView(probe, (420, 250))
        for result in segmenter.stream([read_rgb(path) for path in images], flows):
            view.follow(result.index, result.frame, segmenter.input_size(*result.mask.shape))
        assert len(view.draw()) == 4
    assert [label.split(":")[0] for label in pages[0][1][1:]] == ["frame 0", "frame 1", "frame 2"]
