"""Near-duplicates: what providers answered about recent images, given again for an image that looks the same.

Kept in memory, for each instance by itself: nothing that one instance has sent ever shows in another's result. An
answer is given again only by the same model under the same settings. One that was given again is not remembered under
the new image, so that likeness is never handed on from image to image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.images.perceptual_hash import PerceptualHash
from worker.messages import ImageFacts
from worker.providers.base import Answer
from worker.tagging.hash_index import HashIndex

MAXIMUM_SUGGESTIONS = 32
"""A longer answer is not remembered, as of a threshold near 0: it would take most of the memory, and shows little."""

_MAXIMUM_OTHER_SHAPE = 0.03
_MAXIMUM_OTHER_SHAPE_OF_FAINT = 0.01
"""By how much the aspect ratios may differ, as a share."""

_MAXIMUM_OTHER_COLOUR = 16
_MAXIMUM_OTHER_COLOUR_OF_FAINT = 4
"""By how much the mean of red, green or blue may differ, of 255: the hash itself knows no colours."""

_MAXIMUM_OTHER_DETAIL = 12
"""In how many of the 256 bits of their detail faint pictures may differ. Of 600 generated pages and screenshots, none
of which was the same, those that were near by their hash, 1,160 of 45,000 pairs, differed in 14 and more; recompressed
and halved ones in 14 at most, 99 of 100 of them in no more than 12 or so."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What an image looks like: its perceptual hash, and its size as it is shown."""

    hash: PerceptualHash
    width: int
    height: int

    @classmethod
    def of(cls, hash_: PerceptualHash, facts: ImageFacts) -> Looks:
        """The looks of a decoded image."""
        return cls(hash_, facts.width, facts.height)

    def like(self, other: Looks) -> bool:
        """Whether pictures with near hashes are alike in shape and colour too, and faint ones in their detail."""
        mine, theirs = self.hash.detail, other.hash.detail
        if (mine is None) != (theirs is None):
            return False
        faint = mine is not None and theirs is not None
        if mine is not None and theirs is not None and (mine ^ theirs).bit_count() > _MAXIMUM_OTHER_DETAIL:
            return False
        one, another = self.width * other.height, other.width * self.height
        if abs(one - another) > max(one, another) * (_MAXIMUM_OTHER_SHAPE_OF_FAINT if faint else _MAXIMUM_OTHER_SHAPE):
            return False
        apart = max(abs(a - b) for a, b in zip(self.hash.colour, other.hash.colour, strict=True))
        return apart <= (_MAXIMUM_OTHER_COLOUR_OF_FAINT if faint else _MAXIMUM_OTHER_COLOUR)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was answered about an image before. `distance`: in how many bits the hash of the new one differs."""

    asset_id: str
    event_id: str
    distance: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Remembered:
    asset_id: str
    event_id: str
    looks: Looks
    answers: Mapping[str, tuple[str, Answer]]
    """By provider: all that an answer depends on besides the image, and the answer."""


@dataclass(slots=True)
class _OfInstance:
    images: OrderedDict[int, _Remembered] = field(default_factory=OrderedDict)
    """The least recently used first."""
    index: HashIndex = field(default_factory=HashIndex)


class NearDuplicates:
    """The memory, of at most `maximum` images in all. The least recently used are forgotten."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._instances: dict[str, _OfInstance] = {}
        self._ages: OrderedDict[int, str] = OrderedDict()
        """The instance of every image, the least recently used first."""
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._ages)

    def recall(
        self, instance: str, provider: str, depends_on: str, looks: Looks, maximum_distance: int
    ) -> Recalled | None:
        """What a provider has answered about the image that looks most like this one; of equal ones, about the oldest.

        That order gives an event that is handled again the same answer of the same image, if it is still there.
        """
        own = self._instances.get(instance)
        if own is None:
            return None
        for distance, number in sorted(own.index.near(looks.hash.bits, maximum_distance)):
            image = own.images[number]
            known_for, answer = image.answers.get(provider, ("", None))
            if answer is not None and known_for == depends_on and image.looks.like(looks):
                own.images.move_to_end(number)
                self._ages.move_to_end(number)
                return Recalled(image.asset_id, image.event_id, distance, answer)
        return None

    def remember(
        self,
        instance: str,
        asset_id: str,
        event_id: str,
        looks: Looks,
        answers: Mapping[str, tuple[str, Answer]],
        maximum: int,
    ) -> None:
        """Keep what providers have answered: by name, with what the answer depends on. At most `maximum` of them."""
        answers = {name: each for name, each in answers.items() if len(each[1].suggestions) <= MAXIMUM_SUGGESTIONS}
        if not answers:
            return
        self._last_number += 1
        own = self._instances.setdefault(instance, _OfInstance())
        own.images[self._last_number] = _Remembered(asset_id, event_id, looks, answers)
        own.index.add(self._last_number, looks.hash.bits)
        self._ages[self._last_number] = instance
        while len(own.images) > maximum:
            self._forget(next(iter(own.images)))
        if len(self._ages) > self._maximum:
            # Who has more than an equal share gives up an own one, so that a flood costs other instances nothing.
            over = len(own.images) > self._maximum // len(self._instances)
            self._forget(next(iter(own.images if over else self._ages)))

    def _forget(self, number: int) -> None:
        instance = self._ages.pop(number)
        own = self._instances[instance]
        del own.images[number]
        own.index.remove(number)
        if not own.images:
            del self._instances[instance]
