"""One training step of any stage: the only place where a loss is computed.

Branches meet at leaves: every map that goes from one branch to another is detached from the graph, collects its
gradient over all sub-batches of tiles, and passes it on in one backward pass at the end. The gradient is that of the
whole sum of losses, and memory is one sub-batch of tiles and one batch of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from glraster.config import Mode
from glraster.model.fpn import Maps, Shared, resize
from glraster.model.glnet import GLNet
from glraster.model.sharing import Collage, crop, crop_shared
from glraster.raster.grid import Axis
from glraster.segmentation.foreground import FOREGROUND, foreground_tiles
from glraster.training.dataset import Sample
from glraster.training.ddp import ALONE, Team
from glraster.training.graph import Root, backward, flat, frozen_statistics, leaf, leaf_gradients, nested, window_leaves
from glraster.training.losses import Loss, resize_labels
from glraster.training.stages import Stage, Weights


@dataclass(frozen=True)
class StepLosses:
    """The losses of a step: `total` is what was differentiated, `terms` are the unweighted values of each term.

    A term of windows has one value, a term of tiles one per sub-batch, in the order of the samples.
    """

    total: float
    terms: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class StepForm:
    """How a step is divided.

    `windows`: how many windows bring their tiles into one sub-batch, over all processes; None: as many as fit.
    `team`: the processes that share the batch. `scale`: a factor on gradients, for float16. `coarse_to_fine`: the
    local branch sees only tiles that touch the second class, by the guide or by the label.
    """

    windows: int | None = None
    team: Team = ALONE
    scale: float = 1.0
    coarse_to_fine: bool = False


def train_step(
    model: GLNet,
    stage: Stage,
    samples: Sequence[Sample],
    loss: Loss,
    sub_batch: int = 6,
    form: StepForm | None = None,
) -> StepLosses:
    """Add the gradients of one batch of samples to those of the parameters; the caller steps the optimizer.

    Memory: the graph of the global branches for the batch, that of the local branch for `sub_batch` tiles, and the maps
    that `Stage.park` keeps.

    Args:
        model: the network as `set_training` left it.
        stage: what is trained.
        samples: on any device, thumbnails of one size; labels of any size, they are sampled at the logits' cells.
            A network of mode full needs all tiles of a window.
        loss: of one branch's logits.
        sub_batch: tiles that the local branch sees at once, and that share BatchNorm's statistics.
        form: how the step is divided.

    Returns:
        The losses, over all processes that share the batch.

    Raises:
        ValueError: if there is no sample, or tiles do not fit their tiling.
    """
    if not samples:
        raise ValueError("a step needs at least one sample")
    for sample in samples:
        if len(sample.tiles) != len(sample.tiling):
            raise ValueError(f"got {len(sample.tiles)} tiles of {len(sample.tiling)}")
    return _Step(model, stage, samples, loss, sub_batch, form or StepForm()).run()


def meeting_windows(mode: Mode, stage: Stage, sub_batch: int, tiles: int) -> int:
    """How many windows of `tiles` tiles each share a sub-batch.

    One, if a stage sums losses window by window or compares tiles with their window.
    """
    alone = mode not in ("local", "tiles") or not stage.average or bool(stage.weights.similarity)
    return 1 if alone else max(1, sub_batch // tiles)


@dataclass(frozen=True)
class TileRun:
    """`count` tiles of one window from the `first` on, and the guide's maps of the window (None in mode "tiles")."""

    sample: Sample
    guide: Maps | None
    first: int
    count: int

    @property
    def tiles(self) -> Tensor:
        return self.sample.tiles[self.first : self.first + self.count]

    @property
    def labels(self) -> Tensor:
        return self.sample.tile_labels[self.first : self.first + self.count]


