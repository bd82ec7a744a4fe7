"""The only place that turns a config into constructors' arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from hmhi.config import ConfigError, HMMNConfig, ModelConfig, STMAConfig
from hmhi.memory.bank import BankPolicy
from hmhi.memory.encoder import MemoryEncoder
from hmhi.memory.readout import MemoryReadout
from hmhi.memory.tracking import Kernel
from hmhi.models.backbones.base import Backbone, TokenBackbone
from hmhi.models.backbones.convmae import ConvViT
from hmhi.models.backbones.mit import DEPTHS, MixTransformer
from hmhi.models.backbones.vit import ViT
from hmhi.models.decoder import Decoder
from hmhi.models.dual_encoder import DualEncoder
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.hmmn import HMMN
from hmhi.models.interaction import PLAM, SGIM
from hmhi.models.prompted import PromptedNet
from hmhi.models.stma import STMA

TIMM_NAMES = {
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "lite0": "tf_efficientnet_lite0",
    "lite1": "tf_efficientnet_lite1",
    "lite2": "tf_efficientnet_lite2",
}
SHALLOW_STAGES = (1, 2)  # read with rotary positions and top-k; the others with sine positions and all keys


def build_model(config: ModelConfig) -> HMHINet | PromptedNet:
    """Build the network of a kind, with random weights.

    Raises:
        ConfigError: The backbone's name is unknown, or the backbone does not fit.
    """
    if config.kind == "hmhi":
        return _build_hmhi(config)
    if config.kind == "hmmn":
        return _build_hmmn(config.hmmn)
    return _build_stma(config.stma)


def _build_hmhi(config: ModelConfig) -> HMHINet:
    backbone = build_backbone(config)
    channels = dict(enumerate(backbone.channels, start=1))
    decoder_channels = config.decoder_channels or (192 if "swin" in config.backbone else 256)

    readouts: dict[int, MemoryReadout] = {}
    for stage in config.memory_stages:
        shallow = stage in SHALLOW_STAGES
        readouts[stage] = MemoryReadout(
            channels[stage],
            ffn_channels=config.ffn_channels,
            dropout=config.dropout,
            self_position=not shallow,
            key_position="rotary" if shallow else "sine",
            topk=config.memory_topk if shallow else 0,
        )

    def interaction(kind: str, target: int, source: int) -> nn.Module | None:
        if kind == "none":
            return None
        if kind == "plam":
            return PLAM(channels[target], channels[source], stride=2.0 ** (target - source))
        return SGIM(
            channels[target], channels[source], ffn_channels=config.ffn_channels, dropout=config.dropout
        )

    lowest, highest = (config.memory_stages[0], config.memory_stages[-1]) if config.memory_stages else (0, 0)
    return HMHINet(
        encoder=DualEncoder(backbone, config.inputs),
        readouts=readouts,
        memory_encoders={stage: MemoryEncoder(channels[stage], stage) for stage in config.memory_stages},
        high_to_shallow=interaction(config.high_to_shallow, lowest, highest),
        shallow_to_high=interaction(config.shallow_to_high, highest, lowest),
        decoder=Decoder(list(channels.values()), decoder_channels),
        policy=BankPolicy(frames=config.memory_frames, interval=config.memory_interval),
    )


def _build_hmmn(config: HMMNConfig) -> HMMN:
    from hmhi.models.backbones.trunks import build_trunk  # torchvision and timm take seconds to import

    coarse = BankPolicy(config.memory_frames, config.memory_interval, pin_first=True, previous=True)
    kernel = Kernel(
        mode=config.kernel,
        window=config.window,
        sigma=config.sigma,
        factor=config.sigma_factor,
        rule=config.sigma_rule,
        track_twice=config.track_twice,
    )
    return HMMN(
        memory_trunk=build_trunk(config.trunk),
        query_trunk=build_trunk(config.trunk),
        key_channels=config.key_channels,
        value_channels=config.value_channels,
        decoder_channels=config.decoder_channels,
        kernel=kernel,
        coarse_policy=coarse,
        fine_policy=coarse if config.fine_every else replace(coarse, persist=False),
        topk=config.topk,
        fine_levels=config.fine_levels,
        detach_masks=config.detach_masks,
    )


def _build_stma(config: STMAConfig) -> STMA:
    from hmhi.models.backbones.trunks import build_trunk  # torchvision and timm take seconds to import

    return STMA(
        backbone=build_token_backbone(config),
        value_trunk=build_trunk("resnet18"),
        stages=config.channels[:2],
        key_channels=config.key_channels,
        value_channels=config.value_channels,
        decoder_channels=config.decoder_channels,
        policy=BankPolicy(config.memory_frames, config.memory_interval, evict="least_used"),
        references=config.references,
        topk=config.topk,
        attention=config.attention,
        object_tokens=config.object_tokens,
        detach_masks=config.detach_masks,
    )


def build_token_backbone(config: STMAConfig) -> TokenBackbone:
    """The encoder that `config.backbone` names."""
    common: dict[str, Any] = {"heads": config.heads, "drop_path": config.drop_path}
    if config.backbone == "vit_b":
        return ViT(channels=config.channels[2], depth=(config.depths or [12])[0], **common)
    return ConvViT(channels=config.channels, depths=config.depths or (2, 2, 11), **common)


def build_backbone(config: ModelConfig) -> Backbone:
    """The encoder that `config.backbone` names.

    Raises:
        ConfigError: As for `build_model`.
    """
    name = config.backbone
    if name in DEPTHS:
        # Without flow there is nothing for an adapter to read, and DDP refuses parameters without gradient.
        adapters = config.flow_adapters and config.inputs != "image"
        return MixTransformer(name, flow_adapters=adapters, drop_path=config.drop_path)
    if name in TIMM_NAMES or name.startswith("timm/"):
        from hmhi.models.backbones.timm_backbone import TimmBackbone  # timm takes seconds to import

        try:
            return TimmBackbone(TIMM_NAMES.get(name, name.removeprefix("timm/")), drop_path=config.drop_path)
        except ValueError as error:
            raise ConfigError(f"model.backbone: {error}") from None
    known = ", ".join([*DEPTHS, *TIMM_NAMES])
    raise ConfigError(f"model.backbone: unknown {name!r}; choose {known}, or timm/<model name>")
