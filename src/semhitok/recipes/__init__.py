"""Complete training recipes, as functions that return typed values; ``semhitok train NAME`` runs them."""

from collections.abc import Callable

from semhitok.recipes.mini import mini
from semhitok.recipes.nano import nano
from semhitok.recipes.paper import semhitok_256, semhitok_256_m8, semhitok_384
from semhitok.recipes.recipe import STAGES, Recipe, Stage
from semhitok.recipes.stages import enhance_decoder, is_done, run_stages

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (nano, mini, semhitok_256, semhitok_256_m8, semhitok_384)
}

__all__ = ["RECIPES", "STAGES", "Recipe", "Stage", "enhance_decoder", "is_done", "run_stages"]
