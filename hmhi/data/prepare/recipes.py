"""The converters by name."""

from __future__ import annotations

from collections.abc import Mapping

from hmhi.data.prepare import davis16, davsod, duts, fbms, longvideos, visal, ytobj, ytvos
from hmhi.data.prepare.recipe import Recipe

RECIPES: Mapping[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (ytvos, davis16, fbms, ytobj, davsod, visal, longvideos, duts)
}
