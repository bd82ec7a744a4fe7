"""What runs on a GPU gives what it gives on the CPU; `python -m pytest -m gpu` where there is one.

The same bodies run on the CPU, so that a GPU meets no line for the first time.
"""

from functools import partial

import numpy as np
import pytest
import torch
from small_hmmn import save_small_hmmn
from small_model import save_small_checkpoint
from tiny import tiny_config
from torchvision.models.optical_flow import raft_small

from benchmarks.machine import memory_now
from hmhi.config import ModelConfig
from hmhi.flow.raft import RAFTEstimator
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.layers.attention import topk_attention
from hmhi.models.build import build_model
from hmhi.models.weights import load_state
from hmhi.runtime.graphs import GraphRunner
from hmhi.training.train import fit

CPU = torch.device("cpu")
SLOW_ON_CPU = pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
    indirect=True,
)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """No TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt", ["model.memory_frames=2"])


def video(count, size=(48, 70)):
    """A bright square that moves over noise."""
    ground = np.random.default_rng(0).integers(0, 120, (*size, 3), dtype=np.uint8)
    for t in range(count):
        frame = ground.copy()
        frame[10:30, 5 + 3 * (t % 10) : 25 + 3 * (t % 10)] = 250
        yield frame


def probabilities(segmenter, count=5):
    return np.stack([result.prob for result in segmenter.stream(video(count))])


def close(found, expected, share=1e-3):
    """A near tie of the best keys may fall the other way, which moves a few pixels."""
    assert np.mean(np.abs(found - expected) > 1e-3) <= share
    assert expected.std() > 1e-3


@pytest.fixture(scope="module")
def expected(checkpoint):
    return probabilities(VideoSegmenter(checkpoint, CPU))


@pytest.mark.parametrize("way", [{}, {"look_ahead": 2, "graphs": True}], ids=str)
def test_a_stream(device, checkpoint, expected, way):
    segmenter = VideoSegmenter(checkpoint, device, **way)
    close(probabilities(segmenter), expected)
    close(np.stack([r.prob for _, r in segmenter.segment_many([list(video(5))] * 2)])[::2], expected)
    if device.type == "cuda":
        assert isinstance(segmenter._runner, GraphRunner) == ("graphs" in way)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        pytest.param("cpu", "bf16"),
        pytest.param("cuda", "bf16", marks=pytest.mark.gpu),
        pytest.param("cuda", "fp16", marks=pytest.mark.gpu),
    ],
    indirect=["device"],
)
def test_a_stream_in_16_bits(device, checkpoint, expected, precision):
    found = [
        probabilities(VideoSegmenter(checkpoint, device, graphs=graphs, overrides=[f"infer.precision={precision}"]))
        for graphs in (False, True)
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - expected).mean() < 0.05


@SLOW_ON_CPU
def test_a_compiled_stream(device, checkpoint, expected, monkeypatch, caplog):
    if device == CPU:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for graphs in (False, True):
        found = probabilities(VideoSegmenter(checkpoint, device, compile=True, graphs=graphs))
        assert np.abs(found - expected).mean() < 1e-2
    assert not caplog.messages  # such as that it could not be compiled


@SLOW_ON_CPU
@pytest.mark.parametrize("graphs", [False, True])
def test_what_the_device_holds_does_not_grow_with_length(device, checkpoint, graphs):
    held = []
    for number, _ in enumerate(VideoSegmenter(checkpoint, device, graphs=graphs).stream(video(60))):
        if number > 20:
            held.append(memory_now(str(device)))
    slack = 0 if device.type == "cuda" else 32  # MiB; a process keeps what it has freed
    assert max(held) - held[0] <= slack


@SLOW_ON_CPU
def test_objects_given_by_masks(device, tmp_path):
    checkpoint = save_small_hmmn(tmp_path / "hmmn.pt")
    mask = np.zeros((48, 70), np.uint8)
    mask[10:30, 5:25] = 3
    mask[35:45, 40:60] = 7
    results = [
        np.stack([r.probs for r in ObjectSegmenter(checkpoint, where, short_side=64).stream(video(3), mask)])
        for where in (CPU, device)
    ]
    close(results[1], results[0], share=0.01)


def test_flow_by_raft(device, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(raft_small(weights=None).state_dict(), weights)
    frames = np.random.default_rng(1).integers(0, 255, (2, 2, 61, 90, 3), dtype=np.uint8)
    expected, found = (
        RAFTEstimator("raft-small", str(where), weights, updates=2).batch(*frames) for where in (CPU, device)
    )
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert expected.std() > 0


def test_topk_attention(device):
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, n, 16, generator=generator).to(device).requires_grad_() for n in (40, 96, 96))
    scores = q @ k.transpose(1, 2) / 4  # (2, 40, 96)
    limit = scores.topk(10, dim=-1).values[..., -1:]
    dense = scores.masked_fill(scores < limit, -torch.inf).softmax(-1) @ v
    sparse = topk_attention(q, k, v, 10)
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(dense.square().sum(), (q, k, v))
    found = torch.autograd.grad(sparse.square().sum(), (q, k, v))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@SLOW_ON_CPU
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_fit_alone_and_as_one_rank_of_one(device, tmp_path, monkeypatch, precision):
    """With nccl on a GPU and gloo on a CPU; `fit` takes the GPU where there is one."""
    if device == CPU and torch.cuda.is_available():
        pytest.skip("fit takes the GPU")
    epochs = (
        4 if precision == "fp16" else 1
    )  # its loss scale comes down from 65536, and skips steps meanwhile
    settings = (
        f"train.precision={precision}",
        f"train.epochs={epochs}",
        "model.dropout=0",
        "model.drop_path=0",
    )
    assert fit(tiny_config(tmp_path / "alone", *settings)) == 0
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert fit(tiny_config(tmp_path / "rank", *settings)) == 0
    alone, rank = (load_state(tmp_path / run / "ckpt" / "last.pt")["model"] for run in ("alone", "rank"))
    apart = torch.cat([(rank[key] - value).abs().flatten() for key, value in alone.items()])
    assert apart.mean() < 2e-4  # AdamW moves a weight by 1e-3 a step, whichever way its gradient points


def test_the_whole_network(device):
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone="mit_b0", decoder_channels=32, ffn_channels=64)).eval()
    torch.nn.init.normal_(model.decoder.predictor.weight, std=0.1)
    clip = torch.randn(2, 1, 3, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(*clip)
        found = model.to(device)(*clip.to(device)).cpu()
    close(found.numpy(), expected.numpy())
