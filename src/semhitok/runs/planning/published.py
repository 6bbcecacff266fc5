"""Configurations of the models that recipes name by hub id, so that a plan downloads nothing."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from semhitok.recipes.recipe import BUILT_IN_TEACHER, Recipe
from semhitok.runs.planning.sizes import QWEN2_5_7B, SMOLLM2_135M, TOWERS, VICUNA_7B
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig


def language_config(name: str) -> PreTrainedConfig:
    """Configuration of a causal language model: a known one, or that of a folder.

    Raises:
        ValueError: neither.
    """
    match name:
        case "Qwen/Qwen2.5-7B-Instruct":
            return Qwen2Config(**QWEN2_5_7B)
        case "lmsys/vicuna-7b-v1.5":
            return LlamaConfig(**VICUNA_7B)
        case "smollm2-135m-instruct":
            return LlamaConfig(**SMOLLM2_135M)
    if (Path(name) / "config.json").is_file():
        return load_without_foreign_code(AutoConfig.from_pretrained, name)
    raise ValueError(f"the sizes of the language model {name} are not known here: name a folder with its config.json")


def teacher_config(recipe: Recipe) -> TeacherConfig:
    """Configuration of a recipe's teacher.

    Raises:
        ValueError: it is neither known nor a folder.
    """
    if recipe.teacher == BUILT_IN_TEACHER:
        return TeacherConfig.efficientnet_lite0(recipe.teacher_image_size)
    if recipe.teacher in TOWERS:
        tower: PreTrainedConfig = SiglipVisionConfig(**TOWERS[recipe.teacher])
    elif (Path(recipe.teacher) / "config.json").is_file():
        found = load_without_foreign_code(AutoConfig.from_pretrained, recipe.teacher)
        tower = getattr(found, "vision_config", found)
    else:
        raise ValueError(
            f"the sizes of the teacher {recipe.teacher} are not known here: name a folder with its config.json"
        )
    return TeacherConfig(tower, image_size=recipe.teacher_image_size, layer=recipe.teacher_layer)


def tokenizer_config(recipe: Recipe, *, enhanced: bool) -> SemHiTokConfig:
    """Configuration of the tokenizer that a recipe trains, with its last stage's decoder if ``enhanced``."""
    fields, larger = dict(recipe.model), recipe.enhanced_decoder
    if enhanced:
        fields |= {"decoder_layers": larger.layers, "decoder_width": larger.width, "decoder_heads": larger.heads}
    return SemHiTokConfig(teacher_config(recipe), **fields)
