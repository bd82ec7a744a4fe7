"""A network's frames as CUDA graphs, while its memory stays a value.

A frame of HMHI-Net is hundreds of kernels, most of which a fast GPU finishes sooner than a CPU can start the next.
A graph starts all of them at once; it reads and writes the same addresses each time. So every call copies its
tensors, the slots of the memory among them, into the graph's own, and takes copies of what comes out. That moves some
MiB within the device, and buys that videos never meet, that memories can be joined, kept or dropped, and that the
bank's own policy decides what is evicted.

B videos, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from hmhi.config import Precision
from hmhi.memory.bank import Memory, Slot
from hmhi.models.hmhi_net import HMHINet
from hmhi.runtime.frames import FrameRunner

KINDS = 16
"""Recordings that are kept; each size of input and each batch has one for encoding and one for what follows."""
WARM_UP = 2
"""Calls before a recording, in which libraries load, choose their kernels and take their workspaces."""

_ONE_CAPTURE = Lock()  # CUDA allows no second one in a process

Tensors = Mapping[Any, Tensor]
Function = Callable[[Tensors], Tensors]
Record = Callable[[Function, Tensors], tuple[Tensors, Callable[[], object]]]
"""From a function and its inputs, which stay where they are: its outputs, which do so too, and what fills them anew
from the inputs as they then are."""


class CUDAGraphs:
    """Records functions as CUDA graphs that share their memory, for they never run at the same time.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, inputs: Tensors) -> tuple[Tensors, Callable[[], object]]:
        """See `Record`; the function must not wait for the device, nor read from it."""
        with _ONE_CAPTURE, torch.cuda.device(self._device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function(inputs)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Flow networks go on allocating in their threads meanwhile; "global" would call that an error.
            with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                outputs = function(inputs)
        return outputs, graph.replay


@dataclass(frozen=True)
class _Recording:
    inputs: Tensors
    outputs: Tensors
    repeat: Callable[[], object]


class Recordings:
    """Calls functions through recordings, one for each kind of call, made when a kind comes for the first time.

    Threads take turns. Their CUDA work must be in one stream, as it is unless they choose others.

    Args:
        record: How to record.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._kinds: dict[Hashable, _Recording] = {}
        self._lock = Lock()

    def call(self, kind: Hashable, function: Function, inputs: Tensors) -> dict[Any, Tensor]:
        """What `function(inputs)` returns, in tensors of the caller's own.

        Args:
            kind: All that the function's work depends on, beside the names, shapes and types of its inputs.
            function: Called where the kind is new.
            inputs: By name.
        """
        known = kind, *((name, x.shape, x.dtype) for name, x in inputs.items())
        with self._lock:
            recording = self._kinds.pop(known, None)
            if recording is None:
                own = {name: x.clone() for name, x in inputs.items()}
                recording = _Recording(own, *self._record(function, own))
            self._kinds[known] = recording  # as the newest
            if len(self._kinds) > KINDS:
                del self._kinds[next(iter(self._kinds))]
            for name, x in inputs.items():
                recording.inputs[name].copy_(x)
            recording.repeat()
            return {name: x.clone() for name, x in recording.outputs.items()}


class GraphRunner(FrameRunner):
    """`FrameRunner` by recordings: the same calls, the same values, the same numbers.

    Encoding is recorded, and a frame whose memory is full; the few frames that fill the memory run as ever.

    Args:
        model: See `FrameRunner`.
        device: See `FrameRunner`.
        precision: See `FrameRunner`.
        record: How to record; None makes CUDA graphs.
    """

    def __init__(
        self,
        model: HMHINet,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        record: Record | None = None,
    ) -> None:
        super().__init__(model, device, precision)
        self._recordings = Recordings(record or CUDAGraphs(device))

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor], flows: Sequence[Tensor]) -> dict[int, Tensor]:
        """See `FrameRunner.encode`."""

        def function(inputs: Tensors) -> Tensors:
            return self.encode_pixels(inputs["pixels"])

        return self._recordings.call("encode", function, {"pixels": self.load(images, flows)})

    @torch.inference_mode()
    def advance(
        self, features: dict[int, Tensor], size: tuple[int, int], memory: Memory | None
    ) -> tuple[Tensor, Memory]:
        """See `FrameRunner.advance`."""
        if memory is None or not is_full(memory):
            return super().advance(features, size, memory)
        advance, writes = super().advance, self.model.policy.writes(memory.frame)

        def function(inputs: Tensors) -> Tensors:
            own = {stage: inputs["feature", stage] for stage in features}
            logits, after = advance(own, size, with_tensors(memory, inputs))
            return {"logits": logits, **newest(after, memory.frame)}

        named = {("feature", stage): x for stage, x in features.items()}
        outputs = self._recordings.call((size, writes), function, {**named, **to_tensors(memory)})
        return outputs.pop("logits"), after_frame(memory, outputs)


def is_full(memory: Memory) -> bool:
    """Whether every bank drops a slot for each one that it takes."""
    return all(len(bank) >= bank.policy.frames > 0 for bank in memory.banks.values())


def to_tensors(memory: Memory) -> dict[Any, Tensor]:
    """(Stage, number of the slot from the oldest on, name) to tensor."""
    return {
        (stage, number, name): tensor
        for stage, bank in memory.banks.items()
        for number, slot in enumerate(bank.slots)
        for name, tensor in slot.tensors.items()
    }


def with_tensors(memory: Memory, tensors: Tensors) -> Memory:
    """The memory with other tensors, named as by `to_tensors`, in its slots."""
    banks = {}
    for stage, bank in memory.banks.items():
        slots = [
            replace(slot, tensors={name: tensors[stage, number, name] for name in slot.tensors})
            for number, slot in enumerate(bank.slots)
        ]
        banks[stage] = replace(bank, slots=tuple(slots))
    return replace(memory, banks=banks)


def newest(memory: Memory, frame: int) -> dict[Any, Tensor]:
    """(Stage, name) to what the banks hold of a frame."""
    return {
        (stage, name): tensor
        for stage, bank in memory.banks.items()
        for slot in bank.slots
        if slot.frame == frame
        for name, tensor in slot.tensors.items()
    }


def after_frame(memory: Memory, tensors: Tensors) -> Memory:
    """The memory after its next frame, of which the banks take what `newest` names, or nothing."""
    banks = dict(memory.banks)
    for stage, bank in memory.banks.items():
        slot = {name: tensors[stage, name] for name in bank.slots[-1].tensors if (stage, name) in tensors}
        if slot:
            banks[stage] = bank.append(Slot(memory.frame, bank.slots[-1].grid, slot))
    return Memory(memory.frame + 1, banks)
