"""The built search against PyTorch's, on this machine's processor."""

import functools

import pytest
import torch

import hmhi.layers.topk as topk
from hmhi.layers import topk_cpu


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def built(cache, monkeypatch):
    """An own cache, and nothing remembered from elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("HMHI_KERNELS", raising=False)
    monkeypatch.setattr(topk_cpu, "library", functools.cache(topk_cpu.library.__wrapped__))


def skip_without_library():
    if topk_cpu.library() is None:
        pytest.skip("no compiler, or a processor that the source is not written for")


def some(b, n, m, channels, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n + m)
    return (torch.randn(b, size, channels, generator=generator).to(dtype) for size in (n, m))


def by_key(scores, index):
    order = index.argsort(-1)
    return scores.gather(-1, order), index.gather(-1, order)


def check(q, k, kept):
    """Float64 on the same numbers is the truth; the built search keeps the same keys, unless two are as good."""
    scores, index = topk_cpu.search(q, k, kept)
    truth, keys = topk.search(q.double(), k.double(), kept)
    torch.testing.assert_close(scores.sort(-1).values, truth.sort(-1).values.float(), atol=2e-5, rtol=1e-5)
    assert (index.sort(-1).values == keys.sort(-1).values).float().mean() > 0.999
    assert (index.sort(-1).values.diff(dim=-1) > 0).all()  # none twice
    dense = q.double() @ k.double().transpose(1, 2) * q.shape[-1] ** -0.5
    torch.testing.assert_close(scores, dense.gather(-1, index).float(), atol=2e-5, rtol=1e-5)


SHAPES = [(1, 1, 50, 32, 50), (2, 100, 333, 64, 7), (1, 193, 1500, 128, 50), (3, 5, 400, 96, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_finds_the_best_keys(dtype):
    """Also where neither queries nor keys fill a tile, and where all keys are kept."""
    skip_without_library()
    for b, n, m, channels, kept in SHAPES:
        check(*some(b, n, m, channels, dtype), kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", ["-mavx2 -mfma", "-march=native -mno-amx-bf16", "-march=native -mno-avx512bf16"]
)
def test_it_finds_the_best_keys_on_lesser_processors(flags, monkeypatch):
    skip_without_library()
    others = tuple(flag for flag in topk_cpu.FLAGS if not flag.startswith("-march")) + tuple(flags.split())
    lesser = topk_cpu.load(others)
    monkeypatch.setattr(topk_cpu, "library", lambda: lesser)
    for dtype in (torch.float32, torch.bfloat16):
        for b, n, m, channels, kept in SHAPES:
            check(*some(b, n, m, channels, dtype), kept)


def test_the_operator_takes_it_for_many_scores(monkeypatch):
    """The same numbers and gradients as PyTorch's search gives; few scores stay with PyTorch."""
    skip_without_library()
    calls = []
    search = topk_cpu.search
    monkeypatch.setattr(topk_cpu, "search", lambda *args: calls.append(args) or search(*args))
    results = {}
    for at_once in (1 << 22, 1000):
        monkeypatch.setattr(topk, "AT_ONCE", at_once)
        q, k = (x.requires_grad_() for x in some(2, 40, 100, 32))
        scores, index = topk.topk_scores(q, k, 9)
        scores.exp().sum().backward()
        results[at_once] = *by_key(scores, index), q.grad, k.grad
        assert len(calls) == (at_once == 1000)
    for one, other in zip(*results.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_nan_and_infinity_come_through():
    """A query that is NaN has NaN scores, as in PyTorch, so that a bad training step is seen; others stay."""
    skip_without_library()
    q, k = some(1, 4, 300, 32)
    q[0, 1], q[0, 2] = float("nan"), 3e38
    scores, index = topk_cpu.search(q, k, 5)
    assert scores[0, 1].isnan().all()
    assert not scores[0, 2].isfinite().all()
    assert ((index >= 0) & (index < 300)).all()
    torch.testing.assert_close(scores[0, 3].sort().values, topk.search(q[:, 3:], k, 5)[0][0, 0].sort().values)


def test_it_is_built_once(cache):
    skip_without_library()
    before = {path.name: path.stat().st_mtime_ns for path in (cache / "hmhi").glob("*.so")}
    topk_cpu.load(topk_cpu.FLAGS)
    assert {path.name: path.stat().st_mtime_ns for path in (cache / "hmhi").glob("*.so")} == before
    assert not [path for path in (cache / "hmhi").iterdir() if path.name not in {*before, "build.lock"}]


@pytest.mark.parametrize(
    "change",
    [("HMHI_KERNELS", "off"), ("CXX", "no-such-compiler"), ("CXX", "false"), ("XDG_CACHE_HOME", "/dev/null")],
    ids="=".join,
)
def test_without_it_pytorch_searches(change, tmp_path, monkeypatch, caplog):
    """Turned off, no compiler, one that fails, no place to write: the same numbers, and a line for who debugs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(*change)
    monkeypatch.setattr(topk, "AT_ONCE", 1000)
    q, k = some(1, 40, 100, 32)
    with caplog.at_level("DEBUG", logger="hmhi.layers.topk_cpu"):
        scores, index = topk.topk_scores(q, k, 9)
        topk.topk_scores(q, k, 9)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("top-k search runs in PyTorch: ")
    expected, keys = topk.search(q, k, 9)
    assert torch.equal(scores, expected)
    assert torch.equal(index, keys)
