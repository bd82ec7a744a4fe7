"""Same weights, same inputs, same numbers as the authors' release."""

import json

import numpy as np
import pytest
import torch
from reference import FOLDER, MODELS, clip, flat_sample, release_state, save_release_checkpoint, stored

import hmhi.layers.attention
from hmhi.config import ModelConfig
from hmhi.models.build import build_model
from hmhi.models.weights import load_model

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each model of the release, loaded from a checkpoint of the release's form."""
    loaded = {}

    def load(variant: str):
        if variant not in loaded:
            path = tmp_path_factory.mktemp("release") / "model.pth"
            loaded[variant] = load_model(save_release_checkpoint(MODELS[variant], path))
            path.unlink()
        return loaded[variant]

    return load


def run_and_record(model, images, flows) -> dict[str, torch.Tensor]:
    """Every tensor that the stored arrays know, from `step` alone and forward hooks."""
    record: dict[str, torch.Tensor] = {}
    tokens: dict[str, list[torch.Tensor]] = {"0": [], "1": []}
    frame = 0

    def keep(name):
        def hook(_module, _inputs, output):
            record[f"{name}_t{frame}"] = output

        return hook

    def keep_encoder(_module, _inputs, output):
        for k, (image, flow) in enumerate((stage.chunk(2) for stage in output), start=1):
            record[f"img_z{k}_t{frame}"], record[f"flow_z{k}_t{frame}"] = image, flow
            record[f"z{k}_t{frame}"] = image + flow

    def keep_tokens(bank):
        def hook(_module, _inputs, output):
            tokens[bank].append(output)
            record[f"bank{bank}_t{frame}"] = torch.cat(tokens[bank][-model.policy.frames :], dim=1)

        return hook

    hooks = [
        model.encoder.backbone.register_forward_hook(keep_encoder),
        model.decoder.register_forward_hook(keep("raw")),
    ]
    for bank, stage in enumerate(model.memory_stages):
        hooks.append(model.readouts[str(stage)].register_forward_hook(keep(f"read{bank}")))
        hooks.append(model.memory_encoders[str(stage)].register_forward_hook(keep_tokens(str(bank))))
    if model.high_to_shallow is not None:
        hooks.append(model.high_to_shallow.register_forward_hook(keep("sgim")))
        hooks.append(model.shallow_to_high.register_forward_hook(keep("plam")))

    memory = None
    with torch.inference_mode():
        for frame in range(images.shape[1]):
            record[f"score_t{frame}"], memory = model.step(images[:, frame], flows[:, frame], memory)
    for hook in hooks:
        hook.remove()
    return record


def compared(record: dict[str, torch.Tensor], reference: dict[str, np.ndarray], size: int):
    """Pairs of (name, ours, the release's), of every array that the release stored except its sine tables."""
    for name, expected in reference.items():
        if name.startswith("pos"):
            continue  # ours are not stored with the bank; tests/layers/test_position.py covers them
        ours = record[name]
        ours = (
            ours[0, 0, :: size // 64, :: size // 64].numpy()
            if name.startswith("score")
            else flat_sample(ours)
        )
        yield name, ours, expected


@pytest.mark.parametrize("variant", ["full", "baseline", "both"])
def test_256_within_1e_4(models, variant):
    reference = stored(f"{variant}_256")
    record = run_and_record(models(variant), *clip(5, 256))
    seen = [name for name, _, _ in compared(record, reference, 256)]
    assert len(seen) >= 5
    for name, ours, expected in compared(record, reference, 256):
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0, err_msg=name)


def test_swin_256_within_1e_4(models, monkeypatch):
    """In frame 2 the release's rounding decides one near tie of the top 50 otherwise than ours.

    Our float32 and float64 agree with each other there. When that one query keeps its 51st key instead of the
    50th, as the release does, everything agrees to 1e-4.
    """
    reference = stored("swin_full_256")
    images, flows = clip(4, 256)
    record = run_and_record(models("swin_full"), images, flows)
    for name, ours, expected in compared(record, reference, 256):
        tied = name in ("score_t2", "raw_t2")
        np.testing.assert_allclose(ours, expected, atol=2e-4 if tied else 1e-4, rtol=0, err_msg=name)
    if difference(record, reference) <= 1e-4:
        return  # this machine's rounding decides as the release's did

    exact = hmhi.layers.attention.topk_attention
    calls = []

    def with_51st_key(rank):
        """Attention in which, in frame 2, the query with the rank-th closest tie keeps its 51st key."""

        def attention(q, k, v, topk, dropout=0.0):
            out = exact(q, k, v, topk, dropout)
            calls.append(rank)
            if calls.count(rank) == 2:  # frame 0 reads nothing
                scores = q[0] @ k[0].T * q.shape[-1] ** -0.5
                best, index = scores.topk(topk + 1, dim=-1)
                n = int((best[:, topk - 1] - best[:, topk]).argsort()[rank])
                assert best[n, topk - 1] - best[n, topk] < 3e-5
                kept = [*range(topk - 1), topk]
                out[0, n] = best[n, kept].softmax(-1) @ v[0, index[n, kept]]
            return out

        return attention

    agreement = []
    for rank in (0, 1):
        monkeypatch.setattr(hmhi.layers.attention, "topk_attention", with_51st_key(rank))
        agreement.append(difference(run_and_record(models("swin_full"), images, flows), reference))
    assert min(agreement) <= 1e-4


