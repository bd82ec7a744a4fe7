"""The release's weights, inputs and outputs, as `make_inputs.py` and the stored arrays define them."""

import json
from pathlib import Path

import make_inputs
import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
MODELS = {
    "full": "mit_b1_full",
    "baseline": "mit_b1_baseline",
    "both": "mit_b1_both",
    "swin_full": "swin_tiny_full",
}


def release_state(model: str) -> dict[str, torch.Tensor]:
    """Every tensor of the release's state dict, its dead copies included."""
    keys = json.loads((FOLDER / f"state_keys_{model}.json").read_text())
    state = {}
    for key, entry in keys.items():
        if entry["dtype"] == "float32":
            state[key] = torch.from_numpy(make_inputs.weight(key, entry["shape"]))
        else:
            state[key] = torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
    return state


def save_release_checkpoint(model: str, path: Path) -> Path:
    """A file such as the release's training writes it."""
    network = {f"module.{key}": value for key, value in release_state(model).items()}
    torch.save({"epoch": 1, "network": network, "optimizer": {}}, path)
    return path


def clip(frames: int, size: int, phase: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and flows, (1, T, 3, H, W) each."""
    images, flows = make_inputs.clip(frames, size, size, phase)
    return torch.from_numpy(images)[None], torch.from_numpy(flows)[None]


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def flat_sample(x: torch.Tensor) -> np.ndarray:
    """The elements of a tensor that the stored arrays keep."""
    values = x.detach().contiguous().reshape(-1)
    step = max(1, -(-values.numel() // 2048))
    return values[:: step | 1 if step > 1 else 1].numpy()
