"""Losses on logits (N, C, h, w) and labels (N, h, w): class indexes, or from C on groups of classes; 255 never counts.

All share one signature, `Loss`, so that a training is configured by a name: "focal", "ce+lovasz".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glraster.config import NODATA
from glraster.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, C, h, w) and labels (N, h, w), uint8 or int64, to a scalar; 0 if no label counts."""

Groups = Sequence[Sequence[int]]
"""For every label from C on, the classes that it stands for: a pixel is of one of them, and nobody knows of which."""

_CLAMP = 1e-7


def make_loss(
    name: str,
    class_weights: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    groups: Groups = (),
) -> Loss:
    """Find a loss by its name.

    Args:
        name: "focal", "ce", "dice" or "lovasz", or several joined by "+", which are summed.
        class_weights: one per class, in the order of the logits; None for equal weights.
        offsets: added to the logits before the loss, one per class. With multiples of the logarithms of the classes'
            shares, the logits themselves need not favour common classes (Menon et al., Long-tail learning via logit
            adjustment, ICLR 2021, equation 10).
        groups: the classes that each label from C on stands for: the probability of such a label is the sum of theirs,
            and it weighs as they do on average.

    Returns:
        The loss.

    Raises:
        UsageError: if the name is unknown, or the weights are not positive numbers.
    """
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in LOSSES:
            raise UsageError(f"unknown loss {part!r} in {name!r}: use {', '.join(LOSSES)}, or a sum such as ce+lovasz")
    if class_weights is not None and not all(0 <= weight < float("inf") for weight in class_weights):
        raise UsageError(f"class weights {tuple(class_weights)} are not all finite and at least 0; correct them")
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    if weights is not None and groups:
        weights = torch.cat([weights, torch.stack([weights[list(members)].mean() for members in groups])])
    shift = torch.tensor(offsets or (0.0,), dtype=torch.float32)[:, None, None]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits + shift.to(logits.device) if offsets else logits
        own = None if weights is None else weights.to(logits.device)
        return torch.stack([LOSSES[part](logits, labels, own, groups) for part in parts]).sum()

    return loss


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Sample labels at the centres of coarser cells, as Pillow's NEAREST does.

    Args:
        labels: (N, H, W) of any type.
        size: (h, w).

    Returns:
        (N, h, w) of the same type.
    """
    rows, columns = (
        (2 * torch.arange(cells, device=labels.device) + 1) * side // (2 * cells)
        for side, cells in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def focal_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, groups: Groups = (), gamma: float = 3.0
) -> Tensor:
    """The mean of -(1 - p)^gamma log p over pixels, p the probability of the label, kept 1e-7 from 0 and 1.

    Outside that range a pixel has no gradient, as in the authors' code.

    Args:
        logits: (N, C, h, w).
        labels: (N, h, w), class indexes, groups or 255.
        class_weights: one per label, makes it a weighted mean.
        groups: what labels from C on stand for.
        gamma: how little easy pixels count; 0 is cross-entropy.

    Returns:
        A scalar, float32.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    classes, counts = _split(labels)
    probabilities = _with_groups(logits.float().softmax(1), groups, torch.sum)
    p = probabilities.gather(1, classes[:, None])[:, 0].clamp(_CLAMP, 1 - _CLAMP)  # (N, h, w)
    return _mean(-((1 - p) ** gamma) * p.log(), classes, counts, class_weights)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, groups: Groups = ()) -> Tensor:
    """The mean of -log p over pixels, p the probability of the label.

    Args:
        logits: (N, C, h, w).
        labels: (N, h, w), class indexes, groups or 255.
        class_weights: one per label, makes it a weighted mean.
        groups: what labels from C on stand for.

    Returns:
        A scalar, float32.
    """
    classes, counts = _split(labels)
    log_probabilities = _with_groups(logits.float().log_softmax(1), groups, torch.logsumexp)
    log_p = log_probabilities.gather(1, classes[:, None])[:, 0]  # (N, h, w)
    return _mean(-log_p, classes, counts, class_weights)


