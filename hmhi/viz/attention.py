"""Pictures of where the network looks: what one pixel reads from the memory, and the maps of PLAM and SGIM.

`hmhi.viz.probe.MemoryProbe` listens to a model with hooks; `PixelView` follows one video through it and draws.

Example:
    >>> with MemoryProbe(segmenter.model) as probe:
    ...     view = PixelView(probe, pixel=(420, 230))
    ...     for result in segmenter.stream("bear.mp4"):
    ...         view.follow(result.index, result.frame, segmenter.input_size(*result.frame.shape[:2]))
    >>> pictures = view.draw()  # {"memory_stage2": (H, W, 3) uint8, "plam_stage4": ..., ...}

B batch, N query cells, M key cells, C channels, T frames held by a bank, h w cells of a stage.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hmhi.errors import UserError
from hmhi.models.hmhi_net import PAD_TO
from hmhi.viz.probe import MemoryProbe, ProbedStep, cbam_gates, cell_weights

log = logging.getLogger(__name__)

PANEL = (640, 480)  # width and height of the box that each panel fills
GAP, TEXT = 12, 20  # pixels
HEAT = cv2.cvtColor(  # (256, 3) RGB, black over red to pale yellow
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
).reshape(256, 3)


@dataclass(frozen=True)
class _Moment:
    """The frame that will be drawn, and the frames that the banks held when it read them, oldest first."""

    index: int
    image: np.ndarray
    input_size: tuple[int, int]
    step: ProbedStep
    held: tuple[tuple[int, np.ndarray], ...]


class PixelView:
    """Follows one video and draws, for one of its frames, where one pixel looks.

    Holds one frame and as many small pictures as the banks hold frames.

    Args:
        probe: Entered, and listening to the model that segments the video.
        pixel: x and y in the frames of the source, from the upper left.
        frame: `index` of the frame to draw; None takes the last one that read anything.
    """

    def __init__(self, probe: MemoryProbe, pixel: tuple[int, int], frame: int | None = None) -> None:
        self.probe = probe
        self.pixel = pixel
        self.frame = frame
        self._held: deque[tuple[int, np.ndarray]] = deque(maxlen=probe.model.policy.frames)
        self._moment: _Moment | None = None

    def follow(self, index: int, image: np.ndarray, input_size: Sequence[int]) -> None:
        """Take note of a frame after the model's step for it.

        Args:
            index: Number of the frame in the source, used in labels.
            image: (H, W, 3) uint8 RGB, the frame of the source.
            input_size: Height and width at which the model was given the frame.

        Raises:
            UserError: The pixel lies outside the frame; names both.
            RuntimeError: As for `MemoryProbe.take`.
        """
        height, width = image.shape[:2]
        x, y = self.pixel
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"pixel ({x}, {y}) lies outside frame {index} of {width}x{height} pixels; "
                f"x runs from 0 to {width - 1} and y from 0 to {height - 1}"
            )
        step = self.probe.take()
        if (step.reads or step.plam or step.sgim) and self.frame in (None, index):
            size = (input_size[0], input_size[1])
            self._moment = _Moment(index, image, size, step, tuple(self._held))
        if step.written:
            self._held.append((index, _shrink(image)))

    @property
    def drawn_frame(self) -> int | None:
        """`index` of the frame that `draw` shows; None where no frame read anything."""
        return None if self._moment is None else self._moment.index

    def draw(self) -> dict[str, np.ndarray]:
        """The pictures that the model has something to show for.

        Returns:
            Name to (H, W, 3) uint8: ``memory_stage<s>`` for each bank, ``sgim_stage<s>`` and ``plam_stage<s>``
            by the stage that they refine; a log message names what the model lacks.

        Raises:
            UserError: The model has no memory, or the frame was not seen or read nothing; says which.
        """
        moment = self._moment
        if not self.probe.model.memory_stages:
            raise UserError("no attention to draw: the model has no memory bank")
        if moment is None:
            frame = "no frame" if self.frame is None else f"frame {self.frame} is not there, or has not"
            raise UserError(f"no attention to draw: {frame} read the memory; the first of a video reads none")
        for kind, modules in (("PLAM", self.probe.plams), ("SGIM", self.probe.sgims)):
            if not modules:
                log.info("no picture of %s: this model has none", kind)
        pictures = {f"memory_stage{stage}": self._draw_memory(moment, stage) for stage in moment.step.reads}
        for stages in self.probe.sgims:
            pictures[f"sgim_stage{stages[0]}"] = self._draw_sgim(moment, *stages)
        for stages in self.probe.plams:
            pictures[f"plam_stage{stages[0]}"] = self._draw_plam(moment, *stages)
        return pictures

    def _draw_memory(self, moment: _Moment, stage: int) -> np.ndarray:
        """The frame with the pixel marked, then the held frames under the weights of their cells."""
        q, keys, rotary = moment.step.reads[stage]
        attention = self.probe.readout_attention(stage)
        grid = _grid(moment.input_size, stage)
        weights = cell_weights(attention, q, keys, self._cell(moment, stage), rotary)[0]
        maps = weights.cpu().numpy().reshape(-1, *grid)  # (T, h, w)
        sparse = 0 < attention.topk < keys.shape[1]
        held = moment.held[-len(maps) :]  # a bank that was emptied at a scene cut holds fewer
        panels = [(self._marked(moment), f"frame {moment.index}, pixel {self.pixel}")]
        for (index, picture), heat in zip(held, maps, strict=True):
            heat_map = _spread(heat, stage, moment.input_size, picture, smooth=not sparse)
            panels.append((_heat(picture, heat_map / maps.max()), f"frame {index}: {heat.sum():.1%}"))
        reads = (
            f"its {attention.topk} best of {keys.shape[1]} cells" if sparse else f"all {keys.shape[1]} cells"
        )
        title = f"Memory of stage {stage}: the pixel reads {reads}; % is each frame's share of the weight"
        return _page(title, panels, ("0", f"{maps.max():.2g} (even: {1 / keys.shape[1]:.2g})"))

    def _draw_sgim(self, moment: _Moment, stage: int, source: int) -> np.ndarray:
        """The frame with the pixel marked, and again under the weights of the source level's cells."""
        q, keys, rotary = moment.step.sgim[stage]
        module = self.probe.sgims[stage, source].integrate.memory_attention
        weights = cell_weights(module, q, keys, self._cell(moment, stage), rotary)[0]
        heat = weights.cpu().numpy().reshape(_grid(moment.input_size, source))
        marked, small = self._marked(moment), _shrink(moment.image)
        heat_map = _spread(heat, source, moment.input_size, small, smooth=True)
        panels = [
            (marked, f"frame {moment.index}, pixel {self.pixel}"),
            (_heat(small, heat_map / heat.max()), f"stage {source}, all {heat.size} cells"),
        ]
        title = f"SGIM: where the pixel of stage {stage} looks in stage {source}"
        return _page(title, panels, ("0", f"{heat.max():.2g} (even: {1 / heat.size:.2g})"))

    def _draw_plam(self, moment: _Moment, stage: int, source: int) -> np.ndarray:
        """The spatial gate of PLAM's CBAM, and the mean size of what it lets through of each level."""
        joined = moment.step.plam[stage]
        gates = cbam_gates(self.probe.plams[stage, source].attention, joined[:1])
        convolved, channel, spatial = (x[0].float().cpu() for x in gates)
        response = (convolved * channel * spatial).abs()
        small = _shrink(moment.image)
        panels = [(small, f"frame {moment.index}")]
        maps = [("spatial gate", spatial)]
        for name, half, gate in zip((source, stage), response.chunk(2), channel.chunk(2), strict=True):
            maps.append((f"response in stage {name}'s half (mean channel gate {gate.mean():.2f})", half))
        for label, values in maps:
            heat = values.mean(0).numpy()  # (h, w)
            low, high = heat.min(), heat.max()
            heat_map = _spread(heat, stage, moment.input_size, small, smooth=True)
            strength = (heat_map - low) / max(high - low, 1e-12)
            panels.append((_heat(small, strength), f"{label}: {low:.2f} to {high:.2f}"))
        return _page(f"PLAM: stage {stage} refined from stage {source}", panels, ("low", "high"))

    def _cell(self, moment: _Moment, stage: int) -> int:
        """The cell of a stage, row-major, that holds the pixel."""
        height, width = moment.image.shape[:2]
        (rows, columns), (x, y) = moment.input_size, self.pixel
        row = int((y + 0.5) / height * rows) // _stride(stage)
        column = int((x + 0.5) / width * columns) // _stride(stage)
        return row * _grid(moment.input_size, stage)[1] + column

    def _marked(self, moment: _Moment) -> np.ndarray:
        """The small frame with a ring around the pixel."""
        picture = _shrink(moment.image)
        scale = picture.shape[1] / moment.image.shape[1], picture.shape[0] / moment.image.shape[0]
        centre = int((self.pixel[0] + 0.5) * scale[0]), int((self.pixel[1] + 0.5) * scale[1])
        for radius, thickness, colour in ((9, 5, (0, 0, 0)), (9, 2, (255, 255, 255)), (2, -1, (230, 60, 40))):
            cv2.circle(picture, centre, radius, colour, thickness, cv2.LINE_AA)
        return picture


