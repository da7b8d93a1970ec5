"""Recipes: frozen, hashable descriptions of an episode, each with its source.

`recipe` says what one is; the others name those of one system each, as its paper says and as its published
code does, because they differ, and `named` all of them. What a paper leaves open is chosen here, told in
``choices`` and part of the recipe's identity.
"""

from videogym.recipes.eva import EVA_CODE
from videogym.recipes.named import (
    DEFAULT,
    FIND,
    LONGVT,
    LONGVT_CODE,
    LONGVT_TINY,
    VIDEO_MTR,
    VIDEO_MTR_CODE,
    VIDEO_MTR_TINY,
    get_recipe,
    longvt,
    recipe_names,
    video_mtr,
)
from videogym.recipes.paravt import PARAVT, PARAVT_CODE
from videogym.recipes.recipe import Recipe
from videogym.recipes.video_zoomer import VIDEO_ZOOMER, VIDEO_ZOOMER_CODE

__all__ = [
    "DEFAULT",
    "EVA_CODE",
    "FIND",
    "LONGVT",
    "LONGVT_CODE",
    "LONGVT_TINY",
    "PARAVT",
    "PARAVT_CODE",
    "VIDEO_MTR",
    "VIDEO_MTR_CODE",
    "VIDEO_MTR_TINY",
    "VIDEO_ZOOMER",
    "VIDEO_ZOOMER_CODE",
    "Recipe",
    "get_recipe",
    "longvt",
    "recipe_names",
    "video_mtr",
]
