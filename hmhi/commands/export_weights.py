"""Write a training checkpoint's weights for release: half precision, safetensors, the config inside.

python tools/export_weights.py --checkpoint runs/embedded/ckpt/best.pt --output hmhi/weights/hmhi_embedded.safetensors
python tools/export_weights.py --checkpoint runs/mine/ckpt/best.pt --to hub --output mine --license apache-2.0
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.config import config_from_dict, config_to_dict
from hmhi.errors import UserError
from hmhi.media.atomic import write_atomically
from hmhi.models.publish import to_hub, to_safetensors
from hmhi.models.weights import load_state
from hmhi.runtime.precision import DTYPES


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write a checkpoint's weights for release.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="such as best.pt of a run")
    parser.add_argument(
        "--output", type=Path, required=True, help=".safetensors file to write, or with --to hub a folder"
    )
    parser.add_argument(
        "--to",
        default="file",
        choices=["file", "hub"],
        help="hub: a folder with weights, config and model card, for hmhi.from_pretrained; default: file",
    )
    parser.add_argument("--license", help="with --to hub: short name for the card, such as apache-2.0")
    parser.add_argument("--precision", default="fp16", choices=sorted(DTYPES), help="of the tensors")
    parser.add_argument(
        "overrides", nargs="*", metavar="infer.key=value", help="how the weights are used by default"
    )
    args = parser.parse_intermixed_args(arguments)
    if args.to == "file" and args.output.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, got {args.output}")
    if args.license and not (args.to == "hub" and re.fullmatch(r"[a-z0-9.-]+", args.license)):
        raise UserError("--license is a short name such as apache-2.0, and goes with --to hub")
    stray = [item for item in args.overrides if not item.startswith("infer.")]
    if stray:
        raise UserError(f"only infer.* can change after training, got {', '.join(stray)}")
    checkpoint = load_state(args.checkpoint)
    if args.overrides and "config" in checkpoint:
        config = config_from_dict(checkpoint["config"], args.overrides, source=str(args.checkpoint))
        checkpoint["config"] = config_to_dict(config)
    dtype = DTYPES[args.precision]
    if args.to == "hub":
        files = {
            args.output / name: content for name, content in to_hub(checkpoint, dtype, args.license).items()
        }
    else:
        files = {args.output: to_safetensors(checkpoint, dtype)}
    for path, content in files.items():
        with write_atomically(path) as stream:
            stream.write(content)
    print(f"{args.output}: {sum(map(len, files.values())) / 1e6:.1f} MB, {args.precision}")
    return 0
