"""One training step of any stage: the only place where a loss is computed.

Branches meet at leaves: every map that goes from one branch to another is cut out of the graph, collects its
gradient while sub-batches of tiles come and go, and hands it on in one pass at the end. The gradient is that
of the whole sum of losses, and memory is one sub-batch of tiles and one batch of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glraster.model.fpn import Maps, Shared, resize
from glraster.model.glnet import GLNet
from glraster.model.sharing import Collage, crop, crop_shared
from glraster.train.dataset import Sample
from glraster.train.losses import Loss, resize_labels
from glraster.train.stages import Stage, Weights

_Pair = tuple[Sample, Maps]
"""A sample and the guide's maps of its window."""

_Root = tuple[Tensor, Tensor | None]
"""A tensor to go back from, and the gradient that arrived there; None for a loss."""


@dataclass(frozen=True)
class StepLosses:
    """What a step measured: `total` is what its gradient is of, `terms` the unweighted values of each term.

    A term of windows has one value, a term of tiles one per sub-batch, in the order of the samples.
    """

    total: float
    terms: Mapping[str, tuple[float, ...]]


def train_step(model: GLNet, stage: Stage, samples: Sequence[Sample], loss: Loss, sub_batch: int = 6) -> StepLosses:
    """Add the gradients of one batch of samples to those of the parameters; the caller steps the optimizer.

    Memory: the graph of the global branches for the batch, that of the local branch for `sub_batch` tiles, and what
    `Stage.park` says.

    Args:
        model: the network as `set_training` left it.
        stage: what is trained.
        samples: on any device, thumbnails of one size; labels of any size, they are sampled at the logits' cells.
            A network of mode full needs all tiles of a window.
        loss: of one branch's logits.
        sub_batch: tiles that the local branch sees at once, and that share BatchNorm's statistics.

    Returns:
        The losses.

    Raises:
        ValueError: where there is no sample, or tiles do not fit their tiling.
    """
    if not samples:
        raise ValueError("a step needs at least one sample")
    return _Step(model, stage, samples, loss, sub_batch).run()


@dataclass(frozen=True)
class _Swept:
    """What the first pass over a window's tiles leaves, per sub-batch: `votes`, leaves, and `ps3` where parked."""

    merged: Shared
    votes: list[Tensor]
    ps3: list[Tensor]


