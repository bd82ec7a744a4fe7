"""Write one step of a network as an ONNX file, for machines without torch; needs ``pip install 'hmhi[export]'``.

python tools/export_onnx.py --output hmhi.onnx
python tools/export_onnx.py --checkpoint runs/mine/ckpt/best.pt --output mine.onnx --image-size 384
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.commands.segment import image_size
from hmhi.errors import UserError
from hmhi.inference.base import EMBEDDED
from hmhi.media.atomic import write_atomically
from hmhi.models.export import export_onnx
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.weights import load_state, model_from

NEEDED = ("onnx", "onnxscript")


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write one step of a network as an ONNX file.")
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED, help="default: the bundled weights")
    parser.add_argument("--output", type=Path, required=True, help=".onnx file to write")
    parser.add_argument(
        "--image-size", metavar="N|HxW", type=image_size, help="of the frames; default: the checkpoint's"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as model.memory_frames=3")
    args = parser.parse_intermixed_args(arguments)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"not installed: {', '.join(missing)}; pip install 'hmhi[export]'")
    if args.output.suffix != ".onnx":
        raise UserError(f"--output must end in .onnx, got {args.output}")

    model, config = model_from(load_state(args.checkpoint), args.checkpoint, overrides=args.overrides)
    if not isinstance(model, HMHINet):
        raise UserError(f"{args.checkpoint} holds a prompted model, and only HMHI-Net exports its step")
    height, width = args.image_size or config.infer.image_size or config.data.image_size
    about = {
        "image_size": [height, width],
        "flow": config.infer.flow,
        "join": config.data.join,
        "compensation": config.data.compensation,
        "threshold": config.infer.threshold,
    }
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own insides
        path = Path(folder) / "step.onnx"
        step = export_onnx(model, (height, width), path, about={"hmhi": json.dumps(about)})
        with write_atomically(args.output) as stream:
            stream.write(path.read_bytes())
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {size:.1f} MB, {height} x {width}, any batch; in {', '.join(step.input_names)}")
    return 0
