"""HMMN: same weights, same inputs, same numbers as the authors' release (tests/parity/hmmn/README.md)."""

import hmmn_reference as reference
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hmhi.models.hmmn as hmmn
from hmhi.layers.aggregate import soft_aggregate
from hmhi.layers.tokens import from_tokens, to_tokens
from hmhi.memory.affinity import read_memory
from hmhi.memory.bank import BankPolicy, MemoryBank, Slot
from hmhi.memory.block_topk import from_blocks, read_blocks, to_blocks
from hmhi.memory.tracking import Kernel, place_kernel
from hmhi.models.hmmn_decoder import FACTORS
from hmhi.models.key_maps import release_to_hmmn
from hmhi.models.prompted import margins
from hmhi.models.weights import load_model

pytestmark = pytest.mark.parity

CLOSE, CLOSE_LOGITS = 1e-4, 3e-4
KERNELS = {"c1_single": "local", "c3_nokernel": "none"}


@pytest.fixture(scope="module")
def fixture():
    return reference.Fixture()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each case's model, from a file of the released form: bare tensors as DataParallel names them."""
    folder = tmp_path_factory.mktemp("release")
    state = {f"module.{key}": torch.from_numpy(value) for key, value in reference.make_state_dict().items()}
    torch.save(state, folder / "HMMN.pth")
    models = {
        case: load_model(folder / "HMMN.pth", overrides=[f"model.hmmn.kernel={kernel}"])
        for case, kernel in KERNELS.items()
    }
    (folder / "HMMN.pth").unlink()
    return models


def close(fixture, name: str, array: torch.Tensor, atol: float = CLOSE) -> None:
    assert fixture.max_error(name, array.detach().numpy()) <= atol, name


def same_sets(fixture, name: str, chosen: torch.Tensor) -> None:
    """Chosen cells (R, n, k), whatever their order."""
    expected = fixture.data[name].reshape(fixture.index[name]["shape"])
    assert np.array_equal(chosen.sort(dim=-1).values.numpy(), expected), name


def to_slot(x: torch.Tensor) -> torch.Tensor:
    """(R, C, h, w) as the release stores it, (R, C, 1, h, w)."""
    return x[:, :, None]


def record_reads(monkeypatch):
    """What `HMMN.read` asks of the memory, and what it gets."""
    calls = {"banks": [], "coarse": [], "blocks": []}

    def place(*args):
        bias, bank = place_kernel(*args)
        calls["banks"].append(bank)
        return bias, bank

    def coarse(query, keys, values, grid, **options):
        read, chosen = read_memory(query, keys, values, grid, **options)
        whole = torch.eye(keys.shape[1]).expand(len(keys), -1, -1)
        attention, _ = read_memory(query, keys, whole, grid, bias=options["bias"])  # (R, n, M)
        calls["coarse"].append((read, chosen, attention.transpose(1, 2)))
        return read, chosen

    def blocks(*args):
        calls["blocks"].append(read_blocks(*args))
        return calls["blocks"][-1]

    monkeypatch.setattr(hmmn, "place_kernel", place)
    monkeypatch.setattr(hmmn, "read_memory", coarse)
    monkeypatch.setattr(hmmn, "read_blocks", blocks)
    return calls


