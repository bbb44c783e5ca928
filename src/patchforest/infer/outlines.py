"""From the linked corners of finished components to their rings: simple, in order, each from its first corner.

Also the layout of the tables of corners and components that ``infer.rings`` fills.
"""

from __future__ import annotations

import numpy as np

from patchforest.tree.kernel import kernel

NEXT, CHAIN, TWIN, NUMBER, ROW, COLUMN = range(6)  # of a corner, int32; CHAIN: the component's next corner, or free one
PARENT, VALUE, AREA, HEAD, TAIL, CORNERS, SEEN = range(7)  # of a component, int64; HEAD also: the next free label
FREE_CORNER, CORNERS_LEFT, FREE_LABEL, LABELS_LEFT, AT, ABOVE, ENDED = range(7)  # of the state, int64
_LOW = (1 << 32) - 1


@kernel
def read_out(ended, corners, labels, state, points, lengths, rings):  # type: ignore[no-untyped-def]
    """Every component's rings into ``points``, its corners and label to the free ones; returns the number of rings."""
    at, num_rings, most = 0, 0, 0
    for label in ended:
        most = max(most, labels[label, CORNERS])
    slots, follow, mate, mark = np.empty((4, most), np.int32)
    place, begins = np.empty(most, np.int64), np.empty(most // 4, np.int32)
    for k in range(len(ended)):
        label = ended[k]
        count = labels[label, CORNERS]
        if _compact(corners, labels[label, HEAD], slots[:count], place[:count], follow, mate):
            _split(follow, mate, mark[:count])
        rings[k] = _begins(follow, place[:count], mark, begins)
        for begin in begins[: rings[k]]:
            before, corner = at, begin
            while at == before or corner != begin:
                points[at, 0], points[at, 1] = place[corner] >> 32, place[corner] & _LOW
                corner = follow[corner]
                at += 1
            lengths[num_rings] = at - before
            num_rings += 1
        corners[labels[label, TAIL], CHAIN] = state[FREE_CORNER]
        state[FREE_CORNER] = labels[label, HEAD]
        state[CORNERS_LEFT] += count
        labels[label, HEAD] = state[FREE_LABEL]
        state[FREE_LABEL] = label
        state[LABELS_LEFT] += 1
    state[ENDED] = 0
    return num_rings


@kernel
def _compact(corners, head, slots, place, follow, mate):  # type: ignore[no-untyped-def]
    """One component's corners side by side: place (row and column in one number), the next, and the twin or -1.

    The table is large and its entries lie far apart: it is gone through once. Returns whether there is any twin.
    """
    count, corner, any_mate = len(slots), head, False
    for i in range(count):
        slots[i] = corner
        place[i] = np.int64(corners[corner, ROW]) << 32 | corners[corner, COLUMN]
        corners[corner, NUMBER] = i
        corner = corners[corner, CHAIN]
    for i in range(count):
        follow[i] = corners[corners[slots[i], NEXT], NUMBER]
        mate[i], twin = -1, corners[slots[i], TWIN]
        if twin >= 0:  # of this component, unless it is another's, or that one has ended and its place is used anew
            j = corners[twin, NUMBER]
            if 0 <= j < count and slots[j] == twin and place[j] == place[i]:
                mate[i] = j
                any_mate = True
    return any_mate


@kernel
def _split(follow, mate, mark):  # type: ignore[no-untyped-def]
    """Rings that meet themselves in a corner become two that touch there: the ways on of the two visits are swapped.

    The visits belong to diagonal pixels of one component. Rings never cross, so every swap parts a ring in two.
    """
    mark[:] = -1
    for i in range(len(mark)):
        walk = i
        while mark[walk] < 0:
            mark[walk] = i
            walk = follow[walk]
    for i in range(len(mark)):
        if mate[i] > i and mark[mate[i]] == mark[i]:
            follow[i], follow[mate[i]] = follow[mate[i]], follow[i]


@kernel
def _begins(follow, place, mark, begins):  # type: ignore[no-untyped-def]
    """The topmost, then leftmost corner of every ring, in that order: the exterior has the first; returns how many."""
    number = 0
    mark[: len(place)] = -1
    for i in range(len(place)):
        if mark[i] < 0:
            walk, first = i, i
            while mark[walk] < 0:
                mark[walk] = 0
                if place[walk] < place[first]:
                    first = walk
                walk = follow[walk]
            begins[number] = first
            number += 1
    if number > 1:
        begins[:number] = begins[:number][np.argsort(place[begins[:number]])]
    return number
