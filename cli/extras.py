"""What `segment` writes beside the mask on request: polygons, a report, a STAC item, a QGIS style."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options, vectorize

if TYPE_CHECKING:
    from glraster.interchange.sidecars import Sidecars
    from glraster.reporting.report import ReportOptions
    from glraster.segmentation.segment import SegmentOptions


@dataclass(frozen=True)
class Extras:
    """Further outputs: files for `polygons` and the report's `page`, and whether to write `qml` and `stac`."""

    polygons: Path | None = None
    page: Path | None = None
    qml: bool = False
    stac: bool = False

    def settings(self, chosen: SegmentOptions) -> SegmentOptions:
        """The settings of the segmentation; a report shows the confidence, so it is written in any case."""
        if self.page is None or chosen.confidence is not None:
            return chosen
        return replace(chosen, confidence=self.page.with_name(f"{self.page.name}.confidence.tif"))

    def check(self, scene: str, mask: str, model: str | None, chosen: SegmentOptions) -> None:
        """Tell before a long segmentation what would stop the outputs from being written."""
        from glraster.interchange.sidecars import check_sidecars

        check_sidecars(mask, self.sidecars(), overwrite=chosen.overwrite)
        if self.polygons is not None:
            vectorize.check_output(self.polygons, mask, chosen.overwrite)
        if self.page is not None:
            from glraster.reporting.report import check_report

            check_report(self.page, mask, _report_options(scene, model, chosen))

    def write(self, scene: str, mask: str, model: str | None, chosen: SegmentOptions) -> tuple[dict[str, Any], str]:
        """Write all of it beside a finished mask; return what to tell, as JSON values and as text.

        Args:
            scene, mask, model: as they were given to `segment`.
            chosen: what the user asked for.
        """
        from glraster.interchange.sidecars import write_sidecars

        told: dict[str, Any] = {}
        text = ""
        write_sidecars(scene, mask, self.sidecars(), confidence=chosen.confidence, probabilities=chosen.probabilities)
        if self.polygons is not None:
            told["vectorized"], lines = vectorize.of_segment(mask, self.polygons, chosen)
            text += f"\n{lines}"
        if self.page is not None:
            from glraster.reporting.report import write_report

            written = self.settings(chosen)
            write_report(mask, self.page, _report_options(scene, model, written))
            if chosen.confidence is None and written.confidence is not None:
                for leftover in (
                    written.confidence,
                    written.confidence.with_name(f"{written.confidence.name}.aux.xml"),
                ):
                    leftover.unlink(missing_ok=True)
                told["confidence"] = None
            told["report"] = str(self.page)
            text += f"\n{self.page}: open it in a browser"
        return told, text

    def sidecars(self) -> Sidecars:
        """Which files to write beside a mask whatever its name."""
        from glraster.interchange.sidecars import Sidecars

        return Sidecars(stac=self.stac, qml=self.qml)


def _report_options(scene: str, model: str | None, chosen: SegmentOptions) -> ReportOptions:
    from glraster.reporting.report import ReportOptions

    return ReportOptions(
        scene=scene,
        confidence=chosen.confidence,
        model=model,
        command=options.command_line(),
        overwrite=chosen.overwrite,
    )
