"""The photographs among the fetched images, and what they show.

Wallpaper packages contain mostly drawings and gradients; their photographs were selected by hand and are listed here.
GCompris' photographs are named by their subject, so listing their folders suffices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MATE = "mate-backgrounds"
PLASMA = "plasma-workspace-wallpapers"
LOMIRI = "lomiri-wallpapers-16.04"
LOMIRI_20 = "lomiri-wallpapers-20.04"
LXQT = "lxqt-themes"
GCOMPRIS = "gcompris-qt-data"


# How a package's copyright file names the picture PATH of the unpacked package: (installed folder, upstream folder).
# LXQt's images have their own licence file (CC-BY-SA-3.0), which the copyright file does not repeat.
UPSTREAM_FOLDERS = {
    MATE: ("usr/share/backgrounds/mate/", ""),
    PLASMA: ("usr/share/wallpapers/", ""),
    LOMIRI: ("usr/share/backgrounds/", "16.04/"),
    LOMIRI_20: ("usr/share/backgrounds/", "20.04/"),
    GCOMPRIS: ("gcompris/", ""),
}


@dataclass(frozen=True)
class Listed:
    """A photograph of a wallpaper package.

    Attributes:
        source: name of the package.
        path: path inside the unpacked package.
        description: noun phrase.
        subjects: things that may be visible in it, which no question may deny.
    """

    source: str
    path: str
    description: str
    subjects: tuple[str, ...] = ()


def _mate(name: str, description: str, *subjects: str) -> Listed:
    return Listed(MATE, f"usr/share/backgrounds/mate/nature/{name}.jpg", description, subjects)


def _plasma(name: str, description: str, *subjects: str) -> Listed:
    return Listed(PLASMA, f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg", description, subjects)


def _lomiri(name: str, description: str, *subjects: str) -> Listed:
    return Listed(LOMIRI, f"usr/share/backgrounds/{name}.jpg", description, subjects)


def _lxqt(name: str, description: str, *subjects: str) -> Listed:
    return Listed(LXQT, f"usr/share/lxqt/wallpapers/{name}", description, subjects)


LISTED: tuple[Listed, ...] = (
    _mate("Aqua", "rippled water", "drop"),
    _mate("Blinds", "a green leaf", "leaf"),
    _mate("Dune", "dune grass by the sea", "grass", "sea"),
    _mate("FreshFlower", "an orange flower", "flower", "plant"),
    _mate("Garden", "a red flower in a garden", "flower", "garden", "plant"),
    _mate("GreenMeadow", "green grass", "grass"),
    _mate("LadyBird", "blue flowers with a ladybug", "ladybug", "flower", "plant"),
    _mate("RainDrops", "wet green leaves", "leaf", "plant", "drop"),
    _mate("Storm", "dark clouds over a road", "cloud", "road"),
    _mate("TwoWings", "dandelion seeds among orange flowers", "flower", "seed", "plant"),
    _mate("Wood", "pale wood", "wood"),
    _mate("YellowFlower", "a yellow flower", "flower", "plant"),
    _plasma("BytheWater", "wooden planks by the water", "wood", "sea"),
    _plasma("ColdRipple", "a pier in fog", "pier"),
    _plasma("ColorfulCups", "rows of blue cups", "cup"),
    _plasma("DarkestHour", "a lake at night", "lake", "tree"),
    _plasma("EveningGlow", "rowing boats on a lake shore", "boat", "lake", "mountain"),
    _plasma("FallenLeaf", "fallen maple leaves", "leaf"),
    _plasma("Grey", "a ribbed white roof", "roof"),
    _plasma("Kite", "a kite in a blue sky", "kite", "cloud"),
    _plasma("OneStandsOut", "green moss plants", "plant"),
    _plasma("Path", "a path in a dark forest", "tree", "forest"),
    _plasma("summer_1am", "a calm lake at dusk", "lake"),
    _lomiri("Bridge_by_Sander_Klootwijk", "bridge cables under a blue sky", "bridge"),
    _lomiri("Dragonfly_by_Bolly", "a dragonfly on a branch", "dragonfly", "plant", "leaf"),
    _lomiri("Picture_0B_by_freespace", "a cut fig in a red bowl", "bowl", "fruit", "fig"),
    _lomiri("Picture_1A_by_freespace", "paint brushes", "brush", "paint brush"),
    _lomiri("Wine_by_Jakkub_Mede", "an old room with a hat", "hat", "bottle", "table"),
    _lomiri("aitzgorri_by_Aitzol_Berasategi", "autumn hills", "mountain", "tree"),
    _lomiri("free_by_Peter_Nerlich", "lamps on a ceiling", "lamp", "bulb"),
    _lomiri("friends_by_Aitzol_Berasategi", "dogs at a door", "dog", "door"),
    _lomiri("greentock_by_Peter_Nerlich", "a clock dial", "clock", "watch"),
    _lomiri("life_by_Aitzol_Berasategi", "a stream in a forest", "tree", "stream", "forest"),
    _lomiri("picosdeeuropa_by_Aitzol_Berasategi", "a snowy mountain", "mountain", "snow"),
    _lomiri("seeding_by_Clements_Engelhardt", "dandelions in a meadow", "flower", "plant"),
    _lomiri("sunset_by_Aitzol_Berasategi", "a sunset over rocks", "sun", "sunset", "rock"),
    Listed(LOMIRI_20, "usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg", "a nuthatch on a tree trunk", ("bird",
    "tree")),
    _lxqt("after-the-rain.jpg", "mountains after rain", "mountain", "cloud"),
    _lxqt("appleflower.png", "apple blossom", "flower", "blossom", "plant"),
    _lxqt("beam.png", "a sunbeam through clouds", "cloud", "sun"),
    _lxqt("butterfly.png", "a butterfly on a flower", "butterfly", "flower"),
    _lxqt("cloud.png", "small clouds", "cloud"),
    _lxqt("drop.png", "a drop on a blade of grass", "drop", "grass"),
    _lxqt("flowers.png", "a flower meadow", "flower", "plant"),
    _lxqt("fog.jpg", "fog over a field", "fog", "field"),
    _lxqt("this-is-not-windows.jpg", "a green landscape", "grass", "cloud", "tree"),
    _lxqt("Butterfly-Kenneth-Wimer.jpg", "a butterfly on a stem", "butterfly", "flower"),
)  # fmt: skip

# GCompris: (resource file, folder inside it, whether its pictures can lie behind cut-outs, what they show; "" = the
# file's name, subjects that every picture may show)
GCOMPRIS_FOLDERS: tuple[tuple[str, str, bool, str, tuple[str, ...]], ...] = (
    ("explore_monuments", "explore_monuments/resource/", True, "", ("building", "tower", "castle", "monument",
    "statue", "tree", "temple")),
    ("explore_world_animals", "explore_world_animals/resource/animals/", False, "", ("animal",)),
    ("explore_farm_animals", "explore_farm_animals/resource/animals/", False, "", ("animal",)),
    ("erase", "erase/resource/", False, "", ("animal",)),
    ("clickgame", "clickgame/resource/sea", True, "the sea floor", ("fish", "coral", "sea")),
    ("explore_world_music", "explore_world_music/resource/music/", False, "musicians", ("person", "instrument")),
    ("categorization", "images/renewable/dam", True, "a dam", ("building",)),
    ("categorization", "images/renewable/windmill", True, "a windmill", ("windmill", "building")),
    ("categorization", "images/renewable/solar", True, "solar panels", ("panel",)),
    ("categorization", "images/renewable/geo", True, "steam over the ground", ()),
    ("categorization", "images/monuments/", True, "", ("building", "tower", "castle", "monument", "statue", "tree")),
    ("categorization", "images/fishes/", False, "a fish", ("fish",)),
    ("categorization", "images/tools/", False, "", ("tool",)),
    ("categorization", "images/others/", False, "", ()),
)  # fmt: skip
GCOMPRIS_MINIMUM_PIXELS = 50_000  # smaller ones are icons


# File names that differ from what the image shows.
_RENAMED = {"buffetset": "cup and saucer", "black slate": "blackboard", "blackslate": "blackboard"}


def subject_from_name(stem: str) -> str:
    """'statueofLiberty' -> 'statue of liberty', 'hammer3' -> 'hammer', 'red_panda' -> 'red panda'."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", stem)).replace("_", " ").lower()
    words = re.sub(r"\b([a-z]{4,})(of|de|du|des)\b", r"\1 \2", words)
    words = " ".join(words.split())
    return _RENAMED.get(words, words)
