"""Whether it is one image that runs a container out of memory, or whether there is too little of it. Pure.

A decoder that was killed from outside shows nothing about its image, which waits and comes back: a round. A round is
evidence against it when, since its round before, the same decoders have done other images, and none of these had been
killed: then memory is short for this image alone. Another that is always killed too proves nothing in its favour.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

EVIDENT_ROUNDS = 3
"""After as many rounds that are evidence, the image is to blame."""

OTHERS = 10
"""Images that have to be done between two rounds, or the second one is no evidence."""

_FIRST_WAIT_S = 60.0
_LONGEST_WAIT_S = 3600.0
_MAXIMUM_IMAGES = 1000
_MAXIMUM_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Round:
    """What a round has shown. `others` were done since the round before, and the image comes back after `wait_s`."""

    number: int
    to_blame: bool
    wait_s: float
    others: int


@dataclass(slots=True)
class _Rounds:
    number: int = 0
    evident: int = 0
    done_before: int = 0
    survived_before: int = 0


class KillsFromOutside:
    """The images whose decoders were killed from outside, by name; the latest thousand of them are remembered."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, _Rounds] = OrderedDict()
        self._done = 0
        self._survived = 0

    def knows(self, image: str) -> bool:
        """Whether there was a round of this image, and it has not been done since."""
        return image in self._images

    def on_done(self, image: str, kills: int) -> None:
        """An image was done, after so many kills. One that was killed before shows that memory is short for others."""
        self._done += 1
        if self._images.pop(image, None) or kills:
            self._survived += 1

    def on_round(self, image: str) -> Round:
        """An image is given up for now. One that is to blame is forgotten."""
        rounds = self._images.setdefault(image, _Rounds())
        self._images.move_to_end(image)
        if len(self._images) > _MAXIMUM_IMAGES:
            self._images.popitem(last=False)
        others = self._done - rounds.done_before if rounds.number else 0
        if others >= OTHERS and self._survived == rounds.survived_before:
            rounds.evident += 1
        rounds.number += 1
        rounds.done_before, rounds.survived_before = self._done, self._survived
        wait_s = min(_FIRST_WAIT_S * 2 ** min(rounds.number - 1, _MAXIMUM_DOUBLINGS), _LONGEST_WAIT_S)
        to_blame = rounds.evident >= EVIDENT_ROUNDS
        if to_blame:
            del self._images[image]
        return Round(rounds.number, to_blame, wait_s, others)
