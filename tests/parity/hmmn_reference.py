"""numpy-only generator of deterministic HMMN parity weights and inputs.

Written from scratch for the parity fixture; contains no third-party code.
    python tests/parity/hmmn_reference.py            # prints CRC32 checksums of everything it makes
"""

import json
import os
import zlib

import numpy as np

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hmmn")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
KEY_GAIN = 1.0  # convolutions that emit attention keys (logit spread about 1)
PRED_GAIN = 1.0  # last 2-channel convolution

# One dict per case.  rects: first-frame object boxes, object k = index + 1,
# given as (y0, y1, x0, x1), half-open; a later box overwrites an earlier one.
CASES = {
    "c1_single": {
        "salt": 5,
        "h": 96,
        "w": 96,
        "frames": 7,
        "mem_every": 5,
        "kernel": "flow",
        "rects": [(20, 70, 16, 60)],
    },
    "c3_nokernel": {
        "salt": 1,
        "h": 96,
        "w": 96,
        "frames": 4,
        "mem_every": 5,
        "kernel": "none",
        "rects": [(20, 70, 16, 60)],
    },
}
CELL = 10


def rng(text):
    return np.random.default_rng(zlib.crc32(text.encode("utf-8")))


def make_weight(key, shape):
    """Value of one state_dict entry from its name and shape alone."""
    shape = tuple(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in IMAGENET:
        return np.asarray(IMAGENET[leaf], np.float32).reshape(shape)
    z = rng(key).standard_normal(shape)
    if leaf == "running_var":
        v = 1.0 + 0.1 * np.abs(z)
    elif leaf == "running_mean" or leaf == "bias":
        v = 0.1 * z
    elif leaf == "weight" and len(shape) == 1:
        v = 1.0 + 0.1 * z
    elif leaf == "weight" and len(shape) == 4:
        gain = 1.0
        if key.endswith(".Key.weight"):
            gain = KEY_GAIN
        elif key.endswith(".pred2.weight"):
            gain = PRED_GAIN
        v = z * (gain / np.sqrt(shape[1] * shape[2] * shape[3]))
    else:
        raise KeyError(key)
    return v.astype(np.float32)


def load_keys(path=None):
    with open(path or os.path.join(HERE, "state_dict.json")) as f:
        return json.load(f)


def make_state_dict(entries=None):
    return {e["key"]: make_weight(e["key"], e["shape"]) for e in (entries or load_keys())}


def make_frame(case, t):
    """float32 (3, H, W) RGB in [0, 1]: a blocky texture that drifts, plus noise."""
    c = CASES[case]
    h, w = c["h"], c["w"]
    gh, gw = -(-h // CELL), -(-w // CELL)
    grid = rng(f"base:{case}:{c['salt']}").random((3, gh, gw))
    tex = np.repeat(np.repeat(grid, CELL, axis=1), CELL, axis=2)[:, :h, :w]
    tex = np.roll(tex, shift=(2 * t, 3 * t), axis=(1, 2))
    noise = rng(f"noise:{case}:{c['salt']}:{t}").random((3, h, w))
    return (0.8 * tex + 0.2 * noise).astype(np.float32)


def make_frames(case):
    return np.stack([make_frame(case, t) for t in range(CASES[case]["frames"])])


def make_first_mask(case):
    """float32 one-hot (1 + K, H, W); channel 0 is background."""
    c = CASES[case]
    label = np.zeros((c["h"], c["w"]), np.int64)
    for k, (y0, y1, x0, x1) in enumerate(c["rects"], start=1):
        label[y0:y1, x0:x1] = k
    return (label[None] == np.arange(len(c["rects"]) + 1)[:, None, None]).astype(np.float32)


def make_target(case, t):
    """int64 (H, W) training target for frame t: the first label map, drifted."""
    label = make_first_mask(case).argmax(0)
    return np.roll(label, shift=(2 * t, 3 * t), axis=(0, 1)).astype(np.int64)


# Module-level cases: no network weights, only arrays named by text.
UNIT = {
    "b": 2,
    "d": 8,
    "dv": 6,
    "h": 7,
    "w": 9,
    "t_list": [1, 2, 2, 3, 3, 4],
    "sigma": 3,
    "window": 7,
    "top_k": [12, 3],
    "fine": [2, 4],
    "d_fine": [8, 4],
    "dv_fine": [6, 5],
}


def unit_array(name, shape, scale=1.0):
    """float32 standard normal array for the unit cases, seeded by its name."""
    return (scale * rng("unit:" + name).standard_normal(shape)).astype(np.float32)


def unit_uniform(name, shape):
    return rng("unit:" + name).random(shape).astype(np.float32)


def crc(a):
    return f"{zlib.crc32(np.ascontiguousarray(a).tobytes()):08x}"


def sample(a, stride):
    """Fixture sample of an array: C-order flatten, every stride-th element."""
    return np.ascontiguousarray(a).reshape(-1)[::stride]


class Fixture:
    """Read-only view of fixture.npz + index.json."""

    def __init__(self, here=HERE):
        self.data = np.load(os.path.join(here, "fixture.npz"))
        with open(os.path.join(here, "index.json")) as f:
            self.index = json.load(f)

    def max_error(self, name, array):
        """Largest absolute difference between an array and its stored sample."""
        e = self.index[name]
        array = np.asarray(array)
        if list(array.shape) != e["shape"]:
            raise ValueError("{}: shape {}, expected {}".format(name, array.shape, e["shape"]))
        got = sample(array, e["stride"]).astype(np.float64)
        return float(np.abs(got - self.data[name].reshape(-1).astype(np.float64)).max())

    def sure_pixels(self, case):
        """bool (frames, H, W): pixels whose best label leads by more than 1e-3."""
        name = case + "/labels_sure_bits"
        shape = self.index[name]["shape"]
        n = int(np.prod(shape))
        return np.unpackbits(self.data[name])[:n].reshape(shape).astype(bool)


if __name__ == "__main__":
    sd = make_state_dict()
    total = 0
    for v in sd.values():
        total = zlib.crc32(np.ascontiguousarray(v).tobytes(), total)
    print("weights", len(sd), "entries", sum(v.size for v in sd.values()), "values", f"crc {total:08x}")
    for name in CASES:
        print(name, "frames", crc(make_frames(name)), "mask", crc(make_first_mask(name)))
