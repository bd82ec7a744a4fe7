"""The converters by name."""

from __future__ import annotations

from collections.abc import Mapping

from hmhi.data.prepare import davis16, davis17, davsod, duts, fbms, longvideos, stills, visal, ytobj, ytvos
from hmhi.data.prepare.recipe import Recipe

_ALL = (
    *(module.RECIPE for module in (ytvos, davis16, fbms, ytobj, davsod, visal, longvideos, duts, davis17)),
    *ytvos.OBJECT_RECIPES,
    *stills.RECIPES,
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