def sub_batches(
    samples: Sequence[Sample],
    guides: Sequence[Maps | None],
    used_tiles: Sequence[Sequence[int]],
    most: int,
    together: int,
) -> Iterator[list[TileRun]]:
    """Divide the tiles of a batch.

    Args:
        samples, guides: the windows.
        used_tiles: ascending indexes of the tiles to use of every window.
        most: tiles in a sub-batch, if windows do not share one.
        together: windows whose tiles share a sub-batch; 0: every window has its own, of `most` tiles at a time.

    Yields:
        The runs of one sub-batch; none is empty.
    """
    windows = [
        [(sample, guide, tile) for tile in tiles]
        for sample, guide, tiles in zip(samples, guides, used_tiles, strict=True)
    ]
    if together:
        for i in range(0, len(windows), together):
            yield _joined([tile for window in windows[i : i + together] for tile in window])
        return
    for window in windows:
        for i in range(0, len(window), most):
            yield _joined(window[i : i + most])


def _joined(tiles: Sequence[tuple[Sample, Maps | None, int]]) -> list[TileRun]:
    """Tiles that follow one another in a window as one run."""
    runs: list[TileRun] = []
    for sample, guide, tile in tiles:
        last = runs[-1] if runs else None
        if last is not None and last.sample is sample and last.first + last.count == tile:
            runs[-1] = TileRun(sample, guide, last.first, last.count + 1)
        else:
            runs.append(TileRun(sample, guide, tile, 1))
    return runs


def tiles_with_foreground(sample: Sample, guide_logits: Tensor) -> list[int]:
    """The tiles that touch foreground, in the guide's logits (1, 2, h, w) or in the label.

    Without the label, the local branch would never learn what the guide misses.
    """
    tiling, predicted = sample.tiling, guide_logits[0].argmax(0).cpu() == FOREGROUND
    truth = resize_labels(sample.thumbnail_label[None], predicted.shape)[0].cpu() == FOREGROUND
    rows = Axis(tiling.height, tiling.tile_height, tiling.tops)
    columns = Axis(tiling.width, tiling.tile_width, tiling.lefts)
    touching = foreground_tiles((predicted | truth).numpy(), rows, columns)
    return [int(i) for i in torch.from_numpy(touching).flatten().nonzero()[:, 0]]


@dataclass(frozen=True)
class _Swept:
    """What the first pass over a window's tiles leaves: per sub-batch `votes`, which are leaves, and parked `ps3`."""

    merged: Shared
    votes: list[Tensor]
    ps3: list[Tensor]


