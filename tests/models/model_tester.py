"""What every model must be able to do. A model's test class derives from `ModelTester` and fills in the blanks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hmhi.config import Config, Kind, config_to_dict
from hmhi.models.build import build_model
from hmhi.models.weights import load_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


class ModelTester:
    kind: Kind
    config: Config
    """Of a network that is small enough for tests."""
    sizes: tuple[tuple[int, int], ...] = ((64, 64), (64, 96), (50, 83), (33, 32))

    def clip(self, frames: int, batch: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Arguments of `forward`, all with the batch first."""
        raise NotImplementedError

    def step(self, model: nn.Module, clip: tuple[Tensor, ...], t: int, state: Any) -> tuple[Tensor, Any]:
        """Frame t of a clip of one video through `model.step`; `state` is None at frame 0."""
        raise NotImplementedError

    def comparable(self, output: Tensor) -> Tensor:
        """What of `forward`'s output is compared; rounding grows beyond all bounds in logits of sure pixels."""
        return output.sigmoid()

    def exported(self, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """A module with tensors in and out that holds all of the network, and its inputs."""
        return model, self.clip(2, 1, (64, 64))

    def make(self) -> nn.Module:
        """The small network, in eval mode, without layers that do nothing before training."""
        torch.manual_seed(0)
        model = build_model(self.config.model).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                nn.init.ones_(parameter)
            if name.endswith("adapter.up.weight"):
                nn.init.normal_(parameter, std=0.1)
        return model

    def steps(self, model: nn.Module, clip: tuple[Tensor, ...], frames: range, state: Any = None):
        outputs = []
        for t in frames:
            output, state = self.step(model, clip, t, state)
            outputs.append(output)
        return outputs, state

    def test_every_parameter_gets_a_gradient(self):
        """DDP then needs no search for unused ones. It is the same, dropout included, where steps are recomputed."""
        gradients = []
        for recompute in (False, True):
            model = self.make().train()
            model.recompute_steps = recompute
            torch.manual_seed(1)
            out = model(*self.clip(3, 2, (64, 64)))
            out[out.isfinite()].square().mean().backward()
            assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
            gradients.append([parameter.grad for parameter in model.parameters()])
        assert all(torch.equal(kept, anew) for kept, anew in zip(*gradients, strict=True))

    @torch.inference_mode()
    def test_any_size_in_same_size_out(self):
        model = self.make()
        for size in self.sizes:
            clip = self.clip(2, 1, size)
            assert model(*clip).shape[-2:] == size
            outputs, _ = self.steps(model, clip, range(2))
            assert all(output.shape[-2:] == size and output.isfinite().all() for output in outputs)

    @torch.inference_mode()
    def test_a_batch_equals_its_clips_alone(self):
        model, clip = self.make(), self.clip(3, 3, (64, 64))
        alone = [model(*(x[i : i + 1] for x in clip)) for i in range(3)]
        torch.testing.assert_close(self.comparable(model(*clip)), self.comparable(torch.cat(alone)), **CLOSE)

    @torch.inference_mode()
    def test_a_video_in_halves_equals_the_whole(self):
        """A state may be kept, gone back to, and continued as often as one likes."""
        model, clip = self.make(), self.clip(5, 1, (50, 83))
        whole, _ = self.steps(model, clip, range(5))
        first, state = self.steps(model, clip, range(2))
        for _ in range(2):
            second, _ = self.steps(model, clip, range(2, 5), state)
            assert all(torch.equal(a, b) for a, b in zip(whole, first + second, strict=True))

    @torch.inference_mode()
    def test_memory_matters_and_belongs_to_one_video(self):
        model, clip, other = self.make(), self.clip(4, 1, (64, 64)), self.clip(4, 1, (96, 64))
        alone, _ = self.steps(model, clip, range(4))
        state, strange, mixed = None, None, []
        for t in range(4):
            output, state = self.step(model, clip, t, state)
            _, strange = self.step(model, other, t, strange)
            mixed.append(output)
        assert all(torch.equal(a, b) for a, b in zip(alone, mixed, strict=True))

    @torch.inference_mode()
    @pytest.mark.parametrize("size", [(64, 96), (96, 64)], ids=["another size", "transposed"])
    def test_another_size_within_a_video_is_refused(self, size):
        model = self.make()
        _, state = self.steps(model, self.clip(1, 1, (64, 64) if size == (64, 96) else (64, 96)), range(1))
        with pytest.raises(ValueError, match=r"start a new|size"):
            self.step(model, self.clip(2, 1, size), 1, state)

    @torch.inference_mode()
    def test_bfloat16_autocast_stays_close(self):
        model, clip = self.make(), self.clip(3, 1, (64, 64))
        exact = self.comparable(model(*clip))
        with torch.autocast("cpu", torch.bfloat16):
            rough = self.comparable(model(*clip).float())
            outputs, _ = self.steps(model, clip, range(3))
        assert (rough - exact).abs().mean() < 0.1 * exact.std()
        assert all(output.isfinite().all() for output in outputs)

    def test_save_and_load(self, tmp_path: Path):
        model, path = self.make(), tmp_path / "model.pt"
        contents = {"format": "hmhi-1", "config": config_to_dict(self.config), "model": model.state_dict()}
        torch.save(contents, path)
        loaded = load_model(path)
        clip = self.clip(2, 1, (64, 64))
        with torch.inference_mode():
            assert torch.equal(loaded(*clip), model(*clip))

    @torch.inference_mode()
    def test_traits(self):
        """The model pads to what it says."""
        model = self.make()
        assert model.traits.kind == self.kind
        pad_to = model.traits.pad_to
        assert all(isinstance(part, nn.Module) for part in model.parts_to_compile())
        for size in ((pad_to, pad_to), (pad_to + 1, pad_to)):
            assert model(*self.clip(2, 1, size)).isfinite().all()

    @pytest.mark.slow
    @torch.no_grad()
    def test_export_with_a_fixed_size(self):
        module, inputs = self.exported(self.make())
        program = torch.export.export(module, inputs)
        torch.testing.assert_close(program.module()(*inputs), module(*inputs), **CLOSE)

    @pytest.mark.slow
    @torch.no_grad()
    def test_parts_compile_as_whole_graphs(self):
        """Up to the code generator, which takes minutes and is torch's own affair."""
        model, clip = self.make(), self.clip(2, 1, (64, 64))
        expected = self.comparable(model(*clip))
        for part in model.parts_to_compile():
            part.compile(backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(self.comparable(model(*clip)), expected, **CLOSE)


class PromptedSteps(nn.Module):
    """Two frames of a prompted model's video under way, the first of which is written."""

    def __init__(self, model, state):
        super().__init__()
        self.model, self.state = model, state

    def forward(self, image, after):
        first, state = self.model.step(image, self.state)
        second, _ = self.model.step(after, state, write=False)
        return torch.stack((first, second))
