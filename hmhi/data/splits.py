"""The videos of published train and test splits, for sets whose archives carry no list of their own."""

# fmt: off
# Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.
DAVIS16_TRAIN = (
    "bear", "bmx-bumps", "boat", "breakdance-flare", "bus", "car-turn", "dance-jump", "dog-agility", "drift-turn",
    "elephant", "flamingo", "hike", "hockey", "horsejump-low", "kite-walk", "lucia", "mallard-fly",
    "mallard-water", "motocross-bumps", "motorbike", "paragliding", "rhino", "rollerblade", "scooter-gray",
    "soccerball", "stroller", "surf", "swing", "tennis", "train",
)
DAVIS16_VAL = (
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows", "dance-twirl", "dog",
    "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf", "libby", "motocross-jump",
    "paragliding-launch", "parkour", "scooter-black", "soapbox",
)

# Ochs, Malik and Brox, "Segmentation of Moving Objects by Long Term Video Analysis", PAMI 2014.
FBMS_TRAIN = (
    "bear01", "bear02", "cars2", "cars3", "cars6", "cars7", "cars8", "cars9", "cats02", "cats04", "cats05",
    "cats07", "ducks01", "horses01", "horses03", "horses06", "lion02", "marple1", "marple10", "marple11",
    "marple13", "marple3", "marple5", "marple8", "meerkats01", "people04", "people05", "rabbits01", "rabbits05",
)
FBMS_TEST = (
    "camel01", "cars1", "cars10", "cars4", "cars5", "cats01", "cats03", "cats06", "dogs01", "dogs02", "farm01",
    "giraffes01", "goats01", "horses02", "horses04", "horses05", "lion01", "marple12", "marple2", "marple4",
    "marple6", "marple7", "marple9", "people03", "people1", "people2", "rabbits02", "rabbits03", "rabbits04",
    "tennis",
)
# fmt: on

PUBLISHED: dict[tuple[str, str], tuple[str, ...]] = {
    ("davis16", "train"): DAVIS16_TRAIN,
    ("davis16", "val"): DAVIS16_VAL,
    ("fbms", "train"): FBMS_TRAIN,
    ("fbms", "val"): FBMS_TEST,
}
"""(data set, split) -> its videos."""
