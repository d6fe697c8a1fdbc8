"""Makes `worker/models/labels/imagenet.txt`: WordNet ids of the ImageNet classes and a readable name for each.

    apt-get install wordnet-base
    pip download --no-deps timm && unzip -p timm-*.whl timm/data/_info/imagenet_synsets.txt > ids.txt
    python scripts/make_imagenet_labels.py ids.txt > worker/models/labels/imagenet.txt

The ids are a fact about the data set (the 1,000 classes of ILSVRC 2012, sorted); the names come from WordNet 3.0.
"""

from __future__ import annotations

import sys
from pathlib import Path

WORDNET_NOUNS = Path("/usr/share/wordnet/data.noun")

# Where WordNet's first word means something else to most people, or two classes share it.
RENAMED = {
    "n01514668": "cock (bird)",
    "n01580077": "jay (bird)",
    "n01608432": "kite (bird)",
    "n01631663": "eft (newt)",
    "n01776313": "tick (arachnid)",
    "n01817953": "African grey parrot",
    "n01847000": "drake (duck)",
    "n01945685": "slug (mollusc)",
    "n01955084": "chiton (mollusc)",
    "n02012849": "crane (bird)",
    "n02096177": "cairn terrier",
    "n02098413": "Lhasa apso",
    "n02105412": "kelpie (dog)",
    "n02108089": "boxer (dog)",
    "n02111277": "Newfoundland dog",
    "n02112137": "chow chow",
    "n02113186": "Cardigan Welsh corgi",
    "n02276258": "admiral (butterfly)",
    "n02277742": "ringlet butterfly",
    "n02328150": "Angora rabbit",
    "n02389026": "sorrel (horse)",
    "n02412080": "ram (sheep)",
    "n02415577": "bighorn sheep",
    "n02492035": "capuchin monkey",
    "n02493509": "titi monkey",
    "n02536864": "coho salmon",
    "n02641379": "gar (fish)",
    "n02655020": "pufferfish",
    "n02704792": "amphibious vehicle",  # amphibian
    "n02797295": "wheelbarrow",  # barrow
    "n02814860": "lighthouse",  # beacon
    "n02817516": "bearskin (hat)",
    "n02840245": "ring binder",  # binder
    "n02879718": "bow (weapon)",
    "n02892201": "brass plaque",
    "n03014705": "chest (box)",
    "n03047690": "clog (shoe)",
    "n03089624": "confectionery shop",
    "n03126707": "crane (machine)",
    "n03216828": "dock (harbour)",
    "n03250847": "drumstick (percussion)",
    "n03459775": "radiator grille",  # grille
    "n03584829": "iron (appliance)",
    "n03673027": "ocean liner",  # liner
    "n03680355": "loafer (shoe)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
    "n03761084": "microwave oven",
    "n03782006": "monitor (display)",
    "n03786901": "mortar (bowl)",
    "n03803284": "muzzle (for animals)",
    "n03804744": "nail (fastener)",
    "n03825788": "nipple (baby bottle)",
    "n03832673": "notebook computer",
    "n03854065": "organ (instrument)",
    "n03929660": "plectrum",  # pick
    "n03930630": "pickup truck",
    "n03947888": "pirate ship",
    "n03950228": "pitcher (vessel)",
    "n03954731": "plane (tool)",
    "n03991062": "flowerpot",  # pot
    "n04037443": "race car",  # racer
    "n04039381": "racket (sports)",
    "n04118776": "ruler",
    "n04141076": "saxophone",
    "n04141975": "scale (weighing)",
    "n04152593": "screen (display)",
    "n04243546": "slot machine",
    "n04325704": "stole (garment)",
    "n04372370": "electric switch",  # switch
    "n04399382": "teddy bear",
    "n04515003": "upright piano",
    "n04517823": "vacuum cleaner",
    "n04523525": "vault (arch)",
    "n04554684": "washing machine",  # washer
    "n04592741": "wing (aircraft)",
    "n07613480": "trifle (dessert)",
    "n10148035": "bridegroom",  # groom
    "n12620546": "rose hip",  # hip
    "n13133613": "ear (cereal)",
}


def first_words() -> dict[str, str]:
    """WordNet's first word for every noun, by id. See wndb(5WN): offset, file, type, word count in hex, words."""
    words = {}
    for line in WORDNET_NOUNS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            offset, _file, _type, _count, word = line.split(" ")[:5]
            words[f"n{offset}"] = word.replace("_", " ")
    return words


def main() -> None:
    """Print the label file for the ids in the file given."""
    words = first_words()
    for wordnet_id in sorted(Path(sys.argv[1]).read_text(encoding="utf-8").split()):
        print(f"{wordnet_id}\t{RENAMED.get(wordnet_id, words[wordnet_id])}")


if __name__ == "__main__":
    main()