def dice_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, groups: Groups = ()) -> Tensor:
    """The mean of 1 - 2 |P ∩ Y| / (|P| + |Y|) over the classes that occur, P being probabilities.

    Args:
        logits: (N, C, h, w); sets are taken over the whole batch.
        labels: (N, h, w), class indexes, groups or 255.
        class_weights: one per label, makes it a weighted mean.
        groups: what labels from C on stand for.

    Returns:
        A scalar, float32.

    Source: Milletari et al., V-Net, 3DV 2016, with plain instead of squared sums in the denominator.
    """
    p, y = _by_class(logits, labels, groups)
    share = 2 * (p * y).sum(1) / (p.sum(1) + y.sum(1)).clamp(min=_CLAMP)
    return _mean_of_present(1 - share, y, class_weights)


def lovasz_softmax(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, groups: Groups = ()) -> Tensor:
    """The Lovász extension of 1 - IoU, averaged over the classes that occur.

    Errors are sorted once per class; memory is about six times the logits.

    Args:
        logits: (N, C, h, w); IoU is taken over the whole batch.
        labels: (N, h, w), class indexes, groups or 255.
        class_weights: one per label, makes it a weighted mean.
        groups: what labels from C on stand for.

    Returns:
        A scalar, float32.

    Source: Berman et al., The Lovász-Softmax loss, CVPR 2018, equations 8, 9 and 11.
    """
    p, y = _by_class(logits, labels, groups)
    # ignored pixels have error 0: they sort behind all others and weigh nothing
    errors, order = (y - p).abs().sort(1, descending=True)
    hits = y.gather(1, order).cumsum(1)
    ranks = torch.arange(1, y.shape[1] + 1, device=y.device)
    total = hits[:, -1:]
    jaccard = 1 - (total - hits) / (total + ranks - hits)
    steps = jaccard.diff(dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))
    return _mean_of_present((errors * steps).sum(1), y, class_weights)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None, Groups], Tensor]] = {
    "focal": focal_loss,
    "ce": cross_entropy,
    "dice": dice_loss,
    "lovasz": lovasz_softmax,
}
"""Every loss by name."""


def _split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices, 0 where ignored, and whether a pixel counts; both (N, h, w)."""
    counts = labels != NODATA
    return torch.where(counts, labels, 0).long(), counts


def _mean(values: Tensor, classes: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """Average (N, h, w) over the pixels that count; 0 without any."""
    weights = counts.float() if class_weights is None else class_weights[classes] * counts
    return (values * weights).sum() / _nonzero(weights.sum())


def _with_groups(values: Tensor, groups: Groups, total: Callable[..., Tensor]) -> Tensor:
    """(N, C, h, w) with a channel more for every group: the total of its classes."""
    if not groups:
        return values
    return torch.cat([values, *(total(values[:, list(members)], 1, keepdim=True) for members in groups)], 1)


def _by_class(logits: Tensor, labels: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot labels, (C, pixels) each, both 0 where nobody knows whether a pixel is of the class."""
    classes, counts = _split(labels)
    count = logits.shape[1]
    unknown = logits.new_zeros(count + len(groups), count, dtype=torch.float32)  # by label and class
    for label, members in enumerate(groups, start=count):
        unknown[label, list(members)] = 1
    known = (1 - unknown)[classes].movedim(-1, 1) * counts[:, None] if groups else counts[:, None]
    p = logits.float().softmax(1) * known
    y = p.new_zeros(p.shape[0], len(unknown), *p.shape[2:]).scatter_(1, classes[:, None], 1.0)[:, :count] * known
    return p.transpose(0, 1).flatten(1), y.transpose(0, 1).flatten(1)


def _mean_of_present(values: Tensor, y: Tensor, class_weights: Tensor | None) -> Tensor:
    """Average (C,) over the classes that `y` (C, pixels) holds; 0 without any."""
    weights = (y.sum(1) > 0).float()
    if class_weights is not None:
        weights = weights * class_weights[: len(y)]
    return (values * weights).sum() / _nonzero(weights.sum())


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1.0)