def difference(record, reference) -> float:
    return max(float(np.abs(ours - expected).max()) for _, ours, expected in compared(record, reference, 256))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "share"), [("baseline", 0.999), ("full", 0.95)])
def test_512_by_quantiles(models, variant, share):
    """At 512 each frame of the full model has a few queries whose 50th and 51st score differ by less than 1e-6.

    Rounding decides them, a choice changes the logits around its query by about 5e-4, and the memory hands that
    on; so up to 3.9 % of a frame's samples are off by more than 1e-4 in frame 4 (of the bank of stage 2; of the
    logits 1.4 %), depending on processor and version.
    """
    reference = stored(f"{variant}_512")
    record = run_and_record(models(variant), *clip(5, 512))
    for name, ours, expected in compared(record, reference, 512):
        difference = np.abs(ours - expected)
        assert np.quantile(difference, share) < 1e-4, name
        assert difference.max() < 2e-2, name


def test_batch_of_two_equals_two_clips(models):
    model = models("full")
    first, second = clip(3, 128), clip(3, 128, phase=0.37)
    joined = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    with torch.inference_mode():
        together = model(*joined)
        alone = torch.cat([model(*first), model(*second)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


# Live parameters are the release's without its dead attention copies, of which it has (channels squared plus
# channels) times four for each bank.
@pytest.mark.parametrize(
    ("changes", "released"),
    [
        ({"memory_stages": [], "high_to_shallow": "none", "shallow_to_high": "none"}, 23_153_861),
        ({"memory_stages": [2], "high_to_shallow": "none", "shallow_to_high": "none"}, 24_177_161),
        ({"memory_stages": [4], "high_to_shallow": "none", "shallow_to_high": "none"}, 33_116_869),
        ({"high_to_shallow": "none", "shallow_to_high": "none"}, 34_140_169),
        ({"shallow_to_high": "none"}, 34_865_417),
        ({"high_to_shallow": "none"}, 46_491_082),
        ({}, 47_216_330),
    ],
    ids=["baseline", "stage 2", "stage 4", "both", "+SGIM", "+PLAM", "full"],
)
@pytest.mark.parametrize("backbone", ["mit_b1", "mit_b2"])
def test_parameter_counts(changes, released, backbone):
    """The paper's Tables 3 and 4 print the counts of mit_b2: 13,549,280 more than mit_b1 in every row."""
    config = ModelConfig(backbone=backbone, **changes)
    with torch.device("meta"):
        model = build_model(config)
    live = sum(p.numel() for p in model.parameters())
    dead = sum(
        4 * (c * c + c) for c in (model.encoder.backbone.channels[s - 1] for s in config.memory_stages)
    )
    assert live + dead == released + (13_549_280 if backbone == "mit_b2" else 0)


@pytest.mark.parametrize(
    ("changes", "millions"),
    [
        ({"memory_stages": [], "high_to_shallow": "none", "shallow_to_high": "none"}, 36.7),
        ({"memory_stages": [2], "high_to_shallow": "none", "shallow_to_high": "none"}, 37.7),
        ({"memory_stages": [3], "high_to_shallow": "none", "shallow_to_high": "none"}, 41.1),
        ({"memory_stages": [4], "high_to_shallow": "none", "shallow_to_high": "none"}, 46.7),
        ({"high_to_shallow": "none", "shallow_to_high": "none"}, 47.7),
        ({"shallow_to_high": "none"}, 48.4),
        ({"high_to_shallow": "none"}, 60.0),
        ({}, 60.8),
    ],
)
def test_paper_tables_count_mit_b2_with_dead_copies(changes, millions):
    config = ModelConfig(backbone="mit_b2", **changes)
    with torch.device("meta"):
        model = build_model(config)
    dead = sum(
        4 * (c * c + c) for c in (model.encoder.backbone.channels[s - 1] for s in config.memory_stages)
    )
    count = sum(p.numel() for p in model.parameters()) + dead
    assert count / 1e6 == pytest.approx(millions, abs=0.051)


@pytest.mark.parametrize(
    ("backbone", "adapters", "count"),
    [
        ("mit_b0", False, 3_319_392),
        ("mit_b1", False, 13_151_424),
        ("mit_b2", False, 24_196_288),
        ("mit_b3", False, 44_072_128),
        ("mit_b0", True, 4_004_960),
        ("mit_b1", True, 15_870_144),
        ("mit_b2", True, 29_419_424),
        ("mit_b3", True, 53_640_224),
    ],
)
def test_backbone_parameter_counts(backbone, adapters, count):
    config = ModelConfig(backbone=backbone, flow_adapters=adapters)
    with torch.device("meta"):
        model = build_model(config)
    assert sum(p.numel() for p in model.encoder.backbone.parameters()) == count


def test_swin_parameter_counts():
    config = ModelConfig(backbone="swin_tiny")
    model = build_model(config)
    assert sum(p.numel() for p in model.encoder.backbone.parameters()) == 27_517_818
    state = release_state("swin_tiny_full")
    index = json.loads((FOLDER / "state_keys_swin_tiny_full.json").read_text())
    live = sum(
        state[key].numel()
        for key, entry in index.items()
        if entry["dtype"] == "float32" and ".cross_attention." not in key
    )
    assert sum(p.numel() for p in model.parameters()) == live
