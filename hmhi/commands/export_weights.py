"""Write a training checkpoint's weights for release: half precision, safetensors, the config inside.

python tools/export_weights.py --checkpoint runs/embedded/ckpt/best.pt --output hmhi/weights/hmhi_embedded.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.config import config_from_dict, config_to_dict
from hmhi.errors import UserError
from hmhi.media.atomic import write_atomically
from hmhi.models.weights import load_state, to_safetensors
from hmhi.runtime.precision import DTYPES


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write a checkpoint's weights for release.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="such as best.pt of a run")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument("--precision", default="fp16", choices=sorted(DTYPES), help="of the tensors")
    parser.add_argument(
        "overrides", nargs="*", metavar="infer.key=value", help="how the weights are used by default"
    )
    args = parser.parse_intermixed_args(arguments)
    if args.output.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, got {args.output}")
    stray = [item for item in args.overrides if not item.startswith("infer.")]
    if stray:
        raise UserError(f"only infer.* can change after training, got {', '.join(stray)}")
    checkpoint = load_state(args.checkpoint)
    if args.overrides and "config" in checkpoint:
        config = config_from_dict(checkpoint["config"], args.overrides, source=str(args.checkpoint))
        checkpoint["config"] = config_to_dict(config)
    contents = to_safetensors(checkpoint, DTYPES[args.precision])
    with write_atomically(args.output) as stream:
        stream.write(contents)
    print(f"{args.output}: {len(contents) / 1e6:.1f} MB, {args.precision}")
    return 0
