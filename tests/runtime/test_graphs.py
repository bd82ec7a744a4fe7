"""Frames by recordings give the numbers of frames by themselves, on the CPU with a stand-in for CUDA graphs."""

import numpy as np
import pytest
import torch
from small_model import make_small_model

from hmhi.runtime.frames import FrameRunner
from hmhi.runtime.graphs import KINDS, GraphRunner, Recordings

CPU = torch.device("cpu")


class Repeats:
    """Stands in for a CUDA graph: the same function on the same tensors again, its results where they were."""

    def __init__(self):
        self.count = 0

    def __call__(self, function, inputs):
        self.count += 1
        outputs = {name: torch.full_like(x, np.nan) for name, x in function(inputs).items()}

        def repeat():
            for name, x in function(inputs).items():
                outputs[name].copy_(x)

        return outputs, repeat


def runners(device, precision="fp32", **changes):
    model = make_small_model(memory_frames=2, **changes).to(device)
    record = Repeats() if device == CPU else None
    return FrameRunner(model, device, precision), GraphRunner(model, device, precision, record=record), record


def pictures(count, size=(64, 96), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 2, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("interval", [1, 2])
@torch.inference_mode()
def test_numbers_are_those_of_frames_by_themselves(device, interval):
    """While the memory fills and while it evicts, for two videos in turns."""
    plain, graphed, record = runners(device, memory_interval=interval)
    memories = {"a": (None, None), "b": (None, None)}
    for t, (first, second) in enumerate(zip(pictures(6), pictures(6, seed=2), strict=True)):
        for name, (image, flow) in zip(memories, (first, second), strict=True):
            old, new = memories[name]
            expected, old = plain.step(image, flow, old)
            found, new = graphed.step(image, flow, new)
            memories[name] = old, new
            torch.testing.assert_close(found, expected, atol=0, rtol=0)
            assert new.ages == old.ages and new.frame == t + 1
    assert expected.std() > 1e-3
    if record is not None:
        assert record.count == 1 + interval  # encoding; full memories, that are written to or not


@torch.inference_mode()
def test_memory_stays_a_value(device):
    """A step can be repeated from an older memory; rows can be taken and joined; another size begins anew."""
    plain, graphed, _ = runners(device)
    clip, memory = pictures(6), None
    for image, flow in clip[:4]:
        _, memory = graphed.step(image, flow, memory)
    first, _ = graphed.step(*clip[4], memory)
    graphed.step(*clip[5], memory)
    graphed.step(*pictures(1, (32, 64))[0], None)
    again, _ = graphed.step(*clip[4], memory)
    torch.testing.assert_close(again, first, atol=0, rtol=0)

    pair = memory.join([memory])
    features = graphed.encode(clip[4:, 0], clip[4:, 1])
    both, _ = graphed.advance(features, (64, 96), pair)
    expected, _ = plain.advance(plain.encode(clip[4:, 0], clip[4:, 1]), (64, 96), pair)
    torch.testing.assert_close(both, expected, atol=0, rtol=0)
    torch.testing.assert_close(both[:1], first, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="start a new memory"):
        graphed.step(*pictures(1, (32, 64))[0], memory)


@torch.inference_mode()
def test_recordings_of_many_sizes_are_not_all_kept():
    record = Repeats()
    recordings = Recordings(record)

    def double(size):
        x = torch.arange(float(size))
        found = recordings.call("double", lambda inputs: {"y": 2 * inputs["x"]}, {"x": x})
        torch.testing.assert_close(found["y"], 2 * x)

    for size in range(1, KINDS + 2):
        double(size)
    assert record.count == KINDS + 1
    double(KINDS)
    assert record.count == KINDS + 1
    double(1)  # the oldest had to go
    assert record.count == KINDS + 2
