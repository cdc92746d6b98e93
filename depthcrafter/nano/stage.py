"""The loop of nano's trainings, in one process or in several."""

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
    """AdamW with warm-up and cosine, an average of the weights, saved states.

    A step may have several parts, whose gradients are averaged. Processes share them where they can do so evenly, and
    each does all of them otherwise. As many threads in each give the same weights, but for the order in which more than
    two gradients are added.

    Args:
        name: of the files and in the log.
        model: trained in place; ends as the exponential average of itself.
        loss: the loss of a part of a step, given two generators and the progress in [0,1). Draws what it needs from the
            generators of that step, so that a resumed training sees what an uninterrupted one would have seen. The
            first is the same for all parts of a step: what it decides, sizes, keeps processes in step. The second is
            the part's own.
        steps: in all.
        learning_rate: at its highest, after 100 steps.
        seed: of all draws, with the step's number.
        folder: where log.csv and the states are.
        validate: a figure for the log, of the model with its averaged weights, every `SAVE_EVERY` steps.
        parts: of a step.
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
        validate: Callable[[], float] | None = None,
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
        self._sharing = processes() if parts % processes() == 0 else 1

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
                loss = float(self._summed([torch.tensor(np.mean(losses))])[0])
                losses = []
                if rank() == 0:
                    figure = self._validate() if self.validate and checked else None
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
        for part in range(rank() % self._sharing, self.parts, self._sharing):
            rng = np.random.default_rng([self.seed, self.step])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + part)
            loss = self.loss(rng, generator, progress) / self.parts
            loss.backward()
            total += float(loss.detach())
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        gradients = self._summed([parameter.grad for parameter in trained if parameter.grad is not None])
        for parameter, gradient in zip(trained, gradients, strict=True):
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
            figure = self.validate()
        self.model.load_state_dict(current)
        self.model.train()
        return figure

    def _summed(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The sum of the tensors of the processes that share a step, in each of them."""
        if self._sharing == 1:
            return tensors
        flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
        dist.all_reduce(flat)
        parts = flat.to(tensors[0].device).split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

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
        if rank() == 0 and self.log.exists():
            # What was logged after the state was saved will be logged again.
            header, *rows = self.log.read_text().splitlines()
            kept = [row for row in rows if row.split(",")[0] != self.name or int(row.split(",")[1]) <= self.step]
            self.log.write_text("\n".join([header, *kept]) + "\n")

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
    """This process's number among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """The first process does what is within, and the others after it: they find what it wrote."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and dist.is_initialized():
        dist.barrier()


def in_bfloat16(device: torch.device) -> torch.autocast:
    """What a forward pass is computed in."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def round_to_half(network: nn.Module) -> None:
    """Make the weights those of the checkpoint, which are float16."""
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(value.half())
