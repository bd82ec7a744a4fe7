"""Segment a folder of frames with an exported network: ONNX Runtime, NumPy, OpenCV and Pillow, no torch.

python tools/export_onnx.py --output hmhi.onnx
python examples/onnx_stream.py hmhi.onnx frames masks
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from PIL import Image

from hmhi.flow.compensate import compensate_picture
from hmhi.flow.directions import flow_picture, still_picture
from hmhi.flow.estimate import DISEstimator
from hmhi.media.order import in_order

model, frames, masks = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["hmhi"])
height, width = about["image_size"]
estimate = DISEstimator()
kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
shapes = {x.name: [1 if size == "batch" else size for size in x.shape] for x in session.get_inputs()}
state = {x.name: np.zeros(shapes[x.name], kinds[x.type]) for x in session.get_inputs()}  # the first frame's
names = [x.name for x in session.get_outputs()]


def resize(rgb):
    """To the size of the network's input."""
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


def normalise(rgb):
    """(H, W, 3) uint8 to (1, 3, H, W) float32, ImageNet's mean and deviation taken out."""
    x = (rgb / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return x.transpose(2, 0, 1)[None].astype(np.float32)


paths = in_order(Path(frames).iterdir())
images = [np.array(Image.open(path).convert("RGB")) for path in paths]
small = [estimate.reduce(image) for image in images]  # the size that DIS works on
flow = still_picture(images[0])
Path(masks).mkdir(parents=True, exist_ok=True)
for i, (path, image) in enumerate(zip(paths, images, strict=True)):
    forward = estimate(small[i], small[i + 1]) if i + 1 < len(images) else None
    backward = estimate(small[i], small[i - 1]) if i > 0 and about["join"] else None
    picture = flow_picture(forward, backward, about["join"])
    flow = flow if picture is None else picture  # the last frame may take the flow before it
    moving = compensate_picture(resize(flow), about["compensation"])
    inputs = {**state, "image": normalise(resize(image)), "flow": normalise(moving)}
    out = dict(zip(names, session.run(names, inputs), strict=True))
    state |= {name.removeprefix("next_"): value for name, value in out.items() if name != "logits"}
    logits = cv2.resize(out["logits"][0, 0], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mask = 255 * (1 / (1 + np.exp(-logits)) > about["threshold"]).astype(np.uint8)
    Image.fromarray(mask).save(Path(masks) / f"{path.stem}.png")
