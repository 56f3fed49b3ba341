"""The training loop: one recipe, from where it stands to its end."""

import json
import logging
import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.loading import load_trained, save_trained
from ..checkpoints.trained import NOT_IN_ALL, read_trained, remove_others
from ..data.collate import Batch, Collator, Formatter, Reader, inputs_to
from ..data.formats import build_source
from ..data.group import STREAMED, Together
from ..data.mixture import Mixture, Part
from ..data.source import StreamSource
from ..errors import UserError
from ..io.atomic import saying, write_folder
from ..io.lock import hold
from ..io.progress import telling
from .checkpoint import (
    CHECKPOINTS,
    OPTIMIZER,
    STATE,
    Checkpoints,
    load_optimizer,
    random_state,
    save_optimizer,
    set_random_state,
)
from .distributed import World, join_world, leave_world, shard_frozen
from .features import fill, wants_features
from .fingerprint import OtherBeginning, check_recipe, difference, fingerprints
from .flops import StepFlops, matmul_peak
from .loader import Loader
from .recipe import Dataset, Recipe, load_recipe, save_recipe
from .schedule import SCHEDULES
from .self_critical import SelfCritic, answers_to_score
from .setup import DTYPES, PLAIN, learnt_positions, parameter_groups, prepare, settled
from .signals import signals
from .tracking import JsonLines, Tracker, in_short, open_tracker
from .validate import Validator
from .watch import Watch

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Somebody asked the run to stop; it has saved what it had."""


def train(recipe: Recipe) -> Path:
    """Run a recipe to its end, from its newest checkpoint if it has one; returns the output folder.

    Raises:
        UserError: something in the recipe or its data is wrong, or the loss has become useless.
        Interrupted: a signal asked to stop; a checkpoint was written.
    """
    world = join_world()
    held = hold(recipe.output, "a training") if world.leads else None
    try:
        Trainer(recipe, world).run()
        if world.leads:
            from .report import write_report

            write_report(Path(recipe.output))
        return Path(recipe.output)
    finally:
        leave_world(world)
        if held is not None:
            held.release()


def build_parts(recipe: Recipe, datasets: list[Dataset]) -> list[Part]:
    """The datasets of a recipe, opened."""
    parts = []
    for number, dataset in enumerate(datasets):
        try:
            source = build_source(dataset.format, **dataset.options)
        except UserError as error:
            raise UserError(f"dataset {number} ({dataset.format}): {error}") from None
        if dataset.together > 1:
            if isinstance(source, StreamSource):
                raise UserError(f"dataset {number} ({dataset.format}): {STREAMED}")
            source = Together(source, dataset.together)
        if not isinstance(source, StreamSource) and (problem := next(source.problems(), None)):
            log.warning("%s: %s (minigpt4 data check lists all)", source.name, problem.message)
        batch = recipe.data.batch_of(dataset)
        shown = {name: getattr(dataset, name) for name in ("mirror", "crop", "zoomed", "grid", "reward")}
        parts.append(Part(source, dataset.ratio, batch, **shown))
    return parts


def build_formatter(recipe: Recipe, processor: Any, positions: int | None = None) -> Formatter:
    """How the recipe's samples are written down; `positions` as in `Formatter`."""
    return Formatter(
        processor,
        plain=recipe.model.template == PLAIN,
        end=recipe.data.end,
        max_answer_tokens=recipe.data.max_answer_tokens,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        positions=positions,
    )