@pytest.mark.parametrize("case", KERNELS)
@torch.inference_mode()
def test_every_intermediate_of_a_video(models, fixture, case, monkeypatch):
    model = models[case]
    calls = record_reads(monkeypatch)
    outputs = {}
    for name in ("memory_encoder", "query_encoder", "decoder"):
        getattr(model, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.update({name: output})
        )
    frames = torch.from_numpy(reference.make_frames(case))
    given = {1: torch.from_numpy(reference.make_first_mask(case)[1] > 0)}
    labels, state = [], model.start()
    for t, frame in enumerate(frames):
        written, memory = outputs.get("memory_encoder"), state.groups
        prob, state = model.step(frame[None], state, given if t == 0 else None)
        labels.append(prob.argmax(0))
        if t == 0:
            continue
        prefix = f"{case}/t{t}"
        coarse, fine = memory[0].banks["coarse"].slots[-1], memory[0].banks["fine"].slots[-1]
        grid = coarse.grid
        close(fixture, f"{prefix}/mem_k4", to_slot(from_tokens(coarse.tensors["key"], grid)))
        close(fixture, f"{prefix}/mem_v4", to_slot(from_tokens(coarse.tensors["value"], grid)))
        for level, factor in FACTORS.items():
            for letter, name in (("k", "key"), ("v", "value")):
                stored = from_blocks(fine.tensors[f"{name}{level}"], factor, grid)
                close(fixture, f"{prefix}/mem_{letter}{level}", to_slot(stored))
        for level, of_memory, of_query in zip((2, 3, 4), written, outputs["query_encoder"], strict=True):
            close(fixture, f"{prefix}/encM_r{level}", of_memory)
            close(fixture, f"{prefix}/encQ_r{level}", of_query)
        read, chosen, attention = calls["coarse"][-1]
        value = model.query_values["4"](outputs["query_encoder"][2])
        close(fixture, f"{prefix}/attn4", attention)
        close(fixture, f"{prefix}/read4", torch.cat((from_tokens(read, grid), value), dim=1))
        for level, blocks in zip((3, 2), calls["blocks"][-2:], strict=True):
            close(fixture, f"{prefix}/read{level}", from_blocks(blocks, FACTORS[level], grid))
        same_sets(fixture, f"{prefix}/top32_sorted", chosen)
        same_sets(fixture, f"{prefix}/top8_sorted", chosen[..., :8])
        if f"{prefix}/track" in fixture.index:
            assert fixture.max_error(f"{prefix}/track", calls["banks"][-1].joined("track").numpy()) == 0
        decoded = outputs["decoder"]
        close(fixture, f"{prefix}/dec", decoded)
        merged = soft_aggregate(decoded.softmax(dim=1)[:, 1])
        close(fixture, f"{prefix}/logit", merged, CLOSE_LOGITS)
        close(fixture, f"{prefix}/prob", prob[None])
    sure = fixture.sure_pixels(case)
    expected = fixture.data[f"{case}/labels"].reshape(sure.shape)
    assert sure.mean() > 0.99
    assert np.array_equal(torch.stack(labels).numpy()[sure], expected[sure])


def test_gradients_through_memory(models, fixture):
    """Of the mean cross-entropy of two frames, through the soft masks that the first one writes."""
    case, model = "c3_nokernel", models["c3_nokernel"]
    images = torch.from_numpy(reference.make_frames(case)[None, :3])
    masks = torch.from_numpy(reference.make_first_mask(case)[None, 1:])
    targets = [torch.from_numpy(reference.make_target(case, t))[None] for t in (1, 2)]
    model.zero_grad()
    logits = model(images, masks, torch.ones(1, 1, dtype=torch.bool))
    losses = [F.cross_entropy(frame, target) for frame, target in zip(logits.unbind(1), targets, strict=True)]
    loss = torch.stack(losses).mean()
    loss.backward()
    found = torch.stack([*losses, loss]).detach().numpy()
    np.testing.assert_allclose(found, fixture.data["grad/loss"], atol=CLOSE, rtol=0)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    compared = [name for name in fixture.index if name.startswith("grad/") and name != "grad/loss"]
    assert len(compared) == 16
    for name in compared:
        (ours,) = release_to_hmmn({name.removeprefix("grad/"): torch.empty(0)})
        close(fixture, name, gradients[ours])


def test_every_key_of_the_release_has_a_place(models):
    keys = {entry["key"] for entry in reference.load_keys()}
    renamed = release_to_hmmn({key: torch.empty(0) for key in keys if not key.endswith((".mean", ".std"))})
    assert len(renamed) == len(keys) - 4
    assert renamed.keys() == models["c1_single"].state_dict().keys()
    assert sum(p.numel() for p in models["c1_single"].parameters()) == 42_760_194


# ---------------------------------------------------------------- the coarse read, the fine read, the merge alone

U = reference.UNIT
GRID = (U["h"], U["w"])


def unit(name: str, channels: int, scale: float = 1.0, size=GRID) -> torch.Tensor:
    return torch.from_numpy(reference.unit_array(name, (U["b"], channels, *size), scale))


