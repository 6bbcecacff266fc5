"""From the titles that come with clip-art to concept names, and from concept names to the groups that splits keep together."""

from __future__ import annotations

import html
import re
import unicodedata

MAXIMUM_WORDS = 4

# Words in titles that describe the drawing or the collection, not the thing drawn.
_DRAWING_WORDS = frozenset(
    """a an the simple cartoon clip clipart art icon iconset icons image picture stylized stylised style vector drawing drawn hand-drawn sketch
    symbol sign silhouette outline contour shape generic black white bw colour color coloured colored new another yet set big little small
    heavy md normal plain various modified version illustration logo cool funny fancy blank form basic cute nice submission sibmission emblem
    very flat our theme svg font profile openclip contorno stilizzata semplice""".split()
)
# Titles of whole collections: the file name says more.
_COLLECTION = re.compile(
    r"^$|clip ?arts?\b|icons?\b|iconset|collection|submission|sibmission|unsorted|untitled|road signs|map symbols|hash\(|rollandin", re.I
)
_CUT = re.compile(r"\s+(?:with|of|in|on|at|from|behind|by|and|for|over|under|without|wearing|having|holding|,)\s+|[,:;(]")

# Italian titles of one large contributor, by first word(s); only plain objects.
_ITALIAN = {
    "acquila": "eagle", "aglio": "garlic", "albero": "tree", "antilope": "antelope", "armadillo": "armadillo", "ballerina": "ballerina",
    "barattolo": "jar", "bicicletta": "bicycle", "binocolo": "binoculars", "borsa": "bag", "bottiglia": "bottle", "bussola": "compass",
    "calamita": "magnet", "calcolatrice": "calculator", "camicia": "shirt", "canguro": "kangaroo", "casa": "house", "chalet": "chalet",
    "abitazione": "house", "cavalletta": "grasshopper", "cavallo": "horse", "cesto": "basket", "cestino": "basket", "chiave": "wrench",
    "cigno": "swan", "cinepresa": "movie camera", "clessidra": "hourglass", "coccinella": "ladybug", "coniglio": "rabbit",
    "dente": "tooth", "dino": "dinosaur", "dinosauro": "dinosaur", "elefante": "elephant", "fabbrica": "factory", "farfalla": "butterfly",
    "fata": "fairy", "fatina": "fairy", "ferro": "flat iron", "formichina": "ant", "formicona": "ant", "fuoco": "campfire",
    "gabbiano": "seagull", "gallo": "rooster", "gattina": "cat", "gatto": "cat", "gelato": "ice cream", "gufo": "owl",
    "lampada": "oil lamp", "leone": "lion", "lettera": "letter", "libellula": "dragonfly", "lucchetto": "padlock", "lucertola": "lizard",
    "lucertolona": "lizard", "lucertolone": "lizard", "lumaca": "snail", "macchina fotografica": "camera", "macchina caffe": "coffee machine",
    "mantide": "praying mantis", "mazzo di fiori": "bouquet", "medicina": "medicine", "microscopio": "microscope", "moschito": "mosquito",
    "mongolfiera": "hot air balloon", "orologio": "wristwatch", "orso": "bear", "pacco": "gift", "palloncini": "balloons",
    "pallone aerestatico": "hot air balloon", "pannocchia": "corn", "pecora": "sheep", "peperoncino": "chili pepper", "pera": "pear",
    "pesca": "peach", "pescetto": "fish", "pinguino": "penguin", "pollo": "chicken", "poltrona": "armchair", "pomodori": "tomatoes",
    "portafoglio": "wallet", "proiettore": "projector", "ragnetto": "spider", "ragno": "spider", "ramarro": "lizard", "rana": "frog",
    "ravanello": "radish", "rhinoceros": "rhinoceros", "ruota dentata": "gear", "secchio": "bucket", "sedia": "chair",
    "siringa": "syringe", "stambecco": "ibex", "stampante": "printer", "tacchino": "turkey", "tavolozza": "palette", "tazza": "cup",
    "teiera": "teapot", "telecamera": "camera", "telefono": "telephone", "televisore": "television", "telecomando": "remote control",
    "tenda": "tent", "tigre": "tiger", "topo": "mouse", "torta": "cake", "trattore": "tractor", "uccello": "bird", "sega": "saw",
    "vacca": "cow", "valigie": "suitcases", "zanzara": "mosquito", "zucca": "pumpkin", "finestra": "", "libro": "book", "scodella": "bowl",
    "lattine": "cans", "prugna": "plum", "la prugna": "plum", "anelli": "rings", "toro": "bull", "tavolo": "table", "sapone": "soap",
    "pennello": "paint brush", "casco": "helmet", "pace": "", "pattinatrice": "skater", "subacqueo": "diver", "sub": "diver",
}  # fmt: skip

_ALIASES = {
    "bunny": "rabbit", "kitty": "cat", "kitten": "cat", "doggy": "dog", "puppy": "dog", "auto": "car", "automobile": "car", "aubergine": "eggplant",
    "hocho": "kitchen knife", "aeroplane": "airplane", "plane": "airplane", "bike": "bicycle", "cycle": "bicycle", "tv": "television",
    "cellphone": "mobile phone", "cell phone": "mobile phone", "handphone": "mobile phone", "phone": "telephone", "gift": "present",
    "wrapped present": "present", "burger": "hamburger", "tux": "penguin", "lady beetle": "ladybug", "ladybird": "ladybug",
    "racehorse": "horse", "lightbulb": "light bulb", "electric light bulb": "light bulb", "prune": "plum", "pasteque": "watermelon",
    "glace": "ice cream", "mushrom": "mushroom", "sailboat": "sailing boat", "magnifing glass": "magnifying glass", "telephon": "telephone",
    "dophin": "dolphin", "moons": "moon", "homes": "house", "home": "house", "smiley": "smiling face", "notebook": "laptop", "glasses": "eyeglasses",
    "carp": "fish", "coffe": "coffee", "baloon": "balloon", "thunderbolt": "lightning", "high voltage": "lightning", "jack-o-lantern": "pumpkin",
}  # fmt: skip

