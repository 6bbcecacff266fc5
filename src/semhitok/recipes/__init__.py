"""Complete training recipes, as functions that return typed values; ``semhitok train NAME`` runs them."""

from collections.abc import Callable

from semhitok.recipes.mini import mini
from semhitok.recipes.nano import nano
from semhitok.recipes.paper import semhitok_256, semhitok_256_m8, semhitok_384
from semhitok.recipes.recipe import STAGES, Recipe, Stage
from semhitok.recipes.stages import enhance_decoder, is_done, run_stages
from semhitok.recipes.unitok import unitok_large, unitok_nano
from semhitok.recipes.unitok_recipe import UniTokRecipe
from semhitok.recipes.unitok_training import is_trained, run_unitok

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (nano, mini, semhitok_256, semhitok_256_m8, semhitok_384)
}

UNITOK_RECIPES: dict[str, Callable[[], UniTokRecipe]] = {
    recipe.__name__: recipe for recipe in (unitok_nano, unitok_large)
}

__all__ = [
    "RECIPES",
    "STAGES",
    "UNITOK_RECIPES",
    "Recipe",
    "Stage",
    "UniTokRecipe",
    "enhance_decoder",
    "is_done",
    "is_trained",
    "run_stages",
    "run_unitok",
]
