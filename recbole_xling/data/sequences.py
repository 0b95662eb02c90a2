"""Rows, training windows and RecBole's splits of one flat array of interactions, without a Python step per row.

``users`` is the array's column of users, sorted; the interactions of a user are in order of time. A position is an
index into the array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]


# ---- rows: one target and the history before it ---------------------------------------------------------------


def user_starts(users: IntArray) -> IntArray:
    """Return, for each position of a user-sorted array, the position at which its user begins, shape ``(n,)``."""
    n = len(users)
    first = np.ones(n, dtype=bool)
    first[1:] = users[1:] != users[:-1]
    return np.maximum.accumulate(np.where(first, np.arange(n, dtype=np.int64), 0))


def next_item_rows(users: IntArray, max_length: int) -> tuple[IntArray, IntArray]:
    """Return ``(target, length)``: one row per interaction that has a history, as RecBole's augmentation makes them.

    ``target`` is the position of the item to predict; its history is the ``length`` items right before it, at most
    ``max_length`` of them and never another user's.
    """
    starts = user_starts(users)
    positions = np.arange(len(users), dtype=np.int64)
    target = positions[positions > starts]
    return target, np.minimum(target - starts[target], max_length)


EARLIER_LIST = "earlier_item_id_list"
"""Field of a batch where ``exclude_history`` is set: what users chose before their histories begin, padded with 0."""


@dataclass(frozen=True)
class WholeHistories:
    """What users chose before rows, of which models read the last ``MAX_ITEM_LIST_LENGTH`` items only.

    Attributes:
        items: of all interactions, one user after the other, ``(n_interactions,)``.
        start: where the user of each begins, ``(n_interactions,)``.
        target: place of each row's target, ``(n_rows,)``.
        length: of each row's history, ``(n_rows,)``.
    """

    items: Tensor
    start: IntArray
    target: IntArray
    length: IntArray

    def before(self, rows: IntArray) -> Tensor:
        """Return the items of rows that come before their histories, ``(B, longest)``, padded with 0."""
        begin = self.start[self.target[rows]]  # (B,)
        number = self.target[rows] - self.length[rows] - begin
        steps = np.arange(number.max(initial=0))
        inside = steps < number[:, None]  # (B, longest)
        found = self.items[torch.from_numpy(np.where(inside, begin[:, None] + steps, 0))]
        return found.masked_fill(torch.from_numpy(~inside), 0)


# ---- windows: many targets of one user in one training row ----------------------------------------------------


@dataclass(frozen=True)
class Segments:
    """The trainable part of each user's sequence: inputs ``start .. start + n_targets - 1``, targets one later."""

    start: IntArray
    n_targets: IntArray

    @classmethod
    def of_targets(cls, users: IntArray, is_target: NDArray[np.bool_]) -> Segments:
        """Build from a user-sorted flat array and a mask of the positions that may be trained on.

        The splits are in time order, so a user's targets follow the first interaction without a gap; the segment
        ends at the last of them.
        """
        targets = np.flatnonzero(is_target)
        if not len(targets):
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        starts = user_starts(users)[targets]
        last_of_user = np.append(starts[1:] != starts[:-1], True)
        start, end = starts[last_of_user], targets[last_of_user]
        return cls(start, end - start)

    def places(self, sizes: IntArray) -> IntArray:
        """Return the first ``sizes`` places of each segment, one segment after the other, ``(sizes.sum(),)``."""
        return np.arange(int(sizes.sum())) + np.repeat(self.start - np.cumsum(sizes) + sizes, sizes)


@dataclass(frozen=True)
class TrainingWindows:
    """Training windows: inputs ``start .. start + length - 1``, targets one later, shape ``(n_windows,)`` each.

    The loss counts from window position ``loss_from`` on; earlier ones are context that another window trains.
    """

    start: IntArray
    length: IntArray
    loss_from: IntArray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: IntArray) -> TrainingWindows:
        """Return some windows, as often as they are named."""
        return TrainingWindows(self.start[index], self.length[index], self.loss_from[index])


def cut_windows(segments: Segments, max_length: int, stride: int, rng: np.random.Generator) -> TrainingWindows:
    """Cut each segment into windows so that every target is trained exactly once.

    A segment that fits is one window. A longer one begins with a window that trains all of its positions; each later
    one is ``max_length`` long and trains its last ``stride`` positions, the very last one what is left. The first is
    shorter than ``max_length`` by a random offset below ``stride``, which moves all cuts: over the epochs each target
    sees contexts of different lengths.

    Args:
        segments: the trainable part of each user's sequence.
        max_length: the longest window, in items.
        stride: targets trained per window after the first, ``1 <= stride <= max_length``.
        rng: source of the offsets.
    """
    # Without overlap the first target of every window would see one item of history, however long the user's is. With
    # it a target sees all of its history or more than max_length - stride items; that context is computed twice.
    return _cut_at(segments, max_length, stride, rng.integers(0, stride, size=len(segments.n_targets)))