def _stride(stage: int) -> int:
    return 2 ** (stage + 1)


def _grid(input_size: tuple[int, int], stage: int) -> tuple[int, int]:
    """Rows and columns of a stage; the model fills an input up to whole cells of its coarsest stage."""
    height, width = (-(-side // PAD_TO) * PAD_TO // _stride(stage) for side in input_size)
    return height, width


def _shrink(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) uint8 copy that fits the box of a panel."""
    height, width = image.shape[:2]
    scale = min(PANEL[0] / width, PANEL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _spread(
    cells: np.ndarray, stage: int, input_size: tuple[int, int], picture: np.ndarray, *, smooth: bool
) -> np.ndarray:
    """Bring cells (h, w) over the (H, W, 3) picture that they describe, without the input's padding."""
    stride, (height, width) = _stride(stage), input_size
    padded = (cells.shape[1] * stride, cells.shape[0] * stride)
    way = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    full = cv2.resize(cells, padded, interpolation=way)[:height, :width]
    return cv2.resize(full, (picture.shape[1], picture.shape[0]), interpolation=way)


def _heat(picture: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colour a darkened, grey (H, W, 3) uint8 picture by a (H, W) strength in [0, 1]."""
    strength = strength.clip(0, 1)[..., None]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    colour = HEAT[(strength[..., 0] * 255).astype(np.uint8)]
    cover = 0.8 * strength**0.5  # a weak cell can be seen, and the picture under a strong one
    return (0.6 * grey * (1 - cover) + colour * cover).astype(np.uint8)


def _page(title: str, panels: Sequence[tuple[np.ndarray, str]], scale: tuple[str, str]) -> np.ndarray:
    """Lay panels of one size out on white, a line of text below each; title on top, scale at the bottom.

    Args:
        title: One line.
        panels: Pictures, (H, W, 3) uint8, and their labels.
        scale: What the darkest and the lightest colour stand for.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = panels[0][0].shape[:2]
    rows = {n: -(-len(panels) // n) for n in range(2, len(panels) + 1)}  # by the number of columns
    # wide, like a slide
    columns = next((n for n in rows if n * width >= 4 / 3 * rows[n] * height), len(panels))
    line = TEXT + GAP
    size = GAP + columns * (width + GAP), 2 * (GAP + line) + rows[columns] * (height + line)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)

    def write(x: float, y: float, text: str, room: float) -> None:
        length = draw.textlength(text, font=ImageFont.load_default(TEXT))
        draw.text((x, y), text, "black", ImageFont.load_default(TEXT * min(1.0, room / length)))

    write(GAP, GAP, title, page.width - 2 * GAP)
    for number, (picture, label) in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = GAP + column * (width + GAP), GAP + line + row * (height + line)
        page.paste(Image.fromarray(picture), (x, y))
        write(x, y + height + 2, label, width)

    y, (low, high) = page.height - line, scale
    bar = _heat(np.zeros((TEXT, width // 2, 3), np.uint8), np.tile(np.linspace(0, 1, width // 2), (TEXT, 1)))
    start = 2 * GAP + int(draw.textlength(low, font=ImageFont.load_default(TEXT)))
    write(GAP, y, low, width)
    page.paste(Image.fromarray(bar), (start, y))
    write(start + bar.shape[1] + GAP, y, high, width)
    return np.array(page)
