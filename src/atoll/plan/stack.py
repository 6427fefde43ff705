"""Several models on one box: which cards each gets, so that all targets hold, or as few as can be fall.

Every way of sharing out is looked at, up to what the links make alike: which models share one card by memory, how many
whole cards each of the others gets, and which. What a model makes of its cards is asked of a function, once for each
kind of group.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, log

from atoll.inventory.box import Box
from atoll.layout.layout import Layout

WHOLE_CARD = 0.92  # of a card's memory, for engines that share it: vLLM's own share of one that has it alone
STEP = 0.05  # shares of the memory are multiples of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a model may stand: whole cards, or a part of one."""

    gpus: tuple[int, ...]
    memory: float | None = None  # share of the card's memory; None: the cards are its own
    time: float = 1.0  # share of the card's time that it is reckoned with


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What a model makes of a place. `strain` at most 1 keeps the targets; None where no timing is known."""

    layout: Layout
    strain: float | None
    seconds: float | None  # of a mean answer


Ask = Callable[[int, Place], Offer | None]  # of the model of that number; None: it does not fit there


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """One way of sharing the box out, by model."""

    places: tuple[Place, ...]
    offers: tuple[Offer, ...]

    @property
    def missed(self) -> tuple[int, ...]:
        """The models whose targets do not hold."""
        return tuple(n for n, offer in enumerate(self.offers) if offer.strain is not None and offer.strain > 1)

    @property
    def order(self) -> tuple[float, ...]:
        """Small is good: few targets missed, room in the tightest one, quick answers, few cards."""
        strains = [offer.strain for offer in self.offers if offer.strain is not None]
        seconds = [offer.seconds for offer in self.offers if offer.seconds is not None]
        own = [offer for offer, place in zip(self.offers, self.places, strict=True) if place.memory is None]
        cards = sum(len(replica.gpus) for offer in own for replica in offer.layout.replicas)
        cards += len({place.gpus for place in self.places if place.memory is not None})
        worst = max(strains, default=0.0)
        return (
            len(self.missed),
            round(worst, 2) if worst > 1 else 0.0,
            round(sum(log(max(one, 1e-9)) if one < inf else 99.0 for one in seconds), 3),
            worst,
            cards,
        )


def share_box(box: Box, needs: Sequence[float | None], ask: Ask) -> tuple[Shared, ...]:
    """Every way in which all models fit, best first.

    Args:
        box: the cards.
        needs: the least share of one card's memory that each model takes; None for one that is not to share.
        ask: what a model makes of a place.
    """
    found = []
    for groups in _groupings(len(needs), needs):
        for cards in _give(box, [len(group) > 1 for group in groups], box.indices):
            shared = _ask_all(groups, cards, needs, ask)
            if shared is not None:
                found.append(shared)
    return tuple(sorted(found, key=lambda one: one.order))


def _groupings(count: int, needs: Sequence[float | None]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Partitions of the models; those in one group share a card, which has memory for them."""

    def place(model: int, groups: tuple[tuple[int, ...], ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
        if model == count:
            yield groups
            return
        yield from place(model + 1, (*groups, (model,)))
        for number, group in enumerate(groups):
            together = [needs[one] for one in (*group, model)]
            if None not in together and sum(one or 0.0 for one in together) <= WHOLE_CARD + 1e-9:
                yield from place(model + 1, (*groups[:number], (*group, model), *groups[number + 1 :]))

    return place(0, ())


def _give(box: Box, single: Sequence[bool], free: Sequence[int]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Cards for every group in turn: one for those that share it, any number for the others."""
    if not single:
        yield ()
        return
    most = 1 if single[0] else len(free) - (len(single) - 1)
    seen = set()
    for size in range(1, most + 1):
        for gpus in combinations(free, size):
            rest = tuple(gpu for gpu in free if gpu not in gpus)
            kind = (alike(box, gpus), alike(box, rest))
            if kind in seen:
                continue
            seen.add(kind)
            yield from ((gpus, *others) for others in _give(box, single[1:], rest))


def alike(box: Box, gpus: Collection[int]) -> object:
    """Equal for groups that are the same but for their numbers: kinds of cards, and each card's links to the others."""
    return tuple(sorted((box.gpu(gpu).name or "", _links(box, gpu, gpus)) for gpu in gpus))


def _links(box: Box, gpu: int, others: Collection[int]) -> tuple[tuple[str, int], ...]:
    links = [box.link(gpu, other) for other in others if other != gpu]
    return tuple(sorted((link.kind.value, link.nvlinks) for link in links))


def _ask_all(
    groups: Sequence[Sequence[int]], cards: Sequence[tuple[int, ...]], needs: Sequence[float | None], ask: Ask
) -> Shared | None:
    places: dict[int, Place] = {}
    for group, gpus in zip(groups, cards, strict=True):
        if len(group) == 1:
            places[group[0]] = Place(gpus=gpus)
            continue
        memory = share_out_memory([needs[model] or 0.0 for model in group])
        places |= {
            model: Place(gpus=gpus, memory=share, time=share / sum(memory))
            for model, share in zip(group, memory, strict=True)
        }
    offers = []
    for model in range(len(needs)):
        offer = ask(model, places[model])
        if offer is None:
            return None
        offers.append(offer)
    return Shared(places=tuple(places[model] for model in range(len(needs))), offers=tuple(offers))


def share_out_memory(needs: Sequence[float]) -> list[float]:
    """Shares of a card in proportion to what each needs: 0.3 and 0.1 get 0.65 and 0.2."""
    factor = WHOLE_CARD / sum(needs)
    return [max(need, round((need * factor + 1e-9) // STEP * STEP, 2)) for need in needs]
