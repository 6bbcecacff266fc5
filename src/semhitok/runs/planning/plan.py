"""The plan of a recipe on a number of GPUs: does it fit, how long does it take, how much data does it read?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from semhitok.recipes import LANGUAGE_RECIPES, RECIPES, UNITOK_RECIPES
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.recipes.unitok_recipe import UniTokRecipe
from semhitok.runs.planning.costs import Memory, Stage
from semhitok.runs.planning.hardware import USABLE, Gpu, find_gpu
from semhitok.runs.planning.language_stages import language_stage
from semhitok.runs.planning.tokenizers import tokenizer_stage
from semhitok.training.loop_config import LoopConfig
from semhitok.types import STAGES, UNITOK_STAGE, ShardKind

MOST_GPUS = 4096


@dataclass(frozen=True)
class Setting:
    """What a user can change to make a stage fit."""

    gpus: int
    accumulation: int
    shard: ShardKind
    recompute: bool

    def words(self, earlier: Setting, stage: str, unit: str) -> str:
        """The options that differ from another setting."""
        loop = f"{stage}.loop" if stage != UNITOK_STAGE else "loop"
        task = f"{stage}.task"
        found = []
        if self.gpus != earlier.gpus:
            found.append(f"{self.gpus} GPUs")
        if self.shard != earlier.shard:
            found.append(f"--shard {self.shard}")
        if self.recompute != earlier.recompute:
            found.append(f"--{task}.checkpoint-activations")
        if self.accumulation != earlier.accumulation:
            found.append(f"--{loop}.accumulation {self.accumulation}")
        return " and ".join(found)


@dataclass(frozen=True)
class Options:
    """What a plan assumes.

    Attributes:
        gpus: their number.
        gpu: kind of GPU.
        mfu: fraction of the GPU's peak that the model's own FLOPs reach.
        shard: see ``distributed.sharding``; for language models.
        gpus_per_node: for hybrid sharding.
        image_kilobytes: mean size of a stored image.
    """

    gpus: int
    gpu: Gpu
    mfu: float = 0.4
    shard: ShardKind = "full"
    gpus_per_node: int = 8
    image_kilobytes: float = 100.0

    def __post_init__(self) -> None:
        for name in ("gpus", "gpus_per_node", "image_kilobytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu must be above 0 and at most 1, got {self.mfu}")


@dataclass(frozen=True)
class StagePlan:
    """One stage on some GPUs.

    Attributes:
        stage: its costs.
        setting: as asked for.
        memory: on one GPU in that setting.
        usable: bytes of a GPU that tensors can have.
        remedy: a setting that fits, and its memory; None if the one asked for fits or none was found.
        units_per_second: images or rows of all GPUs.
        hours: wall-clock time.
        read: bytes of images in the whole stage.
    """

    stage: Stage
    setting: Setting
    memory: Memory
    usable: float
    remedy: tuple[Setting, Memory] | None
    units_per_second: float
    hours: float
    read: float

    @property
    def fits(self) -> bool:
        """Whether the setting that was asked for fits."""
        return self.memory.total <= self.usable


def plan_recipe(name: str, options: Options, *, say: Callable[[str], None] = lambda line: None) -> list[StagePlan]:
    """The plan of each stage of a recipe.

    Args:
        name: of the recipe.
        options: what is assumed.
        say: called with the name of each stage before it is computed.

    Raises:
        ValueError: the recipe is not known, its batch cannot be divided, or the sizes of a part are not known.
    """
    plans = []
    stages = list(_stages(name, options.gpus))
    for stage_name, costs in stages:
        say(stage_name)
        stage, memory = costs(options)
        plans.append(_planned(stage, memory, options))
    return plans


MemoryOf = Callable[[Setting], Memory]


def _stages(name: str, gpus: int) -> Iterator[tuple[str, Callable[[Options], tuple[Stage, MemoryOf]]]]:
    recipes: dict[str, Any] = {**RECIPES, **UNITOK_RECIPES, **LANGUAGE_RECIPES}
    if name not in recipes:
        raise ValueError(f"there is no recipe {name!r}; {', '.join(recipes)} are")
    recipe = recipes[name]()
    if isinstance(recipe, LanguageRecipe):
        for stage in recipe.stages:
            _check_batch(stage, recipe.stage(stage).loop, gpus)
            yield stage, lambda options, stage=stage: _language(recipe, stage, options)
        return
    for stage in (UNITOK_STAGE,) if isinstance(recipe, UniTokRecipe) else STAGES:
        _check_batch(stage, recipe.stage(stage).loop, gpus)
        yield stage, lambda options, stage=stage: _tokenizer(recipe, stage)


def _language(recipe: LanguageRecipe, name: Any, options: Options) -> tuple[Stage, MemoryOf]:
    stage, costs = language_stage(recipe, name)

    def memory(setting: Setting) -> Memory:
        divided = {"none": 1, "full": setting.gpus, "hybrid": min(setting.gpus, options.gpus_per_node)}[setting.shard]
        rows = stage.batch_size // (setting.gpus * setting.accumulation)
        return costs.memory(
            rows,
            1 if name == "align" else divided,
            recompute=setting.recompute,
            accumulating=setting.accumulation > 1,
        )

    return stage, memory


def _tokenizer(recipe: Any, name: Any) -> tuple[Stage, MemoryOf]:
    stage, costs = tokenizer_stage(recipe, name)
    return stage, lambda setting: costs.memory(
        stage.batch_size // (setting.gpus * setting.accumulation), stage.batch_size
    )


def _planned(stage: Stage, memory_of: MemoryOf, options: Options) -> StagePlan:
    shard: ShardKind = options.shard if stage.unit == "rows" and options.gpus > 1 else "none"
    asked = Setting(options.gpus, stage.accumulation, shard, stage.recompute)
    memory, usable = memory_of(asked), USABLE * options.gpu.memory
    remedy = None
    if memory.total > usable:
        tried = ((setting, memory_of(setting)) for setting in _remedies(asked, stage))
        remedy = next(((setting, needed) for setting, needed in tried if needed.total <= usable), None)
    speed = options.gpus * options.gpu.flops * options.mfu / stage.flops
    units = stage.steps * stage.batch_size
    return StagePlan(
        stage=stage,
        setting=asked,
        memory=memory,
        usable=usable,
        remedy=remedy,
        units_per_second=speed,
        hours=units / speed / 3600,
        read=units * stage.images * options.image_kilobytes * 1000,
    )


def _check_batch(name: str, loop: LoopConfig, gpus: int) -> None:
    """Raise a ValueError if the batch cannot be divided."""
    if loop.batch_size % (gpus * loop.accumulation):
        by = f"{gpus} GPUs" + (f" x {loop.accumulation} micro-batches" if loop.accumulation > 1 else "")
        numbers = range(gpus, 0, -1)
        possible = next((each for each in numbers if loop.batch_size % (each * loop.accumulation) == 0), None)
        instead = "use fewer micro-batches" if possible is None else f"{possible} GPUs would do, or another batch size"
        raise ValueError(f"the batch of stage {name}, {loop.batch_size}, cannot be divided among {by}: {instead}")


def _remedies(asked: Setting, stage: Stage) -> Iterator[Setting]:
    """Settings that need less memory, first those that cost least."""
    shards: tuple[ShardKind, ...] = (asked.shard,)
    if stage.unit == "rows" and asked.shard != "full" and asked.gpus > 1:
        shards = (asked.shard, "full")
    recomputed = (asked.recompute, True) if stage.unit == "rows" and not asked.recompute else (asked.recompute,)
    gpus = asked.gpus
    while gpus <= MOST_GPUS and stage.batch_size % gpus == 0:
        of_one = stage.batch_size // gpus
        for shard in shards if gpus > 1 or stage.unit == "images" else ("none",):
            for recompute in recomputed:
                for accumulation in range(asked.accumulation, of_one + 1):
                    if of_one % accumulation == 0:
                        wanted: ShardKind = "full" if gpus > asked.gpus and stage.unit == "rows" else shard
                        yield Setting(gpus, accumulation, wanted, recompute)
        gpus *= 2


def options_for(gpus: int, gpu: str, **others: Any) -> Options:
    """Options with a GPU by its name.

    Raises:
        ValueError: an unknown GPU, or a number out of range.
    """
    return Options(gpus=gpus, gpu=find_gpu(gpu), **others)
