"""Makes `worker/vocabulary/concepts.tsv` and the detector's labels, of WordNet's nouns and the curated files.

apt-get install wordnet-base
python scripts/make_vocabulary.py            # writes the files
python scripts/make_vocabulary.py --check    # exit status 1 where one differs; skipped where WordNet is absent
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "worker" / "vocabulary"
LABELS = FOLDER.parent / "models" / "labels" / "imagenet.txt"
COCO = LABELS.with_name("coco.txt")
WORDNET_NOUNS = Path(os.environ.get("WORDNET_NOUNS", "/usr/share/wordnet/data.noun"))
Row = tuple[str, str, list[str]]


def rows(name: str, cells: int) -> list[list[str]]:
    """The lines of a curated file, cut at `|`, each with `cells` cells."""
    found = []
    for number, line in enumerate((FOLDER / name).read_text(encoding="utf-8").splitlines(), start=1):
        if line and not line.startswith("#"):
            row = [cell.strip() for cell in line.split("|")]
            if len(row) > cells:
                raise SystemExit(f"{name}, line {number}: {len(row)} cells, at most {cells} wanted")
            found.append(row + [""] * (cells - len(row)))
    return found


def listed(cell: str) -> list[str]:
    """The items of a cell, which are separated by commas."""
    return [item.strip() for item in cell.split(",") if item.strip()]


def hypernyms() -> dict[str, list[str]]:
    """For every noun of WordNet its direct hypernyms, by id. See wndb(5WN): words, then pointers of four fields."""
    found = {}
    for line in WORDNET_NOUNS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split(" | ")[0].split(" ")
            pointers = fields[5 + 2 * int(fields[3], 16) :]
            pairs = zip(pointers[0::4], pointers[1::4], strict=False)
            found[f"n{fields[0]}"] = [f"n{target}" for symbol, target in pairs if symbol in {"@", "@i"}]
    return found


def and_above(one: str, parents: dict[str, list[str]]) -> set[str]:
    """A concept itself and everything above it."""
    seen: set[str] = set()
    left = [one]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left.extend(parents[one])
    return seen


def direct(on: set[str], parents: dict[str, list[str]]) -> set[str]:
    """Those of some nodes that are above none of the others."""
    return {name for name in on if not any(name in and_above(other, parents) for other in on - {name})}


def concept_id(wordnet_id: str) -> str:
    """`n02123159` as a concept's id, `wn:02123159-n`."""
    return f"wn:{wordnet_id[1:]}-n"


def labels_below(row: list[str], labels: dict[str, str], lineage: dict[str, set[str]]) -> set[str]:
    """The WordNet ids of the labels that a node's line names."""
    subtrees = set(listed(row[3]))
    by_name = {name: wordnet_id for wordnet_id, name in labels.items()}
    unknown = [name for name in listed(row[4]) + listed(row[5]) if name not in by_name]
    if unknown:
        raise SystemExit(f"nodes.txt, {row[1]}: no label is called {', '.join(unknown)}; see {LABELS.name}")
    below = {wordnet_id for wordnet_id in labels if lineage[wordnet_id] & subtrees}
    return (below | {by_name[name] for name in listed(row[4])}) - {by_name[name] for name in listed(row[5])}


def made() -> str:
    """The text of concepts.tsv."""
    labels = dict(line.split("\t") for line in LABELS.read_text(encoding="utf-8").splitlines())
    above = hypernyms()
    lineage = {wordnet_id: and_above(wordnet_id, above) for wordnet_id in labels}
    nodes = rows("nodes.txt", 6)
    ids = {row[1]: row[0] for row in nodes}
    parents = {row[1]: listed(row[2]) for row in nodes}
    below = {row[1]: labels_below(row, labels, lineage) for row in nodes}
    out: list[Row] = [(row[0], "node", [ids[name] for name in parents[row[1]]]) for row in nodes]
    for wordnet_id in labels:
        on = {name for name in ids if wordnet_id in below[name]}
        out.append((concept_id(wordnet_id), "label", sorted(ids[name] for name in direct(on, parents))))
    for name, same, true in rows("coco.txt", 3):
        if not same:  # else that is the concept
            true_too = direct(set(listed(true)), parents)
            out.append((coco_id(name), "object", sorted(ids[one] for one in true_too)))
    for name, group in rows("kinds.txt", 2):
        out.append((f"kind:{name}", "image_kind", [f"kind:{group}"] if group else []))
    lines = ["# Made by scripts/make_vocabulary.py; do not edit. id, kind, direct parents."]
    return "\n".join(lines + ["\t".join([one, kind, " ".join(up)]).rstrip("\t") for one, kind, up in out]) + "\n"


def coco_labels() -> str:
    """The text of the detector's label file: of each class the concept; a node's or label's where there is one."""
    labels = (line.split("\t") for line in LABELS.read_text(encoding="utf-8").splitlines())
    ids = {name: concept_id(wordnet_id) for wordnet_id, name in labels}
    ids |= {row[1]: row[0] for row in rows("nodes.txt", 6)}
    lines = []
    for name, same, _ in rows("coco.txt", 3):
        lines.append(f"{ids[same] if same else coco_id(name)}\t{same or name}")
    return "\n".join(lines) + "\n"


def coco_id(name: str) -> str:
    """The id of a class that is no node."""
    return f"coco:{name.replace(' ', '-')}"


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    if not WORDNET_NOUNS.exists():
        print(f"{WORDNET_NOUNS} is absent (Debian: wordnet-base)" + ("; the check is skipped" if check else ""))
        raise SystemExit(0 if check else 2)
    for target, text in ((FOLDER / "concepts.tsv", made()), (COCO, coco_labels())):
        if not check:
            target.write_text(text, encoding="utf-8")
        elif target.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{target.name} differs from what this script makes; run it without --check")
        print(f"{target.name}: as made" if check else f"{target.name} written")


if __name__ == "__main__":
    main()
