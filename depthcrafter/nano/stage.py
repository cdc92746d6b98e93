"""The loop that all of nano's trainings share, in one process or in several."""

from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

SAVE_EVERY = 200
LOG_EVERY = 20


class Stage:
    """The loop that all trainings share: AdamW with warm-up and cosine, an average of the weights, saved states.

    A step may have several parts, whose gradients are averaged. Where there are several processes, each takes its
    share of them; the weights end the same, but for the order in which more than two gradients are added.

    Args:
        name: of the files and in the log.
        model: trained in place; ends as the exponential average of itself.
        loss: the loss of a part of a step; draws what it needs from the generators of that step, so that a resumed
            training sees what an uninterrupted one would have seen. The first generator is the same for all parts of
            a step, so that what it decides, sizes, keeps processes in step; the second is the part's own.
        parts: of a step.
        validate: a figure for the log, of the averaged weights, every `SAVE_EVERY` steps.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        loss: Callable[[np.random.Generator, torch.Generator, float], torch.Tensor],
        *,
        steps: int,
        learning_rate: float,
        seed: int,
        folder: Path,
        validate: Callable[[nn.Module], float] | None = None,
        parts: int = 1,
    ) -> None:
        self.name, self.model, self.loss, self.validate = name, model, loss, validate
        self.steps, self.learning_rate, self.seed, self.parts = steps, learning_rate, seed, parts
        self.state, self.log = folder / "state" / f"{name}.pt", folder / "log.csv"
        self.average = {key: value.clone() for key, value in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.step = 0

    def run(self) -> None:
        """Train to the end, from where a saved state left off."""
        if self.state.exists():
            self._resume()
        self.model.train()
        losses: list[float] = []
        began = time.monotonic()
        while self.step < self.steps:
            losses.append(self._train_step())
            self.step += 1
            done = self.step == self.steps
            if done or self.step % LOG_EVERY == 0:
                checked = done or self.step % SAVE_EVERY == 0
                figure = self._validate() if self.validate and checked else None
                loss = float(_summed([torch.tensor(np.mean(losses))])[0])
                losses = []
                if rank() == 0:
                    self._write_log(loss, figure, time.monotonic() - began)
                    if checked:
                        self._save()
        self.model.load_state_dict(self.average)
        self.model.eval().requires_grad_(False)

    def _train_step(self) -> float:
        progress = self.step / self.steps
        rate = self.learning_rate * min(1.0, (self.step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(rank(), self.parts, _processes()):
            rng = np.random.default_rng([self.seed, self.step])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + part)
            loss = self.loss(rng, generator, progress) / self.parts
            loss.backward()
            total += float(loss.detach())
        if _processes() > 1:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
            for parameter, gradient in zip(trained, _summed(gradients), strict=True):
                parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # A short memory at first, so that the average soon forgets the start.
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return total

    def _validate(self) -> float:
        assert self.validate is not None
        current = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            figure = self.validate(self.model)
        self.model.load_state_dict(current)
        self.model.train()
        return figure

    def _save(self) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state.with_suffix(".partial")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, beside)
        beside.replace(self.state)

    def _resume(self) -> None:
        state = torch.load(self.state, weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _write_log(self, loss: float, figure: float | None, seconds: float) -> None:
        new = not self.log.exists()
        with self.log.open("a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["stage", "step", "loss", "validation", "seconds"])
            rows.writerow(
                [self.name, self.step, f"{loss:.5f}", "" if figure is None else f"{figure:.5f}", f"{seconds:.0f}"]
            )


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """The first process does what is within, and the others after it: they find what it wrote."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and dist.is_initialized():
        dist.barrier()


def _summed(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sum of all processes' tensors, in every process."""
    if _processes() == 1:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    dist.all_reduce(flat)
    parts = flat.to(tensors[0].device).split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def in_bfloat16(device: torch.device) -> torch.autocast:
    """What a forward pass is computed in."""
    return torch.autocast(device.type, dtype=torch.bfloat16)