def unit_slot(i: int) -> Slot:
    key, value = (
        torch.from_numpy(reference.unit_array(f"read:{name}:{i}", (U["b"], channels, 1, *GRID), scale))[
            :, :, 0
        ]
        for name, channels, scale in (("key", U["d"], 2.0), ("val", U["dv"], 1.0))
    )
    return Slot(i, GRID, {"key": to_tokens(key), "value": to_tokens(value)})


def unit_read(fixture, name: str, i: int, bank: MemoryBank, kernel: Kernel) -> MemoryBank:
    query = to_tokens(unit(f"read:qkey:{i}", U["d"], 2.0))
    bias = None
    if kernel.mode != "none":
        bias, bank = place_kernel(query, bank, GRID, kernel)
    key, value = bank.joined("key"), bank.joined("value")
    read, _ = read_memory(query, key, value, GRID, bias=bias)
    attention, _ = read_memory(query, key, torch.eye(key.shape[1]).expand(len(key), -1, -1), GRID, bias=bias)
    close(fixture, f"{name}/attn", attention.transpose(1, 2))
    close(
        fixture, f"{name}/out", torch.cat((from_tokens(read, GRID), unit(f"read:qval:{i}", U["dv"])), dim=1)
    )
    return bank


def test_coarse_reads_of_a_memory_that_grows_and_shrinks(fixture):
    bank, lengths = MemoryBank(BankPolicy(frames=0, previous=True, persist=False)), [*U["t_list"], 0]
    for i, now in enumerate(U["t_list"]):
        bank = bank.append(unit_slot(i))
        assert len(bank) == now
        bank = unit_read(fixture, f"unit/read/{i}", i, bank, Kernel())
        tracks = bank.joined("track")
        assert fixture.max_error(f"unit/read/{i}/track", tracks.numpy()) == 0
        if lengths[i + 1] != now + 1:  # the newest slot is not kept
            bank = MemoryBank(bank.policy, bank.slots[:-1])
        else:
            kept = bank.slots[-1]
            bank = MemoryBank(
                bank.policy, (*bank.slots[:-1], Slot(kept.frame, GRID, kept.tensors, pinned=True))
            )
    last = MemoryBank(bank.policy, (*bank.slots, unit_slot(5)))
    unit_read(fixture, "unit/read_plain", 5, last, Kernel(mode="none"))
    unit_read(fixture, "unit/read_global", 5, last, Kernel(mode="global"))


def test_fine_reads(fixture):
    n = GRID[0] * GRID[1]
    guidance = torch.from_numpy(reference.unit_array("topk:ref", (U["b"], 2 * n, n), 2.0)).softmax(dim=1)
    for factor, best, d, dv in zip(U["fine"], U["top_k"], U["d_fine"], U["dv_fine"], strict=True):
        size = (GRID[0] * factor, GRID[1] * factor)
        key, value = (
            torch.from_numpy(reference.unit_array(f"topk:{name}:{factor}", (U["b"], c, 2, *size), scale))
            for name, c, scale in (("key", d, 2.0), ("val", dv, 1.0))
        )
        key, value = (torch.cat([to_blocks(x, factor) for x in m.unbind(2)], dim=1) for m in (key, value))
        query = to_blocks(unit(f"topk:q:{factor}", d, 2.0, size), factor)
        chosen = guidance.topk(U["top_k"][0], dim=1).indices[:, :best].transpose(1, 2)
        close(
            fixture,
            f"unit/topk/{factor}/out",
            from_blocks(read_blocks(query, key, value, chosen), factor, GRID),
        )


def test_soft_aggregation(fixture):
    prob = reference.unit_uniform("agg:ps", (3, 4, 5))
    prob[0, 0, 0], prob[1, 0, 1] = 0, 1
    close(fixture, "unit/aggregate/logit", soft_aggregate(torch.from_numpy(prob)))


def test_margins(fixture):
    for size, expected in fixture.index["unit/pad16"]["left_right_top_bottom"].items():
        assert list(margins([int(side) for side in size.split("x")], 16)) == expected
