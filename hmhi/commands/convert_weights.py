"""Convert weights: a checkpoint to the authors' form or to ours, a published backbone to our names.

python tools/convert_weights.py runs/mine/ckpt/best.pt mine.pth --to release
python tools/convert_weights.py checkpoint/hmhi/davis.pth davis.safetensors --to hmhi
python tools/convert_weights.py segformer_mit-b1.pth mit_b1.safetensors --backbone mit_b1
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from hmhi.commands.errors import report_errors
from hmhi.config import ModelConfig, STMAConfig, config_to_dict
from hmhi.errors import UserError
from hmhi.media.atomic import write_atomically
from hmhi.models.build import build_backbone, build_token_backbone
from hmhi.models.publish import to_safetensors
from hmhi.models.release import hmhi_to_release
from hmhi.models.weights import FORMAT, load_backbone, load_state, model_from

SUFFIXES = {"release": ".pth", "hmhi": ".safetensors", "backbone": ".safetensors"}


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Convert weights from one form to another.")
    parser.add_argument("input", type=Path, help="checkpoint, or weights of a backbone")
    parser.add_argument("output", type=Path, help="file to write: .pth for the release, else .safetensors")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--to", choices=("release", "hmhi"), help="of a whole network")
    form.add_argument(
        "--backbone", metavar="NAME", help="of a backbone, such as mit_b1, timm/resnet50, convvit_b"
    )
    args = parser.parse_args(arguments)
    suffix = SUFFIXES[args.to or "backbone"]
    if args.output.suffix != suffix:
        raise UserError(f"the output must end in {suffix}, got {args.output}")
    if args.backbone:
        contents, count = convert_backbone(args.input, args.backbone)
    else:
        contents, count = convert_model(args.input, args.to)
    with write_atomically(args.output) as stream:
        stream.write(contents)
    print(f"{args.output}: all {count} tensors, {len(contents) / 1e6:.1f} MB")
    return 0


def convert_backbone(path: Path, name: str) -> tuple[bytes, int]:
    backbone = (
        build_token_backbone(STMAConfig(backbone=name))  # type: ignore[arg-type]
        if name in ("convvit_b", "vit_b")
        else build_backbone(ModelConfig(backbone=name, flow_adapters=False))
    )
    load_backbone(backbone, path)
    state = {key: value.contiguous() for key, value in backbone.state_dict().items()}
    return save(state, {"backbone": name}), len(state)


def convert_model(path: Path, form: str) -> tuple[bytes, int]:
    loaded = load_state(path)
    model, config = model_from(loaded, path)
    state = model.state_dict()
    if form == "hmhi":
        described = {"format": FORMAT, "config": config_to_dict(config)}
        return to_safetensors({**described, **loaded, "model": state}, torch.float32), len(state)
    network = {f"module.{key}": value for key, value in hmhi_to_release(state, config.model).items()}
    buffer = io.BytesIO()
    torch.save({"epoch": 0, "network": network, "optimizer": {}}, buffer)
    return buffer.getvalue(), len(state)
