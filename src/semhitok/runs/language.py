"""Run a recipe for the unified language model: its stages, each one run of the training loop.

A run lives in one directory::

    text_tokenizer/    the one learned from the texts, where there is one
    cache/             ids of the images, where they are computed once
    align/, pretrain/, sft/   a run each; its model/ is a whole model with its processor
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from semhitok import distributed
from semhitok.data.packed_feed import PackedFeed, RowFormat
from semhitok.data.packing import PackedRows
from semhitok.data.record_sources import open_records
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.mllm.sequences import SequenceBuilder
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.runs.language_data import data_sets, mixture, open_data_set, pretokenized, texts
from semhitok.runs.language_models import load_language_model, small_language_model, train_bpe
from semhitok.runs.preparation import Report
from semhitok.tokenizers.checkpoints import builtin_checkpoint, stage_is_finished
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.training import compilation
from semhitok.training.loop import train
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.word_alignment import WordAlignmentTask
from semhitok.types import LanguageStageName

LISTED_BAD_RECORDS = 5


def run_language(
    recipe: LanguageRecipe,
    data: Path,
    directory: Path,
    *,
    stages: Sequence[LanguageStageName] | None = None,
    device: torch.device,
    start_from: Path | None = None,
    data_name: str,
    cache: Path | None = None,
    compile_blocks: bool = False,
    report: Report = print,
) -> TrainState:
    """Train the stages in order, resuming where a run in ``directory`` was left; finished stages are skipped.

    Args:
        recipe: what to train.
        data: a folder of tars, or a ``.json`` file that lists data sets (see ``language_data``).
        directory: of the run.
        stages: which stages, by default the recipe's; the first starts from ``start_from``, or from the model of the stage
            before it in ``directory``.
        device: to train on.
        start_from: a unified model to start from, with its processor.
        data_name: written into the model's provenance.
        cache: for ids of images, which several runs may share; by default ``cache/`` in ``directory``.
        compile_blocks: compile the transformer blocks (``torch.compile``), which pays on GPUs.
        report: takes lines for the user.

    Returns:
        The state of the last stage that ran; ``interrupted`` if it was stopped by a signal or by its time limit.

    Raises:
        ValueError: data, tokenizer, language model or rows do not fit together, or a stage has nothing to start from.
    """
    state = TrainState(total_steps=0)
    for stage in recipe.stages if stages is None else stages:
        if stage_is_finished(directory / stage, stage):
            report(f"stage {stage} is done")
            continue
        state = _run_stage(
            recipe,
            stage,
            data,
            directory,
            device,
            start_from,
            data_name,
            cache or directory / "cache",
            compile_blocks,
            report,
        )
        start_from = None
        if not state.finished:
            break
    return state


def _run_stage(
    recipe: LanguageRecipe,
    stage: LanguageStageName,
    data: Path,
    directory: Path,
    device: torch.device,
    start_from: Path | None,
    data_name: str,
    cache: Path,
    compile_blocks: bool,
    report: Report,
) -> TrainState:
    begun = time.perf_counter()  # a time limit covers preparation, too
    run, settings = directory / stage, recipe.stage(stage)
    if distributed.is_main():
        run.mkdir(parents=True, exist_ok=True)
        (run / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1, default=str))
    entries = data_sets(data, stage, settings.mix)
    sources = [open_data_set(entry, report) for entry in entries]
    model, text_tokenizer, place = _starting_model(recipe, stage, directory, start_from, data)
    if settings.row_length > model.config.context_length:
        raise ValueError(
            f"row_length {settings.row_length} is more than the language model's context of {model.config.context_length}"
        )
    model.to(device)  # pyright: ignore[reportArgumentType]
    processor = SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer)
    fingerprint = None
    if not recipe.continuous:  # features need the images
        fingerprint = tokenizer_fingerprint(model.image_tokenizer)
    if recipe.records.pretokenize and fingerprint is not None:
        fit = recipe.records.fit
        # One rank writes, the others read what it wrote.
        if distributed.is_main():
            for source in sources:
                pretokenized(source, model.image_tokenizer, fingerprint, fit, cache, report)
        distributed.from_main(0)
        sources = [pretokenized(source, model.image_tokenizer, fingerprint, fit, cache, _silent) for source in sources]
    feed = _feed(
        recipe, stage, mixture(entries, sources, settings.mix, _seed(recipe, stage)), processor, fingerprint, device
    )
    projector = _projector(recipe, stage, model, place)
    # The first low-rank matrices must not depend on what this process did before.
    torch.manual_seed(derive_seed(settings.loop.seed, stage, "task"))
    kind = WordAlignmentTask if stage == "align" else LanguageTask
    task = kind(model, settings.task, processor=processor, projector=projector)
    if compile_blocks:
        report(f"{compilation.compile_blocks(model.language_model)} blocks are compiled as they first run")
    rows = settings.loop.batch_size
    report(f"stage {stage}: {settings.loop.steps} steps of {rows} rows of {settings.row_length} tokens")
    state = train(task, feed, settings.loop, run, begun=begun)
    for reason in [*feed.bad.values()][:LISTED_BAD_RECORDS]:  # which begins with the record's name
        report(f"skipped {reason}")
    if feed.bad:
        report(f"{len(feed.bad)} bad records skipped in all")
    if state.finished:
        config = model.config
        provenance = {"recipe": recipe.name, "data": data_name, "date": date.today().isoformat()}
        config.stages = [*getattr(config, "stages", []), stage]
        config.provenance = {
            **getattr(config, "provenance", {}),
            stage: provenance | {"steps": state.step, "rows": state.samples},
        }
        if distributed.is_main():
            config.save_pretrained(run / "model")
        distributed.from_main(0)  # the other ranks wait for the file before they look for it
    return state


def _feed(
    recipe: LanguageRecipe,
    stage: LanguageStageName,
    records: Any,
    processor: SemHiTokMLLMProcessor,
    fingerprint: str | None,
    device: torch.device,
) -> PackedFeed:
    settings, config, vocabulary = recipe.stage(stage), recipe.records, processor.vocabulary
    build = SequenceBuilder(
        processor,
        learn=settings.learn,
        unconditional=settings.unconditional,
        described=settings.described,
        max_length=settings.row_length,
        tokenizer=fingerprint,
    )
    rows = PackedRows(records, build, settings.row_length, config.block_rows)
    codes = [vocabulary.codes_per_token] if vocabulary.codes_per_token > 1 else []
    form = RowFormat(
        image_size=processor.image_processor.size,
        image_shape=(vocabulary.image_tokens, *codes),
        pad_id=processor.pad_id,
        fit=config.fit,
    )
    return PackedFeed(rows, form, device=device, workers=config.workers, max_bad_share=config.max_bad_share)


def _starting_model(
    recipe: LanguageRecipe,
    stage: LanguageStageName,
    directory: Path,
    start_from: Path | None,
    data: Path,
) -> tuple[SemHiTokForConditionalGeneration, Any, Path | None]:
    """The model, its text tokenizer, and the folder that it was read from."""
    before = recipe.before(stage)
    if start_from is None and before is not None:
        if not stage_is_finished(directory / before, before):
            raise ValueError(
                f"stage {stage} starts from a finished stage {before}, and {directory} has none: train it first"
            )
        start_from = directory / before / "model"
    if start_from is not None:
        model = SemHiTokForConditionalGeneration.from_pretrained(start_from, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(start_from), start_from
    torch.manual_seed(derive_seed(recipe.pretrain.loop.seed, "model"))
    tokenizer: PreTrainedModel = AutoModel.from_pretrained(builtin_checkpoint(recipe.tokenizer), dtype=torch.float32)
    if recipe.language_model is not None:
        language_model, text_tokenizer = load_language_model(recipe.language_model)
    else:
        text_tokenizer = _own_text_tokenizer(recipe, directory, data)
        language_model = small_language_model(recipe.size, text_tokenizer)
    model = SemHiTokForConditionalGeneration.from_language_model(
        language_model, tokenizer, adapter=recipe.adapter, text_tokenizer=text_tokenizer
    )
    return model, text_tokenizer, None


def _own_text_tokenizer(recipe: LanguageRecipe, directory: Path, data: Path) -> Any:
    """The one of the earlier part of this run, or a new one of the texts of all stages; every rank learns the same."""
    saved = directory / "text_tokenizer"
    if saved.exists():
        return AutoTokenizer.from_pretrained(saved)
    entries = {entry for stage in recipe.stages for entry in data_sets(data, stage, recipe.stage(stage).mix)}
    chosen = sorted(entries, key=lambda entry: (entry.kind, str(entry.path)))
    text_tokenizer = train_bpe(
        texts([open_records(entry.path, entry.kind) for entry in chosen]), recipe.size.vocab_size
    )
    text_tokenizer.model_max_length = recipe.size.context_length
    if distributed.is_main():
        text_tokenizer.save_pretrained(saved)
    distributed.from_main(0)
    return text_tokenizer


def _projector(
    recipe: LanguageRecipe, stage: LanguageStageName, model: SemHiTokForConditionalGeneration, place: Path | None
) -> ContinuousProjector | None:
    if not recipe.continuous:
        return None
    if recipe.stage(stage).mix.text_to_image:
        raise ValueError("continuous features can be read, not drawn: set text_to_image to 0 in the mix")
    found = None if place is None else ContinuousProjector.load(place, model)
    if found is not None:
        return found
    torch.manual_seed(derive_seed(recipe.stage(stage).loop.seed, "projector"))
    return ContinuousProjector.for_model(model)


def _seed(recipe: LanguageRecipe, stage: LanguageStageName) -> int:
    return derive_seed(recipe.stage(stage).loop.seed, stage)


def _silent(line: str) -> None:
    """Says nothing."""