class _Step:
    """The state of one step."""

    def __init__(
        self, model: GLNet, stage: Stage, samples: Sequence[Sample], loss: Loss, sub_batch: int, form: StepForm
    ) -> None:
        self._model, self._stage, self._samples, self._loss, self._sub_batch = model, stage, samples, loss, sub_batch
        self._form, self._team = form, form.team
        self._device = next(model.parameters()).device
        self._totals = {meets: torch.zeros((), device=self._device) for meets in (True, False)}
        self._values: dict[str, list[Tensor]] = {field.name: [] for field in fields(Weights)}
        self._meets = {"guide", "refined"}
        self._tiles_of_all = 0
        self._local_moves = not {"guide", "local"}.isdisjoint(stage.trains)

    def run(self) -> StepLosses:
        if self._model.guide is None:
            return self._run_alone()
        self._thumbnails = torch.stack([sample.thumbnail for sample in self._samples]).to(self._device)
        whole: Maps = self._model.guide(self._thumbnails)
        head = self._score_windows("guide", whole.logits)
        guides = [window_leaves(whole, i, sample.blind) for i, sample in enumerate(self._samples)]
        used_tiles = [self._used_tiles(*both) for both in zip(self._samples, guides, strict=True)]
        self._count_tiles(used_tiles)
        if self._model.refined is not None:
            self._run_full(guides)
        elif self._model.local is not None:
            for runs in self._sub_batches(guides, used_tiles):
                self._run_tiles(runs)
        gradients = leaf_gradients([flat(guide.shared, guide.ps3) for guide in guides])
        backward([(head, None), *zip(flat(whole.shared, whole.ps3), gradients, strict=True)])
        return self._result()

    def _run_alone(self) -> StepLosses:
        """Mode tiles."""
        every = [range(len(sample.tiles)) for sample in self._samples]
        self._count_tiles(every)
        for runs in self._sub_batches([None] * len(every), every):
            self._run_tiles(runs)
        return self._result()

    def _count_tiles(self, used_tiles: Sequence[Sequence[int]]) -> None:
        self._tiles_of_all = int(self._team.sum(torch.tensor(sum(map(len, used_tiles)), device=self._device)))

    def _used_tiles(self, sample: Sample, guide: Maps) -> list[int]:
        every = list(range(len(sample.tiles)))
        return tiles_with_foreground(sample, guide.logits) if self._form.coarse_to_fine else every

    def _sub_batches(
        self, guides: Sequence[Maps | None], used_tiles: Sequence[Sequence[int]]
    ) -> Iterator[list[TileRun]]:
        """Modes local and tiles: the tiles that pass the local branch together and share BatchNorm and a loss."""
        windows = self._form.windows
        if windows is None:
            most = max(len(sample.tiles) for sample in self._samples)
            windows = meeting_windows(self._model.arch.mode, self._stage, self._sub_batch, most)
        if windows > 1:
            self._meets |= {"local", "aggregated"}
        together = max(1, windows // self._team.size) if windows > 1 else 0
        return sub_batches(self._samples, guides, used_tiles, self._sub_batch, together)

    def _run_tiles(self, runs: Sequence[TileRun]) -> None:
        """Modes local and tiles: one sub-batch of tiles, which meet the guide if there is one."""
        assert self._model.local is not None
        tiles = torch.cat([run.tiles for run in runs]).to(self._device)
        labels = torch.cat([run.labels for run in runs])
        guided = [(run, run.guide) for run in runs if run.guide is not None]
        crops = [flat(crop_shared(guide.shared, run.sample.tiling, run.first, run.count)) for run, guide in guided]
        shared = nested([torch.cat(levels) for levels in zip(*crops, strict=True)]) if guided else None
        maps: Maps = self._model.local(tiles, shared)
        share, size = self._share(labels), maps.ps3.shape[-2:]
        total = self._score("local", maps.logits, labels, share)
        if guided:
            context = [
                self._model.window_votes(guide.ps3, run.sample.tiling, run.first, torch.Size((run.count, 0, *size)))
                for run, guide in guided
            ]
            logits = self._model.tile_votes(maps.ps3) + torch.cat(context)
            aggregated = self._score("aggregated", logits, labels, share)
            total = total + aggregated + self._compare(maps.ps3, guided, share)
        backward([(total, None)])

    def _run_full(self, guides: list[Maps]) -> None:
        """Mode full: tiles, without a graph; the refined branch, on all windows; tiles once more, with their graph."""
        assert self._model.refined is not None
        swept = [self._sweep(sample, guide) for sample, guide in zip(self._samples, guides, strict=True)]
        windows = [flat(one.merged) for one in swept]
        merged = [torch.cat(parts).requires_grad_(self._local_moves) for parts in zip(*windows, strict=True)]
        whole: Maps = self._model.refined(self._thumbnails, nested(merged))
        head = self._score_windows("refined", whole.logits)
        contexts = [leaf(part) for part in torch.split(whole.ps3, 1)]
        for sample, one, context in zip(self._samples, swept, contexts, strict=True):
            self._vote(sample, one, context)
        backward([(head, None), (whole.ps3, leaf_gradients([[context] for context in contexts])[0])])
        for i, (sample, guide, one) in enumerate(zip(self._samples, guides, swept, strict=True)):
            pulls = [level.grad[i : i + 1] for level in merged if level.grad is not None]
            self._sweep_back(sample, guide, one, pulls)

    @torch.no_grad()
    def _sweep(self, sample: Sample, guide: Maps) -> _Swept:
        """The first pass over the tiles of a window."""
        collage = Collage(sample.tiling, guide.shared)
        votes, parked = [], []
        with frozen_statistics(self._model.local):
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
            backward([(self._score("aggregated", logits, labels, self._share(labels)), None)])

    def _sweep_back(self, sample: Sample, guide: Maps, swept: _Swept, pulls: list[Tensor]) -> None:
        """The second pass: bring the gradients of the votes and of the merged maps into the tiles.

        Args:
            pulls: gradients of the window's merged maps, (1, C, H, W) each; none if the local branch is frozen.
        """
        if self._parks:
            for votes, ps3 in zip(swept.votes, swept.ps3, strict=True):
                backward([(self._model.tile_votes(ps3.to(self._device)), votes.grad)])
            return
        sizes = [(pull.shape[-2], pull.shape[-1]) for pull in pulls]
        pulls = [g / sample.tiling.overlap(size).to(g.device) for g, size in zip(pulls, sizes, strict=True)]
        # no zip and no enumerate around the maps: both hold the last item while the next one is computed
        for first, maps, labels in self._local_maps(sample, guide):
            votes = swept.votes[first // self._sub_batch]
            roots: list[Root] = [(self._score("local", maps.logits, labels, self._share(labels)), None)]
            roots.append((self._model.tile_votes(maps.ps3), votes.grad))
            # the transpose of Canvas.add: what a cell received goes back through the same resize
            for level, pull in zip(flat(maps.shared) if pulls else (), pulls, strict=True):
                cut = crop(pull, sample.tiling, first, len(labels))
                roots.append((resize(level, cut.shape[-2:]), cut))
            backward(roots)
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
        """The weight of a sub-batch of tiles: its share of the tiles of all processes."""
        if not self._stage.average:
            return 1.0
        count = torch.tensor(len(labels), device=self._device)
        return int(self._team.sum(count) if "local" in self._meets else count) / self._tiles_of_all

    def _score_windows(self, term: str, logits: Tensor) -> Tensor:
        size = logits.shape[-2:]
        labels = [resize_labels(sample.thumbnail_label[None], size) for sample in self._samples]
        return self._score(term, logits, torch.cat(labels), 1.0)

    def _score(self, term: str, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """The weighted loss of logits (n, classes, h, w) against labels (n, H, W)."""
        if not getattr(self._stage.weights, term):
            return logits.new_zeros(())
        target = resize_labels(labels, logits.shape[-2:]).to(self._device)
        if term in self._meets:
            logits, target = self._team.gather(logits), self._team.gather(target)
        return self._note(term, self._loss(logits, target), share)

    def _compare(self, ps3: Tensor, guided: Sequence[tuple[TileRun, Maps]], share: float) -> Tensor:
        """The weighted mean squared difference between ps3 of tiles and ps3 of the guide at the same place."""
        if not self._stage.weights.similarity:
            return ps3.new_zeros(())
        size = ps3.shape[-2:]
        crops = [resize(crop(guide.ps3, run.sample.tiling, run.first, run.count), size) for run, guide in guided]
        return self._note("similarity", F.mse_loss(ps3.float(), torch.cat(crops).float()), share)

    def _note(self, term: str, value: Tensor, share: float) -> Tensor:
        weight: float = getattr(self._stage.weights, term) * share
        self._values[term].append(value.detach().float())
        self._totals[term in self._meets] += weight * value.detach()
        return value * (weight * self._form.scale)

    def _result(self) -> StepLosses:
        """The losses over all processes; those of windows that meet are so already."""
        terms: dict[str, tuple[float, ...]] = {}
        for term, values in self._values.items():
            if getattr(self._stage.weights, term):
                own = torch.stack(values) if values else torch.zeros(0, device=self._device)
                everyones = own if term in self._meets else self._team.gather(own)
                terms |= {term: tuple(everyones.tolist())} if len(everyones) else {}
        return StepLosses(float(self._totals[True] + self._team.sum(self._totals[False])), terms)
