"""Sizes of the models that recipes name by hub id, as published, so that a plan downloads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from semhitok.recipes.recipe import BUILT_IN_TEACHER, Recipe
from semhitok.storage.foreign_code import load_without_foreign_code
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig

# Vision halves.
TOWERS: dict[str, dict[str, Any]] = {
    "google/siglip-large-patch16-256": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 256,
        "patch_size": 16,
    },
    "google/siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}

_QWEN: dict[str, Any] = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}
_VICUNA: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_SMOLLM: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def language_config(name: str) -> PreTrainedConfig:
    """Configuration of a causal language model: a known one, or that of a folder.

    Raises:
        ValueError: neither.
    """
    match name:
        case "Qwen/Qwen2.5-7B-Instruct":
            return Qwen2Config(**_QWEN)
        case "lmsys/vicuna-7b-v1.5":
            return LlamaConfig(**_VICUNA)
        case "smollm2-135m-instruct":
            return LlamaConfig(**_SMOLLM)
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
