"""The stages of a language recipe as the planner sees them: the model's configuration, and how many images a row has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from semhitok.mllm import SemHiTokMLLMConfig
from semhitok.recipes import RECIPES
from semhitok.recipes.language_recipe import LanguageRecipe, LanguageStage
from semhitok.runs.language_models import small_config
from semhitok.runs.planning.costs import Part, Stage
from semhitok.runs.planning.language import LanguageCosts
from semhitok.runs.planning.published import language_config, tokenizer_config
from semhitok.runs.planning.tokenizers import encoding_flops
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.tokenizers.checkpoints import builtin_checkpoint
from semhitok.types import LanguageStageName

# Typical lengths in ids, to estimate how many images are in a row; see recipes.language.
CAPTION, CHAT, TEXT = 70, 110, 300


def model_config(recipe: LanguageRecipe) -> SemHiTokMLLMConfig:
    """Configuration of the model that the recipe trains; nothing is downloaded.

    Raises:
        ValueError: sizes of a part are not known.
    """
    if recipe.language_model is not None:
        text = language_config(recipe.language_model)
    else:
        text = small_config(recipe.size, recipe.size.vocab_size, end=1, padding=0)
    options = {"adapter": recipe.adapter, "image_positions": recipe.image_positions}
    return SemHiTokMLLMConfig(text_config=text, tokenizer_config=_tokenizer(recipe.tokenizer), **options)


def _tokenizer(name: str) -> Any:
    place = Path(builtin_checkpoint(name))
    if (place / "config.json").is_file():
        return load_without_foreign_code(AutoConfig.from_pretrained, place)
    made_by = next((part for part in Path(name).parts if part in RECIPES), None)
    if made_by is not None:  # the folder that this recipe will write
        return tokenizer_config(RECIPES[made_by](), enhanced=True)
    raise ValueError(f"the sizes of the image tokenizer {name} are not known here: name a folder with its config.json")


def images_per_row(settings: LanguageStage, image_tokens: int) -> float:
    """About how many images are in a packed row, from the mix and typical lengths of texts."""
    mix, image = settings.mix, image_tokens + 2
    kinds = ((mix.text, TEXT, 0), (mix.caption, CAPTION, 1), (mix.text_to_image, CAPTION, 1), (mix.chat, CHAT, 1))
    length = sum(share * (words + image * has) for share, words, has in kinds)
    images = sum(share * has for share, _, has in kinds)
    return settings.row_length * images / length


def language_stage(recipe: LanguageRecipe, name: LanguageStageName) -> tuple[Stage, LanguageCosts]:
    """The costs of a stage of a recipe.

    Raises:
        ValueError: sizes of a part are not known.
    """
    settings = recipe.stage(name)
    config = model_config(recipe)
    costs = LanguageCosts(config, settings.task, settings.row_length)
    images = images_per_row(settings, config.vocabulary.image_tokens)
    visual = min(settings.row_length, round(images * config.vocabulary.image_tokens))
    flops = costs.flops(labels=settings.row_length, visual=visual)
    notes = [f"about {images:.1f} images in a row, and a label at every position"]
    if name == "align":
        flops = {"adapter": flops["adapter"]}
        notes = ["no layer of the language model runs"]
    if not recipe.records.pretokenize or recipe.continuous:
        flops["image tokenizer (frozen)"] = images * encoding_flops(config.tokenizer_config)
        notes.append("images are tokenized in every step")
    parts = [Part(part, total, trained, flops.get(part, 0.0)) for part, (total, trained) in costs.parameters.items()]
    stage = Stage(
        name=name,
        steps=settings.loop.steps,
        batch_size=settings.loop.batch_size,
        accumulation=settings.loop.accumulation,
        unit="rows",
        images=images,
        parts=tuple(parts),
        recompute=settings.task.checkpoint_activations,
        assumptions=tuple(notes),
    )
    return stage, costs