class Trainer:
    """Everything that a run holds while it goes on."""

    def __init__(self, recipe: Recipe, world: World):
        recipe = settled(recipe, world.device)
        self.recipe, self.world = recipe, world
        self.output = Path(recipe.output)
        self._make_output()
        torch.manual_seed(recipe.seed)
        self.model, self.processor, self.learnt_before, self.task_settings = prepare(recipe, world.device)
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.names: dict[torch.Tensor, str] = {p: n for n, p in self.trained.items()}

        parts = build_parts(recipe, recipe.data.datasets)
        valid = build_parts(recipe, recipe.validation.datasets)
        features = None
        self.began_with = fingerprints(self.model, recipe, parts)
        if wants_features(recipe, self.model, parts, world):
            features = fill(recipe, self.model, self.processor, [*parts, *valid], world)
        stage = features.stage if features else "pixel_values"
        formatter = build_formatter(recipe, self.processor, learnt_positions(self.model.language_model))
        self.collator = Collator(self.processor, pack=recipe.data.pack, row_tokens=recipe.data.row_tokens, stage=stage)
        self.reader = Reader(parts, formatter, features)
        self.mixture = Mixture(parts, recipe.data.batch, recipe.data.mixing, recipe.seed, world.rank, world.size)
        self.validator = Validator(recipe, self.model, self.processor, valid, Reader(valid, formatter, features), self.collator)

        if recipe.sharding == "fsdp" and world.size > 1:
            shard_frozen(self.model.language_model, self.trained.values(), world)
        if recipe.compile:
            for layer in next(m for m in self.model.language_model.modules() if isinstance(m, torch.nn.ModuleList)):
                layer.compile()
        settings, rates = recipe.optimizer, recipe.schedule
        groups = parameter_groups(self.model, settings.weight_decay, rates.projection_factor, rates.vision_factor)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16")
        self.average = {n: p.detach().clone() for n, p in self.trained.items()} if settings.average else None

        self.critic: SelfCritic | None = None
        self.checkpoints = Checkpoints(self.output / CHECKPOINTS, recipe.keep)
        self.step, self.best, self.data_state = 0, math.inf, self.mixture.state_dict()
        self.best_step: int | None = None
        self.watch = Watch(self.output)
        self._resume()
        with self._autocast():  # of a vision encoder whose end learns, the beginning has another precision
            self.flops = StepFlops(self.model, stage)
        self.trackers: list[Tracker] = []
        if world.leads:
            save_recipe(recipe, self.output / "recipe.yaml")
            self.metrics = JsonLines(self.output / "metrics.jsonl", self.step)
            self.trackers.append(self.metrics)
            self.trackers += [open_tracker(name, self.output, recipe.model_dump(mode="json")) for name in recipe.trackers]

    # the run ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Step until the end; validate and save on the way."""
        recipe, world = self.recipe, self.world
        peak = matmul_peak(world.device, DTYPES[recipe.precision])
        loader = Loader(self.mixture, self.reader, self.collator, recipe.data.workers, world.device.type == "cuda")
        batches = iter(loader)
        self.model.train()
        self._catch_up()
        if self.step == 0:
            torch.manual_seed(recipe.seed + world.rank)  # dropout is each process' own
        else:
            set_random_state(self.random_state)
        with signals() as stop, telling("step", recipe.steps, self.step) if world.leads else nullcontext() as told:
            while self.step < recipe.steps:
                begun = time.perf_counter()
                taken = [next(batches) for _ in range(recipe.accumulate)]
                waited = time.perf_counter() - begun
                self.data_state = taken[-1][1]
                values = self._step([batch for batch, _ in taken])
                took = time.perf_counter() - begun
                values |= self._speed([batch for batch, _ in taken], took, waited, peak)
                for tracker in self.trackers:
                    tracker.log(self.step, values)
                if told is not None:
                    told.reach(self.step, in_short(values))
                last = self.step == recipe.steps
                stopping = world.any(stop.is_set())
                measured = last or self.step % recipe.validation.every == 0
                better = self._validate() if measured and not (stopping and not last) else False
                if better or last or stopping or self.step % recipe.checkpoint_every == 0:
                    self._save(better)
                if stopping and not last:
                    raise Interrupted(f"stopped after step {self.step}; the same command goes on from there")
        with self._averaged():
            self._check_weights()
            if world.leads:
                self._write_result()
        for tracker in self.trackers:
            tracker.close()

    def _step(self, batches: list[Batch]) -> dict[str, float]:
        """One step of the optimiser over one or more batches."""
        recipe, world = self.recipe, self.world
        told: dict[str, float] = {}
        for place, batch in enumerate(batches):
            if batch.rewarded:
                with self._autocast():
                    batches[place], told = self._critic()(batch.rewarded, world.device)
        (supervised,) = world.sum(sum(batch.supervised for batch in batches))
        if supervised == 0:
            raise UserError(f"step {self.step + 1}: none of its samples has a token to learn ({batches[0].ids[:3]} ...)")
        loss = 0.0
        for batch in batches:
            with self._autocast():
                out = self.model(**inputs_to(batch.inputs, world.device), num_items_in_batch=supervised, loss_only=True)
            self.scaler.scale(out.loss).backward()
            loss += out.loss.item()
        (loss,) = world.sum(loss)
        if not told:  # the sign of a reward's loss means nothing
            self.watch.check(self.step + 1, loss, batches)
        world.sum_gradients(self.trained.values())
        self.scaler.unscale_(self.optimizer)
        limit = recipe.optimizer.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), limit).item()
        if not self.scaler.is_enabled():  # a scaled step may overflow: it is then left out, and tried again at a smaller scale
            self.watch.check_gradient(self.step + 1, norm, batches)
        rate = SCHEDULES[recipe.schedule.name](recipe.schedule, self.step, recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            # Early on the average forgets faster, or it would be made of the first weights for a long time.
            decay = min(recipe.optimizer.average or 0.0, self.step / (self.step + 10))
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter.detach(), 1 - decay)
        return {"loss": loss, "lr": rate, "grad_norm": norm} | told

    def _critic(self) -> SelfCritic:
        """Scores the model's own answers; made when the first step wants one."""
        if self.critic is None:
            parts = [part for part in self.reader.parts if part.reward]
            answers = [
                answers_to_score(part.source.sample(i, random.Random(0)), part.source.where(i))
                for part in parts
                if not isinstance(part.source, StreamSource)
                for i in range(len(part.source))
            ]
            self.critic = SelfCritic(self.model, self.processor, self.collator, answers, end=self.recipe.data.end)
        return self.critic

    def _speed(self, batches: list[Batch], took: float, waited: float, peak: float) -> dict[str, float]:
        tokens, samples = self.world.sum(sum(b.tokens for b in batches), sum(b.samples for b in batches))
        values = {
            "tokens_per_s": tokens / took,
            "samples_per_s": samples / took,
            "mfu": sum(map(self.flops, batches)) / took / peak,
            "waited_s": waited,
        }
        if self.world.device.type == "cuda":
            values["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return values

    def _catch_up(self) -> None:
        """Measure where an earlier run was ended before it could: at the beginning, or at the step after which it stopped."""
        if self.step == self.recipe.steps or self.step % self.recipe.validation.every:
            return
        told: float | None = None
        if self.world.leads:
            rows = [row for row in self.metrics.records if row["step"] == self.step]
            if any(key.startswith(("valid_loss", "answer/")) for row in rows for key in row):
                told = min((row["valid_loss"] for row in rows if "valid_loss" in row), default=math.inf)
        told = self.world.gather(told)[0]
        if told is None:
            better = self._validate()
        else:
            better, self.best = self.step > 0 and told < self.best, min(self.best, told)
        if better:
            self.best_step = self.step
            if self.world.leads:
                self.checkpoints.mark_best(self.step)

    def _validate(self) -> bool:
        """Measure; whether it is the best so far."""
        with self._averaged(), self._autocast():
            values = self.validator(self.world)
        if not values:
            return False
        for tracker in self.trackers:
            tracker.log(self.step, values)
        log.info("step %d: %s", self.step, ", ".join(f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float)))
        loss = values.get("valid_loss", math.inf)
        better = loss < self.best
        self.best = min(self.best, loss)
        return better and self.step > 0

    def _autocast(self) -> Any:
        dtype = DTYPES[self.recipe.precision]
        return torch.autocast(self.world.device.type, dtype) if dtype != torch.float32 else nullcontext()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the model has the average of its weights, if one is kept."""
        if self.average is None:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self.trained.items()}
        try:
            self._set(self.average)
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    def _write_trained(self, folder: Path) -> None:
        save_trained(self.model, self.processor, folder, before=self.learnt_before, task_settings=self.task_settings)

    # saving and continuing -------------------------------------------------------------------------------------------

    def _write_result(self) -> None:
        """The trained system, each of its files whole: a kill leaves no halves beside it, and an earlier system nothing."""
        work = self.output / ".result"
        kept = "the last checkpoint has the trained weights, and the same command writes them when there is room"
        with saying(self.output, kept):
            write_folder(work, work.with_name(".result-part"), self._write_trained)
            written = sorted(path.name for path in work.iterdir())
            for name in written:
                os.replace(work / name, self.output / name)
            remove_others(self.output, NOT_IN_ALL, written)
            work.rmdir()

    def _check_weights(self) -> None:
        """Raises UserError where the last step has broken the weights: what is on disk is better than them."""
        broken = [name for name, parameter in self.trained.items() if not bool(parameter.isfinite().all())]
        if broken:
            raise UserError(
                f"step {self.step}: {broken[0]} holds values that are no numbers (lower schedule.lr); they are not written, "
                f"and the checkpoints in {self.checkpoints.folder} are kept"
            )

    def _save(self, best: bool) -> None:
        self._check_weights()
        self.best_step = self.step if best else self.best_step
        mine = {"random": random_state(), "data": self.data_state}
        states = self.world.gather(mine)
        if self.world.leads:
            state = {"step": self.step, "best": self.best, "processes": states, "scaler": self.scaler.state_dict()}
            state |= {"watch": self.watch.state_dict(), "best_step": self.best_step, "began_with": self.began_with}

            def write(folder: Path) -> None:
                self._write_trained(folder)
                save_optimizer(self.optimizer, self.names, self.average, folder / OPTIMIZER)
                (folder / STATE).write_text(json.dumps(state))
                save_recipe(self.recipe, folder / "recipe.yaml")

            self.checkpoints.save(self.step, write, best)
        self.world.barrier()

    def _resume(self) -> None:
        # One process looks: it moves damaged ones aside, and all must go on from the same.
        folder = self.world.gather(self.checkpoints.latest() if self.world.leads else None)[0]
        if folder is None:
            return
        check_recipe(load_recipe(folder / "recipe.yaml"), self.recipe, folder)
        state = json.loads((folder / STATE).read_text())
        self._same_beginning(state.get("began_with", {}), folder)
        if len(state["processes"]) != self.world.size:
            raise UserError(f"{folder} was written by {len(state['processes'])} process(es); continue it with as many")
        load_trained(self.model, read_trained(folder), folder)
        load_optimizer(self.optimizer, self.names, self.average, folder / OPTIMIZER)
        mine = state["processes"][self.world.rank]
        self.mixture.load_state_dict(mine["data"])
        self.data_state = mine["data"]
        self.random_state = mine["random"]
        self.scaler.load_state_dict(state["scaler"])
        self.watch.load_state_dict(state["watch"])
        self.step, self.best, self.best_step = state["step"], state["best"], state.get("best_step")
        if self.world.leads and self.best_step is not None:  # a kill may have come before the mark
            self.checkpoints.mark_best(self.best_step)
        log.info("continuing after step %d", self.step)

    def _same_beginning(self, before: dict[str, str], folder: Path) -> None:
        changed = difference(before, self.began_with)
        if changed and self.recipe.on_change == "refuse":
            raise OtherBeginning(
                f"{folder} was trained with something else than is there now ({changed} has changed)",
                "put back what it was, name another output, or go on with what is there now: --set on_change=continue",
            )
        if changed:
            log.warning("%s has changed since the run began; it goes on with what is there now", changed)

    def _make_output(self) -> None:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.output}: {error.strerror}") from None
