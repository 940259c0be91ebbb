"""The words of pairing codes: 256 of them, so that each stands for one byte.

Short, common, easy to say on the telephone, and told apart by their first four
letters. The list is part of the protocol: its words may never change places.
"""

from typing import Final

__all__ = ["PAIRING_WORDS"]

_LIST: Final = """
    abacus acorn actor almond alpine amber anchor angle ankle apple apron arctic
    arrow atlas attic autumn avocado badge bagel bamboo banjo barley basil beacon
    beaver bishop blanket blossom bottle bridge bronze bubble bucket buffalo button
    cabin cactus camel candle canyon carbon castle cedar cello cherry chimney cinema
    circle clarinet clover cobalt coffee comet copper coral cotton cradle cricket
    crystal curtain daisy dancer delta denim desert diamond dolphin donkey dragon
    drummer eagle easel echo elbow ember engine envelope evening fabric falcon
    feather fennel ferry fiddle finger flamingo flute forest fossil fountain frost
    galaxy garden garlic gazelle ginger giraffe glacier globe goblet granite grape
    guitar hammer harbor hazel helmet heron hickory hockey honey horizon igloo
    indigo insect island ivory jacket jaguar jasmine jelly jersey jigsaw jungle
    kayak kernel kettle kingdom kitchen kiwi knight koala ladder lagoon lantern
    lavender lemon leopard library lilac linen lizard lobster locket lotus lumber
    lunar magnet mango maple marble meadow melon mermaid mirror mitten monsoon
    mosaic muffin museum mustard napkin nectar needle nickel noodle nutmeg oasis
    oatmeal ocean olive onion opera orbit orchid otter oyster paddle panda parsley
    pebble pelican pepper piano pigeon pillow planet plum pocket polar poppy prairie
    prism puddle pumpkin puzzle quartz quilt quiver rabbit raccoon radish raven reef
    ribbon river rocket rosemary saddle saffron salmon satin scarf season shadow
    shelter signal silver sketch slipper snow sparrow spiral spoon squirrel stable
    summer sunset tablet tango teapot temple thimble thunder tiger timber tomato
    topaz trumpet tulip tunnel turtle umbrella valley vanilla velvet violin volcano
    waffle walnut walrus willow window yogurt zebra zigzag
"""
PAIRING_WORDS: Final = tuple(_LIST.split())
