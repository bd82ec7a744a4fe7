"""What every segmenter needs: weights, a device, the size of the network's input, compiled parts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from hmhi.config import Config, Kind
from hmhi.errors import UserError
from hmhi.media.atomic import file_sha256
from hmhi.models.base import NAMES, VideoModel
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.prompted import PromptedNet
from hmhi.models.weights import HUB_CONFIG, HUB_WEIGHTS, load_state, model_from
from hmhi.runtime.precision import amp_precision, use_channels_last

log = logging.getLogger(__name__)

_WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
EMBEDDED = _WEIGHTS / "hmhi_embedded.safetensors"
"""The bundled weights: a small network that learned from synthetic video alone (checkpoint/hmhi_embedded.md)."""
EMBEDDED_OBJECTS = _WEIGHTS / "hmmn_embedded.safetensors"
"""The same for objects given by masks, a small HMMN (checkpoint/hmmn_embedded.md)."""
BUNDLED: Mapping[Kind, Path] = {"hmhi": EMBEDDED, "hmmn": EMBEDDED_OBJECTS}
"""The bundled weights of each kind that has some."""


@dataclass(frozen=True)
class Network:
    """A network as a checkpoint describes it, ready to run."""

    model: HMHINet | PromptedNet
    """In eval mode, on its device."""
    config: Config
    """The checkpoint's, with the changes that were asked for."""
    trained_flow: dict[str, dict[str, str]]
    """Data set to the record of the flow that it was trained on; empty where the checkpoint does not say."""


def find_device(name: str | torch.device) -> torch.device:
    """A torch device by name; ``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: No such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cpu":
        return device
    accelerator = torch.accelerator.current_accelerator()
    known = accelerator is not None and accelerator.type == device.type
    count = torch.accelerator.device_count() if known else 0
    if not 0 <= (device.index or 0) < count:  # torch lets numbers beyond 127 wrap around
        raise UserError(
            f"device {name} is not there: torch sees {count} {device.type} devices; use cpu or auto"
        )
    return device


def load_network(
    checkpoint: str | Path, device: torch.device, overrides: Sequence[str], *, amp: bool = False
) -> Network:
    """Load a checkpoint for inference.

    Args:
        checkpoint: A file that `hmhi.load_model` reads.
        device: Where the network will run.
        overrides: ``key.sub=value`` changes of the checkpoint's config.
        amp: Run in bf16 where the device has it, else in fp16 on GPUs; on other CPUs change nothing.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: A setting is not valid.
    """
    path = Path(checkpoint)
    precision = [f"infer.precision={amp_precision(device)}"] if amp else []
    contents = load_state(path)
    model, config = model_from(contents, path, device, [*overrides, *precision])
    use_channels_last(model)
    return Network(model, config, contents.get("flow", {}))


def checkpoint_sha256(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint; of a folder in the hub's layout, that of the sums of its two files."""
    if not checkpoint.is_dir():
        return file_sha256(checkpoint)
    sums = [file_sha256(checkpoint / name) for name in (HUB_WEIGHTS, HUB_CONFIG)]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def describe(model: VideoModel) -> str:
    """A network and what it does, in a few words for messages."""
    does = "follows objects given by masks" if model.traits.prompted else "finds the salient object by itself"
    return f"{NAMES[model.traits.kind]}, which {does}"


def compile_or_warn(parts: Sequence[nn.Module], trial: Callable[[], object]) -> None:
    """Compile modules in place; where torch cannot, say so and leave them as they were.

    Args:
        parts: Modules whose ``forward`` is compiled.
        trial: Calls them on input of the usual size. Errors that are not the compiler's come through.
    """
    for part in parts:
        part.forward = torch.compile(part.forward)
    try:
        trial()
    except TorchDynamoException as error:
        for part in parts:
            del part.forward  # the class's own shows again
        reason = " ".join(line for line in str(error).splitlines()[:2] if line)
        log.warning("torch.compile failed, going on without it (%s: %s)", type(error).__name__, reason)