class _Step:
    """The state of one step."""

    def __init__(self, model: GLNet, stage: Stage, samples: Sequence[Sample], loss: Loss, sub_batch: int) -> None:
        self._model, self._stage, self._samples, self._loss, self._sub_batch = model, stage, samples, loss, sub_batch
        self._device = next(model.parameters()).device
        self._total = torch.zeros((), device=self._device)
        self._values: dict[str, list[Tensor]] = {field.name: [] for field in fields(Weights)}
        self._thumbnails = torch.stack([sample.thumbnail for sample in samples]).to(self._device)
        self._tiles_of_all = sum(len(sample.tiles) for sample in samples)
        self._local_moves = not {"guide", "local"}.isdisjoint(stage.trains)

    def run(self) -> StepLosses:
        whole: Maps = self._model.guide(self._thumbnails)
        head = self._score_windows("guide", whole.logits)
        guides = [_leaves(whole, i, sample.blind) for i, sample in enumerate(self._samples)]
        if self._model.refined is not None:
            self._run_full(guides)
        elif self._model.local is not None:
            for group in self._groups(list(zip(self._samples, guides, strict=True))):
                if len(group) == 1:
                    self._run_tiles(*group[0])
                else:
                    self._run_group(group)
        arrived = _arrived([_flat(guide.shared, guide.ps3) for guide in guides])
        _go_back([(head, None), *zip(_flat(whole.shared, whole.ps3), arrived, strict=True)])
        return self._result()

    def _groups(self, pairs: list[_Pair]) -> list[list[_Pair]]:
        """Samples whose tiles make a sub-batch together; one by one where a stage sums losses window by window."""
        groups: list[list[_Pair]] = []
        room = 0
        for pair in pairs:
            tiles = len(pair[0].tiles)
            if tiles > room or not self._stage.average or self._stage.weights.similarity:
                groups.append([])
                room = self._sub_batch
            groups[-1].append(pair)
            room -= tiles
        return groups

    def _run_group(self, group: list[_Pair]) -> None:
        """Mode local: all tiles of some windows at once, so that BatchNorm sees more than one window."""
        assert self._model.local is not None
        tiles = torch.cat([sample.tiles for sample, _ in group]).to(self._device)
        labels = torch.cat([sample.tile_labels for sample, _ in group])
        crops = [_flat(crop_shared(guide.shared, sample.tiling, 0, len(sample.tiles))) for sample, guide in group]
        maps: Maps = self._model.local(tiles, _nested([torch.cat(levels) for levels in zip(*crops, strict=True)]))
        share, size = self._share(labels), maps.ps3.shape[-2:]
        context = [
            self._model.window_votes(guide.ps3, sample.tiling, 0, torch.Size((len(sample.tiles), 0, *size)))
            for sample, guide in group
        ]
        logits = self._model.tile_votes(maps.ps3) + torch.cat(context)
        local = self._score("local", maps.logits, labels, share)
        _go_back([(local + self._score("aggregated", logits, labels, share), None)])

    def _run_tiles(self, sample: Sample, guide: Maps) -> None:
        """Mode local: one pass over the tiles, which meet the guide."""
        for first, maps, labels in self._local_maps(sample, guide):
            share = self._share(labels)
            local = self._score("local", maps.logits, labels, share)
            votes = self._model.tile_votes(maps.ps3)
            logits = votes + self._model.window_votes(guide.ps3, sample.tiling, first, votes.shape)
            aggregated = self._score("aggregated", logits, labels, share)
            similarity = self._compare(maps.ps3, guide.ps3, sample, first, share)
            _go_back([(local + aggregated + similarity, None)])
            del maps, votes, logits  # before the next sub-batch is computed

    def _run_full(self, guides: list[Maps]) -> None:
        """Mode full: tiles, without a graph; the refined branch, on all windows; tiles once more, with their graph."""
        assert self._model.refined is not None
        swept = [self._sweep(sample, guide) for sample, guide in zip(self._samples, guides, strict=True)]
        windows = [_flat(one.merged) for one in swept]
        merged = [torch.cat(parts).requires_grad_(self._local_moves) for parts in zip(*windows, strict=True)]
        whole: Maps = self._model.refined(self._thumbnails, _nested(merged))
        head = self._score_windows("refined", whole.logits)
        contexts = [_leaf(part) for part in torch.split(whole.ps3, 1)]
        for sample, one, context in zip(self._samples, swept, contexts, strict=True):
            self._vote(sample, one, context)
        _go_back([(head, None), (whole.ps3, _arrived([[context] for context in contexts])[0])])
        for i, (sample, guide, one) in enumerate(zip(self._samples, guides, swept, strict=True)):
            pulls = [level.grad[i : i + 1] for level in merged if level.grad is not None]
            self._sweep_back(sample, guide, one, pulls)

    @torch.no_grad()
    def _sweep(self, sample: Sample, guide: Maps) -> _Swept:
        """The first pass over the tiles of a window."""
        collage = Collage(sample.tiling, guide.shared)
        votes, parked = [], []
        with _statistics_kept(self._model.local):
            for first, maps, _ in self._local_maps(sample, guide):
                collage.add(maps.shared, first)
                votes.append(self._model.tile_votes(maps.ps3).requires_grad_())
                if self._parks:
                    parked.append(maps.ps3.cpu())
                del maps
        return _Swept(collage.merged(), votes, parked)

    def _vote(self, sample: Sample, swept: _Swept, context: Tensor) -> None:
        """Score the aggregation; its gradients arrive at the votes and the context."""
        for i, votes in enumerate(swept.votes):
            first = i * self._sub_batch
            labels = sample.tile_labels[first : first + len(votes)]
            logits = votes + self._model.window_votes(context, sample.tiling, first, votes.shape)
            _go_back([(self._score("aggregated", logits, labels, self._share(labels)), None)])

    def _sweep_back(self, sample: Sample, guide: Maps, swept: _Swept, pulls: list[Tensor]) -> None:
        """The second pass: bring the gradients of the votes and of the merged maps into the tiles.

        Args:
            pulls: gradients of the window's merged maps, (1, C, H, W) each; none where the local branch is frozen.
        """
        if self._parks:
            for votes, ps3 in zip(swept.votes, swept.ps3, strict=True):
                _go_back([(self._model.tile_votes(ps3.to(self._device)), votes.grad)])
            return
        sizes = [(pull.shape[-2], pull.shape[-1]) for pull in pulls]
        pulls = [g / sample.tiling.overlap(size).to(g.device) for g, size in zip(pulls, sizes, strict=True)]
        # no zip and no enumerate around the maps: both hold the last item while the next one is computed
        for first, maps, labels in self._local_maps(sample, guide):
            votes = swept.votes[first // self._sub_batch]
            roots: list[_Root] = [(self._score("local", maps.logits, labels, self._share(labels)), None)]
            roots.append((self._model.tile_votes(maps.ps3), votes.grad))
            # the transpose of Canvas.add: what a cell received goes back through the same resize
            for level, pull in zip(_flat(maps.shared) if pulls else (), pulls, strict=True):
                cut = crop(pull, sample.tiling, first, len(labels))
                roots.append((resize(level, cut.shape[-2:]), cut))
            _go_back(roots)
            del maps, roots

    @property
    def _parks(self) -> bool:
        return self._stage.park and not self._local_moves

    def _local_maps(self, sample: Sample, guide: Maps) -> Iterator[tuple[int, Maps, Tensor]]:
        """Index of the first tile, maps and labels of every sub-batch."""
        tiles = (batch.to(self._device) for batch in torch.split(sample.tiles, self._sub_batch))
        for first, maps in self._model.local_maps(tiles, guide, sample.tiling):
            yield first, maps, sample.tile_labels[first : first + len(maps.logits)]
            del maps

    def _share(self, labels: Tensor) -> float:
        return len(labels) / self._tiles_of_all if self._stage.average else 1.0

    def _score_windows(self, term: str, logits: Tensor) -> Tensor:
        size = logits.shape[-2:]
        labels = [resize_labels(sample.thumbnail_label[None], size) for sample in self._samples]
        return self._score(term, logits, torch.cat(labels), 1.0)

    def _score(self, term: str, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """The weighted loss of logits (n, classes, h, w) against labels (n, H, W)."""
        if not getattr(self._stage.weights, term):
            return logits.new_zeros(())
        target = resize_labels(labels, logits.shape[-2:]).to(self._device)
        return self._note(term, self._loss(logits, target), share)

    def _compare(self, ps3: Tensor, guide_ps3: Tensor, sample: Sample, first: int, share: float) -> Tensor:
        """The weighted mean squared difference between ps3 of tiles and the guide's there."""
        if not self._stage.weights.similarity:
            return ps3.new_zeros(())
        there = resize(crop(guide_ps3, sample.tiling, first, len(ps3)), ps3.shape[-2:])
        return self._note("similarity", F.mse_loss(ps3.float(), there.float()), share)

    def _note(self, term: str, value: Tensor, share: float) -> Tensor:
        weight: float = getattr(self._stage.weights, term) * share
        weighted = value * weight
        self._values[term].append(value.detach())
        self._total += weighted.detach()
        return weighted

    def _result(self) -> StepLosses:
        terms = {term: tuple(torch.stack(values).tolist()) for term, values in self._values.items() if values}
        return StepLosses(float(self._total), terms)


def _leaf(x: Tensor) -> Tensor:
    """The same values as a leaf, which collects a gradient where the original wants one."""
    return x.detach().requires_grad_(x.requires_grad)


def _leaves(whole: Maps, i: int, blind: bool) -> Maps:
    """The maps of window i of a batch as leaves, or zeros for a blind sample."""
    maps = (x[i : i + 1] for x in _flat(whole.shared, whole.ps3))
    flat = [torch.zeros_like(x, requires_grad=False) if blind else _leaf(x) for x in maps]
    return Maps(_nested(flat[:-1]), flat[-1], whole.logits[i : i + 1].detach())


def _flat(shared: Shared, *more: Tensor) -> list[Tensor]:
    return [*chain.from_iterable(shared), *more]


def _nested(flat: Sequence[Tensor]) -> Shared:
    return tuple(tuple(flat[i : i + 4]) for i in range(0, len(flat), 4))


def _arrived(windows: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
    """Per map, the gradients that arrived at its leaves in all windows, side by side; None where none did."""
    gradients: list[Tensor | None] = []
    for leaves in zip(*windows, strict=True):
        parts = [leaf.grad for leaf in leaves]
        zeros = (torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, parts, strict=True))
        gradients.append(None if all(part is None for part in parts) else torch.cat([*zeros]))
    return gradients


def _go_back(roots: Sequence[_Root]) -> None:
    """Go back from losses, and from maps that a gradient arrived at; from nothing else."""
    used = [(x, grad) for x, grad in roots if x.requires_grad and (grad is not None or x.dim() == 0)]
    if used:
        tensors, gradients = zip(*used, strict=True)
        torch.autograd.backward(tensors, gradients)


@contextmanager
def _statistics_kept(branch: nn.Module | None) -> Iterator[None]:
    """BatchNorm behaves as ever, but does not move its running statistics: the same tiles will pass once more."""
    norms = [module for module in (branch.modules() if branch else ()) if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
