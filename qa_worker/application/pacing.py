"""How much may be sent to the workers, by what gate and limiter say: what can't leave waits in its row, untouched.

A row that a worker claims and puts back costs a claim, an attempt row and two commits, for nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from qa_worker.application.gateway import SERVICE
from qa_worker.application.limits import Gate, Limiter

PROBES = 2
"""Sent for each model when an open gate's time is up: one becomes the probe, the other stands by for a lost message."""


async def room_for(models: Collection[str], *, gate: Gate, limiter: Limiter, within_s: float) -> dict[str, int]:
    """How many more evaluations of each model can leave within `within_s` seconds; see `Pace`.

    While Redis is away nobody knows what the workers find, and nothing is held back here.
    """
    if not models:
        return {}
    status = await gate.status(SERVICE)
    if not status.shared:
        return {}
    if status.share <= 0:
        return dict.fromkeys(models, 0 if status.open_for_s > 0 else PROBES)
    rooms = {model: await limiter.room(model, within_s=within_s, share=status.share) for model in models}
    # Rounded up: limits of a few requests a minute never have room for a whole one within a second or two.
    return {model: ceil(room) for model, room in rooms.items() if room is not None}