def windows_of_places(segments: Segments, max_length: int, stride: int, n: int) -> NDArray[np.float64]:
    """Return how many windows of an epoch have each place of the flat sequence, ``(n,)``: the mean over all offsets.

    Args:
        segments: as for :func:`cut_windows`, like ``max_length`` and ``stride``.
        max_length: the longest window, in items.
        stride: targets trained per window after the first.
        n: places of the sequence.
    """
    is_long = segments.n_targets > max_length
    found = np.zeros(n)
    for some, offsets in ((~is_long, [0]), (is_long, range(stride))):  # what fits is one window, whatever the offset
        part, edges = Segments(segments.start[some], segments.n_targets[some]), np.zeros(n + 1, dtype=np.int64)
        for offset in offsets if len(part.start) else ():
            windows = _cut_at(part, max_length, stride, np.full(len(part.start), offset))
            np.add.at(edges, windows.start, 1)
            np.add.at(edges, windows.start + windows.length + 1, -1)
        found += np.cumsum(edges)[:-1] / len(offsets)
    return found


def _cut_at(segments: Segments, max_length: int, stride: int, offset: IntArray) -> TrainingWindows:
    """Cut each segment, those that do not fit by their offsets."""
    n = segments.n_targets  # (n_segments,)
    offset = np.where(n > max_length, offset, 0)
    first = np.minimum(n, max_length - offset)  # targets of the first window
    extra = -(-(n - first) // stride)  # windows after the first
    count = extra + 1
    segment = np.repeat(np.arange(len(n)), count)  # (n_windows,), as all that follows
    index = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)  # of the window in its segment
    end = np.minimum(first[segment] + index * stride, n[segment])
    trained_from = np.where(index == 0, 0, first[segment] + (index - 1) * stride)
    begin = np.maximum(end - max_length, 0)
    return TrainingWindows(segments.start[segment] + begin, end - begin, trained_from - begin)


