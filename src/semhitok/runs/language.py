"""Training stages of the unified language model on records of text and images (paper, section 3.3).

A run lives in one directory::

    text_tokenizer/    the text tokenizer, if it is learned from the texts
    cache/             ids of the images, if they are precomputed
    relations/, words/, align/, pretrain/, sft/   one run each; model/ in it is a complete model with its processor
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from semhitok import distributed
from semhitok.data.mixture import Mixture
from semhitok.data.packed_feed import PackedFeed, RowFormat
from semhitok.data.packing import PackedRows
from semhitok.data.record_sources import open_records
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.mllm.sequences import SequenceBuilder
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.runs.language_data import check_tokens, data_sets, mixture, open_data_set, pretokenized, texts
from semhitok.runs.language_models import (
    CHAT_TEMPLATE,
    SPACED_TEMPLATE,
    load_language_model,
    small_language_model,
    train_bpe,
)
from semhitok.runs.memory_check import check_memory, free_memory
from semhitok.runs.planning.language import LanguageCosts
from semhitok.runs.stage_runner import PreparedStage, RunOptions, StageRunner
from semhitok.runs.text_tokenizers import learned_text_tokenizer
from semhitok.scenes.words import SceneWords
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.training.state import TrainState, derive_seed
from semhitok.training.tasks.language import LanguageTask
from semhitok.training.tasks.word_alignment import WordAlignmentTask
from semhitok.types import LanguageStageName

WITHOUT_IMAGES: tuple[LanguageStageName, ...] = ("relations", "words")
LISTED_BAD_RECORDS = 5
# Relative cost of a token in stage align, where no layer of the language model runs.
ALIGN_COST = 0.08


def run_language(
    recipe: LanguageRecipe,
    data: Path,
    options: RunOptions,
    *,
    stages: Sequence[LanguageStageName] | None = None,
    cache: Path | None = None,
) -> TrainState:
    """Train the stages in order, see ``StageRunner.run``.

    Args:
        recipe: what to train.
        data: a folder of tars or of token files, or a ``.json`` file that lists data sets (see ``language_data``).
        options: directory, device; ``start_from`` is a unified model with its processor.
        stages: stages to train; by default all of the recipe's.
        cache: folder for ids of images, which several runs may share; by default ``cache/`` in the run's directory.

    Raises:
        ValueError: data, tokenizer, language model or rows do not match, or a stage has no model to start from.
    """
    cache = options.directory / "cache" if cache is None else cache
    return StageRunner(_Language(recipe, options, data, cache)).run(recipe.stages if stages is None else stages)


class _Language:
    """See ``System``."""

    samples = "rows"

    def __init__(self, recipe: LanguageRecipe, options: RunOptions, data: Path, cache: Path) -> None:
        self.recipe, self.options, self.data, self.cache = recipe, options, data, cache

    def folder(self, stage: LanguageStageName) -> Path:
        return self.options.directory / stage

    def earlier(self, stage: LanguageStageName) -> Sequence[LanguageStageName]:
        before = self.recipe.before(stage)
        return () if before is None else (before,)

    def cost(self, stage: LanguageStageName) -> float:
        settings = self.recipe.stage(stage)
        tokens = settings.loop.steps * settings.loop.batch_size * settings.row_length
        return tokens * (ALIGN_COST if stage == "align" else 1)

    def prepare(self, stage: LanguageStageName, start_from: Path | None) -> PreparedStage:
        recipe, settings, report = self.recipe, self.recipe.stage(stage), self.options.report
        entries = data_sets(self.data, stage, settings.mix)
        outside = recipe.records.allow_outside
        if stage in WITHOUT_IMAGES:
            sources = [SceneWords.of_data_set(entry.path, pairs=settings.pairs) for entry in entries]
        else:
            sources = [open_data_set(entry, report, allow_outside=outside) for entry in entries]
        # Stage align runs no layer of the language model, so nothing is divided.
        mesh = None if stage == "align" else distributed.shard_mesh(self.options.shard, self.options.device)
        model, text_tokenizer = self._starting_model(start_from)
        if settings.row_length > model.config.context_length:
            raise ValueError(
                f"row_length {settings.row_length} is more than the language model's context of "
                f"{model.config.context_length}"
            )
        if (free := free_memory(self.options.device)) is not None:
            costs = LanguageCosts(model.config, settings.task, settings.row_length)
            rows = settings.loop.batch_size // (settings.loop.accumulation * distributed.world_size())
            recompute, divided = settings.task.checkpoint_activations, 1 if mesh is None else mesh.size(mesh.ndim - 1)
            accumulating = settings.loop.accumulation > 1
            memory = costs.memory(rows, divided, recompute=recompute, accumulating=accumulating)
            if warning := check_memory(memory, free):
                report(warning)
        # What is divided moves to the device unit by unit, as it may not fit there as a whole.
        moved = model if mesh is None else model.image_tokenizer
        moved.to(self.options.device)  # pyright: ignore[reportArgumentType]
        processor = SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer, _template(recipe.chat_template))
        fingerprint = None
        if not recipe.continuous:  # continuous features need the images
            fingerprint = tokenizer_fingerprint(model.image_tokenizer)
        check_tokens(sources, fingerprint)
        if recipe.records.pretokenize and fingerprint is not None and stage not in WITHOUT_IMAGES:
            arguments = (model.image_tokenizer, fingerprint, recipe.records.fit, self.cache, report)
            sources = [pretokenized(source, *arguments) for source in sources]
        records = mixture(entries, sources, settings.mix, derive_seed(settings.loop.seed, stage))
        feed = self._feed(stage, records, processor, fingerprint)
        projector = self._projector(stage, model, start_from)
        # The initial low-rank matrices must not depend on what this process did before.
        torch.manual_seed(derive_seed(settings.loop.seed, stage, "task"))
        kind = WordAlignmentTask if stage == "align" else LanguageTask
        task = kind(model, settings.task, processor=processor, projector=projector, mesh=mesh)
        batch = f"{settings.loop.batch_size} rows of {settings.row_length} tokens"
        return PreparedStage(model, task, feed, batch, model.language_model, notes=lambda: _bad_records(feed))

    def _starting_model(self, start_from: Path | None) -> tuple[SemHiTokForConditionalGeneration, Any]:
        """The model to start from, and its text tokenizer."""
        recipe = self.recipe
        if start_from is not None:
            model = SemHiTokForConditionalGeneration.from_pretrained(start_from, dtype=torch.float32)
            return model, load_without_foreign_code(AutoTokenizer.from_pretrained, start_from)
        torch.manual_seed(derive_seed(recipe.pretrain.loop.seed, "model"))
        tokenizer: Any = load_tokenizer(recipe.tokenizer)
        options: dict[str, Any] = {"adapter": recipe.adapter, "image_positions": recipe.image_positions}
        if recipe.language_model is not None:
            language_model, text_tokenizer = load_language_model(recipe.language_model)
        else:
            folder = self.options.directory / "text_tokenizer"
            text_tokenizer = learned_text_tokenizer(folder, self._learn_bpe, AutoTokenizer.from_pretrained)
            language_model = small_language_model(recipe.size, text_tokenizer)
            names = ("code_head_layers", "code_head_width", "code_head_heads")
            options |= {name: getattr(recipe.size, name) for name in names}
        model = SemHiTokForConditionalGeneration.from_language_model(
            language_model, tokenizer, text_tokenizer=text_tokenizer, **options
        )
        return model, text_tokenizer

    def _learn_bpe(self) -> Any:
        """A text tokenizer learned from the texts of all stages."""
        recipe = self.recipe
        entries = {entry for stage in recipe.stages for entry in data_sets(self.data, stage, recipe.stage(stage).mix)}
        chosen = sorted(entries, key=lambda entry: (entry.kind, str(entry.path)))
        outside = recipe.records.allow_outside
        sources = [open_records(entry.path, entry.kind, allow_outside=outside) for entry in chosen]
        spaced = recipe.size.answer_after_space
        template = SPACED_TEMPLATE if spaced else CHAT_TEMPLATE
        learned = texts(sources, before_answers=" " if spaced else "")
        text_tokenizer = train_bpe(learned, recipe.size.vocab_size, chat_template=template)
        text_tokenizer.model_max_length = recipe.size.context_length
        return text_tokenizer

    def _feed(
        self, stage: LanguageStageName, records: Mixture, processor: SemHiTokMLLMProcessor, fingerprint: str | None
    ) -> PackedFeed:
        settings, config, vocabulary = self.recipe.stage(stage), self.recipe.records, processor.vocabulary
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
        return PackedFeed(
            rows, form, device=self.options.device, workers=config.workers, max_bad_share=config.max_bad_share
        )

    def _projector(
        self, stage: LanguageStageName, model: SemHiTokForConditionalGeneration, start_from: Path | None
    ) -> ContinuousProjector | None:
        settings = self.recipe.stage(stage)
        if not self.recipe.continuous:
            return None
        if settings.mix.text_to_image:
            raise ValueError("continuous features cannot be generated: set text_to_image to 0 in the mix")
        found = None if start_from is None else ContinuousProjector.load(start_from, model)
        if found is not None:
            return found
        torch.manual_seed(derive_seed(settings.loop.seed, "projector"))
        return ContinuousProjector.for_model(model)


def _template(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: the chat template cannot be read ({error})") from error


def _bad_records(feed: PackedFeed) -> list[str]:
    """Lines about the first bad records, whose reasons start with their names, and the total count."""
    if not feed.bad:
        return []
    listed = [f"skipped {reason}" for reason in list(feed.bad.values())[:LISTED_BAD_RECORDS]]
    return [*listed, f"{len(feed.bad)} bad records skipped in all"]
