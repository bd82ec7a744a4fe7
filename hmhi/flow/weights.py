"""Weights of flow networks, from local files only."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hmhi.errors import BadFileError


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Read a state dict into a network, completely.

    Args:
        network: Receives the weights.
        path: State-dict file.
        name: Of the network, for the message.

    Raises:
        BadFileError: The file does not hold weights of this network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no weights make torch raise nearly anything, in many words
        raise BadFileError(
            f"{path}: not weights of {name}: no file of tensors alone, or cut off ({type(error).__name__})"
        ) from None
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadFileError(f"{path}: not weights of {name} ({str(error).splitlines()[0]})") from None
