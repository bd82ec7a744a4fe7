"""The step with a memory of fixed size equals `HMHINet.step`, in torch and in ONNX Runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import make_small_model

from hmhi.commands.export_onnx import main
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.models.export import StreamStep, export_onnx

VARIANTS = {
    "as in the paper": {},
    "every second frame": {"memory_interval": 2},
    "all keys": {"memory_topk": 0},
    "one bank": {"memory_stages": [3], "high_to_shallow": "none", "shallow_to_high": "none"},
    "no bank": {"memory_stages": [], "high_to_shallow": "none", "shallow_to_high": "none"},
    "flow alone": {"inputs": "flow"},
}


def pictures(frames: int, batch: int, size: tuple[int, int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [tuple(torch.randn(2, batch, 3, *size)) for _ in range(frames)]


@torch.inference_mode()
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_first_frame_filling_and_full_memory(changes):
    model = make_small_model(memory_frames=3, **changes)
    for size, batch in (((64, 96), 1), ((50, 83), 2)):
        step = StreamStep(model, size)
        given = dict(zip(step.input_names, step.example(batch), strict=True))
        memory = None
        for image, flow in pictures(7, batch, size):
            expected, memory = model.step(image, flow, memory)
            given |= {"image": image, "flow": flow}
            out = dict(zip(step.output_names, step(*(given[name] for name in step.input_names)), strict=True))
            torch.testing.assert_close(out["logits"], expected, atol=1e-5, rtol=1e-4)
            given |= {name.removeprefix("next_"): value for name, value in out.items()}
        assert given["frame"] == 7


@pytest.mark.slow
def test_onnx_runtime_over_a_stream(tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    model = make_small_model(memory_frames=3)
    step = export_onnx(model, (64, 96), tmp_path / "step.onnx", about={"hmhi": "{}"})
    session = runtime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == step.input_names
    assert session.get_modelmeta().custom_metadata_map["hmhi"] == "{}"
    program = torch.export.export(step, step.example(2), dynamic_shapes=step.dynamic_shapes).module()
    for batch in (1, 3):
        state = dict(zip(step.input_names, (x.numpy() for x in step.example(batch)), strict=True))
        memory = None
        for image, flow in pictures(10, batch, (64, 96)):
            with torch.inference_mode():
                expected, memory = model.step(image, flow, memory)
            state |= {"image": image.numpy(), "flow": flow.numpy()}
            logits, *after = session.run(None, state)
            np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
            exported, *_ = program(*map(torch.from_numpy, state.values()))
            torch.testing.assert_close(exported, expected, atol=1e-4, rtol=0)
            state |= zip(step.input_names[2:], after, strict=True)


@pytest.mark.slow
def test_example_without_torch_gives_the_same_masks(tmp_path: Path, repository: Path):
    """The bundled weights, its flow of both directions, on frames of a moving square."""
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    frames, masks = tmp_path / "frames", tmp_path / "masks"
    frames.mkdir()
    ground = np.random.default_rng(0).integers(60, 200, (96, 128, 3)).astype(np.uint8)
    for i in range(4):
        ground[20 + 2 * i : 60 + 2 * i, 30 + 5 * i : 70 + 5 * i] = (220, 40, 40)
        Image.fromarray(ground).save(frames / f"{i}.png")
    assert main(["--output", str(tmp_path / "hmhi.onnx"), "--image-size", "96x128"]) == 0
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    example = repository / "examples" / "onnx_stream.py"
    command = [sys.executable, "-c", code, example, tmp_path / "hmhi.onnx", frames, masks]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    segmenter = VideoSegmenter(device="cpu", image_size=(96, 128))
    for result, path in zip(segmenter.stream(frames), sorted(masks.iterdir()), strict=True):
        assert np.array_equal(np.array(Image.open(path)) > 0, result.mask > 0)


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    assert main(["--output", str(tmp_path / "x.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
