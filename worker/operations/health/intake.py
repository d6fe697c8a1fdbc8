"""The gate: whether events are taken. One place decides, from what the children and the other workers are at.

Events are taken only while what they need is there. Each reason not to is a `Pause` with a name; the broker consumes
while there is none. The broker has reasons of its own, about publishing and about what is in hand, which stand beside
these in its state: readiness, status, page, metric and log read all of them there.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import suppress
from dataclasses import dataclass

from worker.amqp.broker import Broker
from worker.amqp.topology import Lane
from worker.engine import Active
from worker.errors import AutotagError
from worker.operations.health.status import Pause

PATIENCE_S = 2.0
"""A child that is missing for less than this is being replaced, and events wait for it in hand."""

START_S = 10.0
"""For so long after an engine was opened what is missing is starting; nothing is wrong yet."""

_UPDATE_EVERY_S = 1.0
_HELP_AFTER_S = 60.0
_HELP_FOR_S = 600.0
"""Where what waits has not become less in the first while this worker left it to others, it helps for the second:
they may lack the same, or be too few."""
_ASK_ABOUT_OTHERS_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision is made from.

    `decoders_missing_s` and `model_missing_s`: for how long no child of that kind has been ready, 0 while one is.
    `opened_s` ago the engine was opened; None once all of its children have been ready. `other_consumers`: how many
    other workers consume the same queues, as far as is known.
    """

    decoders_missing_s: float = 0.0
    model_missing_s: float = 0.0
    opened_s: float | None = None
    other_consumers: int = 0


def reasons_to_pause(active: Active, situation: Situation) -> dict[Pause, str]:
    """Every reason of the engine's to take no events now, each with a sentence for people. Pure."""
    if active.waits_for_a_switch:
        return {Pause.NOTHING_SWITCHED_ON: Pause.NOTHING_SWITCHED_ON.message}
    nobody = active.why_nothing_can_be_tagged()
    if nobody is not None:
        return {Pause.NOBODY_CAN_TAG: f"{Pause.NOBODY_CAN_TAG.message} ({nobody})"}
    found: dict[Pause, str] = {}
    if not active.tags_anything:
        return found
    model = active.engine.model
    model_missing = model is not None and model.disabled_reason is None and situation.model_missing_s > PATIENCE_S
    decoders_missing = situation.decoders_missing_s > PATIENCE_S
    if (model_missing or decoders_missing) and situation.opened_s is not None and situation.opened_s < START_S:
        found[Pause.STARTING] = Pause.STARTING.message
    else:
        if decoders_missing:
            found[Pause.NO_DECODER] = Pause.NO_DECODER.message
        if model_missing:
            found[Pause.MODEL_NOT_READY] = Pause.MODEL_NOT_READY.message
    if (lacking := active.lacking()) and situation.other_consumers:
        name, why = next(iter(lacking.items()))
        found[Pause.LEFT_TO_OTHERS] = f"{Pause.LEFT_TO_OTHERS.message} for the instance {name} ({why})"
    return found


class Intake:
    """Applies `reasons_to_pause` to the broker: at a notice of a child, and every second.

    Until there is an engine, the service is starting.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._active: Active | None = None
        self._pauses: dict[Pause, str] = {}
        self._decoders_seen_s = self._model_seen_s = -math.inf
        """When a ready child of the kind was last seen (monotonic)."""
        self._opened_at_s: float | None = None
        self._other_consumers = 0
        self._left_at_s: float | None = None
        """Since when events are left to others, or when was last looked at what came of it."""
        self._waiting_then = 0
        self._helps_until_s = -math.inf
        self._ask_about_others_at_s = 0.0
        self._updating = asyncio.Lock()

    def use(self, active: Active) -> None:
        """Decide about these settings and this engine from now on."""
        if self._active is None:
            self._opened_at_s = time.monotonic()
        self._active = active

    async def begin(self) -> None:
        """Take no events until there is an engine that can answer them."""
        self._pauses = {Pause.STARTING: Pause.STARTING.message}
        await self._broker.stop_consuming(Pause.STARTING, Pause.STARTING.message)

    async def keep_current(self) -> None:
        """Update every second, for as long as the service runs: some reasons arise and end by the clock alone."""
        while True:
            await self.update()
            await asyncio.sleep(_UPDATE_EVERY_S)

    async def update(self) -> None:
        """Have events taken if and only if nothing speaks against it. Returns when RabbitMQ has confirmed a change."""
        async with self._updating:
            if self._active is None:
                return
            found = reasons_to_pause(self._active, await self._situation(self._active, time.monotonic()))
            for pause, message in found.items():
                if self._pauses.get(pause) != message:
                    await self._broker.stop_consuming(pause, message)
            for pause in self._pauses.keys() - found.keys():
                await self._broker.resume_consuming(pause)
            self._pauses = found

    async def is_closed(self, lane: Lane) -> bool:
        """Look again, and return whether a lane is not consumed, for whatever reason.

        What is given back to its queue then does not return at once.
        """
        await self.update()
        return lane not in self._broker.state.lanes

    async def _situation(self, active: Active, now_s: float) -> Situation:
        engine = active.engine
        if engine.decoders.ready:
            self._decoders_seen_s = now_s
        if engine.model is None or engine.model.ready:
            self._model_seen_s = now_s
        if self._decoders_seen_s == self._model_seen_s == now_s:
            self._opened_at_s = None
        return Situation(
            now_s - self._decoders_seen_s,
            now_s - self._model_seen_s,
            None if self._opened_at_s is None else now_s - self._opened_at_s,
            await self._count_others(now_s) if active.lacking() else 0,
        )

    async def _count_others(self, now_s: float) -> int:
        """How many others there are to leave events to; none while they have to be helped.

        RabbitMQ is asked now and then, at irregular times: of two workers that lack the same, one goes on first.
        """
        if now_s >= self._ask_about_others_at_s:
            self._ask_about_others_at_s = now_s + _ASK_ABOUT_OTHERS_EVERY_S * random.uniform(1, 1.5)  # noqa: S311
            with suppress(AutotagError):  # not connected: then nothing is taken in any case
                found = (await self._broker.lane_levels()).values()
                self._other_consumers = max((level.consumers for level in found), default=0)
                self._look_what_becomes_of_it(sum(level.messages for level in found), now_s)
        return 0 if now_s < self._helps_until_s else self._other_consumers

    def _look_what_becomes_of_it(self, waiting: int, now_s: float) -> None:
        """Help the others for a while if what waits has not become less since it was left to them."""
        if not self._other_consumers or now_s < self._helps_until_s:
            self._left_at_s = None
        elif self._left_at_s is None or now_s >= self._left_at_s + _HELP_AFTER_S:
            if self._left_at_s is not None and waiting >= self._waiting_then > 0:
                self._helps_until_s = now_s + _HELP_FOR_S
            self._left_at_s, self._waiting_then = now_s, waiting
