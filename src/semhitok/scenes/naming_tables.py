"""Word lists behind ``naming``: found by reading the titles of the fetched collections."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _names(text: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in text.split(","))


def _pairs(text: str) -> dict[str, str]:
    split = (entry.split(":") for entry in text.split(","))
    return {" ".join(name.split()): meaning.strip() for name, meaning in split}


# Words in titles that describe the drawing or the collection rather than the thing.
DRAWING_WORDS = _words(
    """
    a an another art basic big black blank bw cartoon clip clipart color colored colour coloured contorno contour
    cool cute drawing drawn emblem fancy flat font form funny generic hand-drawn heavy icon icons iconset
    illustration image little logo md modified new nice normal openclip our outline picture plain profile semplice
    set shape sibmission sign silhouette simple sketch small stilizzata style stylised stylized submission svg
    symbol the theme various vector version very white yet
    """
)

# Italian titles of one large contributor, by first word(s); only plain objects.
ITALIAN = _pairs(
    """
    acquila: eagle, aglio: garlic, albero: tree, antilope: antelope, armadillo: armadillo, ballerina: ballerina,
    barattolo: jar, bicicletta: bicycle, binocolo: binoculars, borsa: bag, bottiglia: bottle, bussola: compass,
    calamita: magnet, calcolatrice: calculator, camicia: shirt, canguro: kangaroo, casa: house, chalet: chalet,
    abitazione: house, cavalletta: grasshopper, cavallo: horse, cesto: basket, cestino: basket, chiave: wrench,
    cigno: swan, cinepresa: movie camera, clessidra: hourglass, coccinella: ladybug, coniglio: rabbit, dente: tooth,
    dino: dinosaur, dinosauro: dinosaur, elefante: elephant, fabbrica: factory, farfalla: butterfly, fata: fairy,
    fatina: fairy, ferro: flat iron, formichina: ant, formicona: ant, fuoco: campfire, gabbiano: seagull,
    gallo: rooster, gattina: cat, gatto: cat, gelato: ice cream, gufo: owl, lampada: oil lamp, leone: lion,
    lettera: letter, libellula: dragonfly, lucchetto: padlock, lucertola: lizard, lucertolona: lizard,
    lucertolone: lizard, lumaca: snail, macchina fotografica: camera, macchina caffe: coffee machine,
    mantide: praying mantis, mazzo di fiori: bouquet, medicina: medicine, microscopio: microscope,
    moschito: mosquito, mongolfiera: hot air balloon, orologio: wristwatch, orso: bear, pacco: gift,
    palloncini: balloons, pallone aerestatico: hot air balloon, pannocchia: corn, pecora: sheep,
    peperoncino: chili pepper, pera: pear, pesca: peach, pescetto: fish, pinguino: penguin, pollo: chicken,
    poltrona: armchair, pomodori: tomatoes, portafoglio: wallet, proiettore: projector, ragnetto: spider,
    ragno: spider, ramarro: lizard, rana: frog, ravanello: radish, rhinoceros: rhinoceros, ruota dentata: gear,
    secchio: bucket, sedia: chair, siringa: syringe, stambecco: ibex, stampante: printer, tacchino: turkey,
    tavolozza: palette, tazza: cup, teiera: teapot, telecamera: camera, telefono: telephone, televisore: television,
    telecomando: remote control, tenda: tent, tigre: tiger, topo: mouse, torta: cake, trattore: tractor,
    uccello: bird, sega: saw, vacca: cow, valigie: suitcases, zanzara: mosquito, zucca: pumpkin, finestra: ,
    libro: book, scodella: bowl, lattine: cans, prugna: plum, la prugna: plum, anelli: rings, toro: bull,
    tavolo: table, sapone: soap, pennello: paint brush, casco: helmet, pace: , pattinatrice: skater,
    subacqueo: diver, sub: diver
    """
)

# Other spellings, synonyms and typos, mapped to one name.
ALIASES = _pairs(
    """
    bunny: rabbit, kitty: cat, kitten: cat, doggy: dog, puppy: dog, auto: car, automobile: car, aubergine: eggplant,
    hocho: kitchen knife, aeroplane: airplane, plane: airplane, bike: bicycle, cycle: bicycle, tv: television,
    cellphone: mobile phone, cell phone: mobile phone, handphone: mobile phone, phone: telephone, gift: present,
    wrapped present: present, burger: hamburger, tux: penguin, lady beetle: ladybug, ladybird: ladybug,
    racehorse: horse, lightbulb: light bulb, electric light bulb: light bulb, prune: plum, pasteque: watermelon,
    glace: ice cream, mushrom: mushroom, sailboat: sailing boat, magnifing glass: magnifying glass,
    telephon: telephone, dophin: dolphin, moons: moon, homes: house, home: house, smiley: smiling face,
    glasses: eyeglasses, carp: fish, coffe: coffee, baloon: balloon, thunderbolt: lightning,
    high voltage: lightning, jack-o-lantern: pumpkin, jack-o'-lantern: pumpkin, icecube: ice cube, tomatoes: tomato,
    cans: can, balloons: balloon, balloons-aj: balloon, books-aj: book, computer-aj: computer, champignon: mushroom,
    fry: french fries, fries: french fries, french fry: french fries, fries: french fries, volley ball: volleyball,
    volley-ball: volleyball, pan cake: pancake, az-lizard: lizard, dog with straight line: dog,
    dream flower: flower, joystick red: joystick, lightbulb-lit: light bulb, mad ship: ship, pink-rose: pink rose,
    pin red: red pin, police man: policeman, brush roller: paint roller, digital-camera: digital camera,
    eddie helicopter: helicopter, large metal mallet: mallet, paintbrush: paint brush,
    large paintbrush: paint brush, bunch of grape: bunch of grapes, grape: bunch of grapes,
    cluster of grape: bunch of grapes, pen pencil: pen and pencil, short: shorts, wild summer short: shorts,
    mouse scroll: computer mouse, sunglass: sunglasses, hash brown: hash browns, plier: pliers,
    binocular: binoculars, video lcd: monitor, lcd: monitor, lcd monitor: monitor, xma: christmas tree,
    pop can: can, electric torch: flashlight, racquet: racket, chile pepper: chili pepper
    """
)

# Names that do not tell what is in the image.
UNCLEAR = _names(
    """
    adult, air, appooppan thaadi, arrow, baby of gnu, baby tux, boom, box with spring, boxcar used carry livestock,
    boy plays soccer, bread and wine, bug, building construction, butterfly from star, couple of wing, crystal,
    cymru flag, cymru flag wale, dead frog, down dock, easter, eat your broccoli, egg muffin, egg on muffin,
    enter cave, female, fireman alarm, fireman wedding, fishery, folder closed, folder open, fountain of youth,
    general, golf flag ball, green burner, happy boy, happy woman, heart arrow, heart cluster, heart-arrow,
    help book, help-books-aj, house of hunter, hoverfly resembles honeybee drone, hub, iris and pupil,
    island palm and sun, it's cep, keyboard key, knitting, magic stone, male, mar, martin luther king, mascot, mine,
    ninja tux, orange burner, otto, our, out of box, penguins are wining, people, plane in sky,
    plant of common lavender, pregnancy silhouette, profile, red and anemone flower, reminder hand, reminder-hand,
    ripe, road runner, rubber duck family swimming, rubik, running free, sailboat label, sailboat with label point,
    sailing running free, sailing sunset, screen, server, silhouette of japan, smoke, street,
    tankers carry bulk liquid, three eye, tool, transistor, tux airway, tux and spider, tux head, video, wedding,
    workstation, yellow scroll, yellow-scroll, yoga person
    """
)

# Not plurals, although they end in s.
SINGULAR_ALREADY = _words(
    """
    abacus asparagus bass binoculars browns bus cactus canvas chess christmas circus clothes compass crocus cross
    dress eucalyptus eyeglasses fries gas glass glasses grass headphones hibiscus hippopotamus iris jeans lens lotus
    mars moss news octopus pants platypus pliers rhinoceros scissors shorts stairs stethoscope sunglasses tennis
    virus walrus
    """
)

# Nouns without a singular: no article, and their own plural.
ALWAYS_PLURAL = _words(
    """
    binoculars browns clothes eyeglasses fries glasses jeans news pants people pliers scissors shorts sunglasses
    """
)

IRREGULAR_PLURALS = _pairs(
    """
    sheep: sheep, fish: fish, deer: deer, mouse: mice, man: men, woman: women, policeman: policemen, person: people,
    child: children, leaf: leaves, knife: knives, wolf: wolves, loaf: loaves, goose: geese, french fries: fry, shorts: short, bunch: grape, foot: feet,
    tomato: tomatoes, potato: potatoes
    """
)

# Head nouns of nearly the same thing, which splits keep in one group although they are different concepts.
SAME_GROUP = _pairs(
    """
    headstone: gravestone, tombstone: gravestone, marker: gravestone, graveyard: gravestone, honeybee: bee,
    padlock: lock, tramway: tram, chick: chicken, hen: chicken, rooster: chicken, wristwatch: watch, pushpin: pin,
    teacup: cup, mug: cup, computer: laptop, desktop: laptop, seagull: gull, pig: boar, doe: deer, caribou: deer,
    ram: sheep, drake: duck, gander: goose, bull: cow, calf: cow, cottage: hut, house: hut, chalet: hut,
    french fries: fry, shorts: short, bunch: grape, racquet: racket, motorbike: motorcycle, champagne: wine, postbox: mailbox,     hare: rabbit, wapiti: deer, bunny: rabbit, toadstool: mushroom, cep: mushroom, jack-o-lantern: pumpkin,
    blossom: flower, rose: flower, automobile: car, dromedary: camel, eyeglasses: glasses, sunglasses: glasses,
    necktie: tie, shoe: boot, sneaker: boot, bag: handbag
    """
)

# Generic head nouns, for which splits use the whole name.
GENERIC_HEADS = _words(
    """
    adult baby box boy button child eyes face finger fingers girl guy hand head lady man mark people person sign
    symbol thing woman worker
    """
)