_SINGULAR_ALREADY = frozenset(
    "glass bus octopus cactus lotus walrus hippopotamus rhinoceros compass dress cross chess news tennis lens gas christmas iris bass moss grass "
    "platypus stethoscope abacus canvas circus crocus eucalyptus virus asparagus hibiscus scissors pants jeans glasses binoculars".split()
)
_GENERIC_HEADS = frozenset(
    "face man woman person people hand boy girl child adult sign symbol thing mark guy lady baby eyes head finger fingers button worker box".split()
)


def clean_title(title: str, file_name: str) -> str:
    """A concept name from a title, or from the file name where the title names a collection; '' if nothing usable remains."""
    for text in (title, file_name):
        text = html.unescape(text)
        text = text.split(" - ")[0] if " - " in text and not text.lower().startswith("clip") else text
        if not _COLLECTION.search(text):
            name = _plain(text)
            if name:
                return name
    return ""


def english(title: str) -> str:
    """The concept of an Italian title, '' if it is not in the table."""
    words = _plain(title, keep_all=True).split()
    for length in (2, 1):
        found = _ITALIAN.get(" ".join(words[:length]))
        if found is not None:
            return found
    return ""


def _plain(text: str, keep_all: bool = False) -> str:
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"\(.*?\)|&#\d+;", " ", text).replace("_", " ").replace("/", " ")
    text = re.sub(r"(?<=[a-z])(?=\d)|#", " ", text)
    words = [word.strip("-.'!?\"") for word in re.split(r"\s+", re.sub(r"[^a-z0-9' -]", " ", text)) if word.strip("-.'!?\"")]
    words = [word for word in words if not any(letter.isdigit() for letter in word) and (len(word) > 2 or word in ("ox", "of", "in", "on"))]
    if not keep_all:
        words = [word for word in words if word not in _DRAWING_WORDS]
        if not 1 <= len(words) <= MAXIMUM_WORDS or words[-1] in ("of", "in", "on", "and", "with", "one", "two"):
            return ""
    return canonical(" ".join(words))


def canonical(name: str) -> str:
    """Common synonyms to one name, the last word in the singular ('two red apples' style plurals become one concept)."""
    name = " ".join(name.split())
    name = _ALIASES.get(name, name)
    *first, last = name.split() or [""]
    name = " ".join([*first, singular(last)])
    return _ALIASES.get(name, name)


def singular(word: str) -> str:
    """English singular by rule; irregular words that matter here are listed."""
    if word in _SINGULAR_ALREADY or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "sses", "toes")):
        return word[:-2]
    if word in ("leaves", "knives", "loaves", "wolves"):
        return {"leaves": "leaf", "knives": "knife", "loaves": "loaf", "wolves": "wolf"}[word]
    return word[:-1]


def group(concept: str) -> str:
    """What splits keep together: the head noun ('grey wolf' and 'wolf' share one), or the whole name where the head says little."""
    trunk = _CUT.split(concept)[0].split() or [concept]
    head = _ALIASES.get(singular(trunk[-1]), singular(trunk[-1]))
    return concept if head in _GENERIC_HEADS else head


def content_words(concept: str) -> frozenset[str]:
    """Singular words of a name, without the generic ones: what must not be shared between two sides of a split."""
    words = (singular(word) for word in re.split(r"[^a-z]+", concept) if len(word) > 2)
    return frozenset(word for word in words if word not in _GENERIC_HEADS and word not in _DRAWING_WORDS)


def with_article(concept: str) -> str:
    """'a horse', 'an owl', 'scissors': the name as a noun phrase."""
    last = _CUT.split(concept)[0].split()[-1]
    plural = last in ("scissors", "pants", "jeans", "glasses", "eyeglasses", "binoculars", "people", "news", "fries", "eyes")
    return concept if plural else f"{'an' if concept[0] in 'aeiou' and not concept.startswith(('uni', 'eu', 'one')) else 'a'} {concept}"


def plural(concept: str) -> str:
    """'horses', 'boxes', 'hearts on fire': several of them."""
    cut = _CUT.search(concept)
    if cut:
        return plural(concept[: cut.start()]) + concept[cut.start() :]
    *first, last = concept.split()
    irregular = {"sheep": "sheep", "fish": "fish", "deer": "deer", "mouse": "mice", "man": "men", "woman": "women", "person": "people",
                 "child": "children", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "goose": "geese", "tooth": "teeth",
                 "foot": "feet", "loaf": "loaves", "tomato": "tomatoes", "potato": "potatoes"}  # fmt: skip
    if last in irregular:
        last = irregular[last]
    elif last in _SINGULAR_ALREADY and last.endswith("s") and last in ("scissors", "pants", "jeans", "glasses", "binoculars"):
        pass
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh", "z")):
        last += "es"
    else:
        last += "s"
    return " ".join([*first, last])