def split_windows(windows: TrainingWindows, most: int) -> TrainingWindows:
    """Divide windows that train more than ``most`` targets; each piece keeps what its window has before its targets."""
    n = -(-(windows.length - windows.loss_from) // most)  # pieces of each, (n_windows,)
    window = np.repeat(np.arange(len(windows)), n)  # (n_pieces,), as all that follows
    index = np.arange(len(window)) - np.repeat(np.cumsum(n) - n, n)  # of the piece in its window
    trained_from = windows.loss_from[window] + index * most
    end = np.minimum(trained_from + most, windows.length[window])
    return TrainingWindows(windows.start[window], end, trained_from)


def crop_windows(windows: TrainingWindows, chance: float, rng: np.random.Generator) -> TrainingWindows:
    """Cut some windows in two at a random place, so that what follows it does not see what was before.

    Every target is still trained exactly once: the last item of the first piece predicts the first one of the second.

    Args:
        windows: the windows.
        chance: that a window of at least two items is cut.
        rng: source of the places.
    """
    place = rng.integers(1, np.maximum(windows.length, 2))  # (n_windows,)
    is_cut = (rng.random(len(windows)) < chance) & (windows.length > 1)
    whole, cut, place = windows.take(np.flatnonzero(~is_cut)), windows.take(np.flatnonzero(is_cut)), place[is_cut]
    pieces = TrainingWindows(
        np.concatenate([whole.start, cut.start, cut.start + place]),
        np.concatenate([whole.length, place, cut.length - place]),
        np.concatenate([whole.loss_from, np.minimum(cut.loss_from, place), np.maximum(cut.loss_from - place, 0)]),
    )
    return pieces.take(np.flatnonzero(pieces.loss_from < pieces.length))


def reorder(sizes: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """Return an order of consecutive segments in which a random stretch of each is shuffled.

    Args:
        sizes: items of each segment.
        share: of a segment's items in its stretch, rounded down; 1 shuffles it all.
        rng: source of stretches and orders.

    Returns:
        Which item comes at each place, ``(sizes.sum(),)``; segments keep their places.
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)  # (n,), as all that follows
    drawn = rng.random(len(owner))
    length = _stretch(sizes, share)
    begin = np.floor(rng.random(len(sizes)) * (sizes - length + 1)).astype(np.int64)
    place = np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]  # in its segment
    inside = (place >= begin[owner]) & (place < (begin + length)[owner])
    return np.lexsort((np.where(inside, begin[owner] + drawn * length[owner], place), owner))


def mean_after_reordering(values: NDArray[np.float64], sizes: IntArray, share: float) -> NDArray[np.float64]:
    """Return what each item of consecutive segments has on average after :func:`reorder` of what its place has.

    Args:
        values: of each place, ``(sizes.sum(),)``.
        sizes: items of each segment.
        share: of a segment's items in its stretch.

    Returns:
        ``(sizes.sum(),)``.
    """
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)  # of the own segment, (n,), as all that follows
    place, size = np.arange(len(values)) - begin, np.repeat(sizes, sizes)
    length = _stretch(size, share)
    begins = size - length + 1  # how many places a stretch can begin at, all alike
    before = np.append(0.0, np.cumsum(values))
    here = np.arange(len(values))
    fits = (place < begins) & (length > 0)
    means = np.where(fits, before[np.where(fits, here + length, here)] - before[here], 0) / np.maximum(length, 1)
    first, last = np.maximum(place - length + 1, 0), np.minimum(place, begins - 1)  # beginnings of stretches with it
    number = np.where(length > 0, last - first + 1, 0)
    summed = np.append(0.0, np.cumsum(means))
    inside = np.where(number > 0, summed[begin + first + number] - summed[begin + first], 0)
    return ((begins - number) * values + inside) / begins


def _stretch(sizes: IntArray, share: float) -> IntArray:
    return np.floor(share * sizes + 1e-9).astype(np.int64)


# ---- splits: leave-one-out and ratio, with RecBole's rows in RecBole's order ----------------------------------


def group_rows(groups: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Order rows by group, groups by first appearance, as RecBole's ``_grouped_index`` does.

    Returns:
        ``(order, position, size)``, each ``(n,)``: row indices in grouped order, and for each of them its position
        in its group and the size of that group.
    """
    order = np.arange(len(groups), dtype=np.int64)
    if (groups[1:] < groups[:-1]).any():  # rows of sequential datasets come sorted by user
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        order = np.argsort(first[inverse], kind="stable")
        groups = groups[order]
    begins = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(groups) else order
    counts = np.diff(np.append(begins, len(groups)))
    position = np.arange(len(groups)) - np.repeat(begins, counts)
    size = np.repeat(counts, counts)
    return order, position, size


def leave_one_out_parts(groups: IntArray, leave_one_num: int) -> list[IntArray]:
    """Return ``leave_one_num + 1`` index arrays: the rest first, then the rows left out, the last row of a group last.

    A group always keeps at least one row in the first part.
    """
    order, position, size = group_rows(groups)
    from_end = size - 1 - position
    part = np.where(from_end < np.minimum(leave_one_num, size - 1), leave_one_num - from_end, 0)
    return [order[part == index] for index in range(leave_one_num + 1)]


def ratio_parts(groups: IntArray, n_parts: int, split_points: Callable[[int], Sequence[int]]) -> list[IntArray]:
    """Split each group at ``split_points(size)`` (ascending positions, ``n_parts - 1`` of them)."""
    order, position, size = group_rows(groups)
    sizes, which = np.unique(size, return_inverse=True)
    points = np.array([split_points(int(value)) for value in sizes], dtype=np.int64).reshape(len(sizes), n_parts - 1)
    part = (position[:, None] >= points[which]).sum(axis=1)
    return [order[part == index] for index in range(n_parts)]


def time_boundary_parts(groups: IntArray, times: NDArray[np.float64], ratios: Sequence[float]) -> list[IntArray]:
    """Split at a point in time: later rows are the last part, each group's earlier ones are divided in order of time.

    Args:
        groups: ``(n,)``.
        times: ``(n,)``.
        ratios: of training, validation and test; the last decides where the point is.
    """
    shares = np.array(ratios) / sum(ratios)
    boundary = np.percentile(times, 100 * (1 - shares[2]))
    order, _, _ = group_rows(groups)
    begins = np.append(True, groups[order][1:] != groups[order][:-1])[: len(order)]
    order = order[np.lexsort((times[order], np.cumsum(begins)))]
    late = times[order] > boundary
    early, test = order[~late], order[late]
    _, position, size = group_rows(groups[early])
    is_train = position < (size * (shares[0] / (1 - shares[2]))).astype(np.int64)
    return [early[is_train], early[~is_train], test]
