"""Read tiles by row number from image files, check them, and normalise their colours by source."""

import abc
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from torch.utils.data import Dataset

from pipeline.errors import BadInput, BadTile
from pipeline.markup.number_format import count
from pipeline.network.preprocess import Preprocess
from pipeline.runtime.console import list_names, log
from pipeline.tiles.decoding import decode_tile, pixel_hash
from pipeline.tiles.stain_normalisation import LEAST_SOURCE_TILES, Source, SourceColours, SourceFit, fit_sources

if TYPE_CHECKING:
    import pandas as pd

CHANGED_PIXELS = "its pixels changed since the manifest was made"
"""End of the problem of a readable tile that differs from the manifest."""

Item = tuple[int, np.ndarray, np.ndarray, str]
"""Row, pixels (size, size, 3) uint8, SHA-256 (32,) uint8, and "" or why it cannot be used; zeros if it cannot."""


class TileSource(Dataset[Item], abc.ABC):
    """Read tiles by row number; a tile that cannot be read is an item with a problem, never an exception.

    Args:
        place: the folder or file of the tiles, for messages.
        preprocess: makes the network's input of a tile.
        sources: source of each tile, (N,), by which colours are normalised.
    """

    colours: SourceColours | None = None
    """Maps of the sources; None: colours are not normalised."""

    def __init__(self, place: Path, preprocess: Preprocess, sources: Sequence[Source]) -> None:
        self.place, self.preprocess, self.sources = place, preprocess, sources

    @property
    def size(self) -> int:
        """Side of the returned tiles in px."""
        return self.preprocess.input_px

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, row: int) -> tuple[np.ndarray, bytes]:
        """Return the pixels (h, w, 3) uint8 of a tile before normalisation, and the hash of its stored pixels.

        Raises:
            BadTile: it cannot be used.
        """

    @abc.abstractmethod
    def name(self, row: int) -> str:
        """Return the file or position of a tile, for messages."""

    def check_share(
        self, skipped: Mapping[int, str], *, max_bad: float, n_tiles: int | None = None, note: str = ""
    ) -> None:
        """Check that no more tiles are skipped than `max_bad` allows.

        Args:
            skipped: row -> why its tile cannot be used.
            max_bad: largest share.
            n_tiles: of how many tiles; None: of these.
            note: behind the share in the message.

        Raises:
            BadInput: too many; names the first.
        """
        n = len(self) if n_tiles is None else n_tiles
        if len(skipped) > max_bad * n:
            raise BadInput(
                f"{self.place}: {len(skipped)} of {n} tiles or more cannot be used, above --max-bad {max_bad:g}{note}; "
                f"the first: {skipped[min(skipped)]}"
            )

    def promising(self) -> Sequence[int]:
        """Return the rows that are not known to be unreadable."""
        return range(len(self))

    def read_normalised(self, row: int) -> tuple[np.ndarray, bytes]:
        """Return the same as `read`, the colours normalised if the preprocessing has a target; raises as `read`."""
        pixels, digest = self.read(row)
        if self.preprocess.stains is None:
            return pixels, digest
        if self.colours is None:
            raise RuntimeError("fit_colours was not called")
        return self.colours.apply(pixels, self.sources[row]), digest

    def __getitem__(self, row: int) -> Item:
        try:
            pixels, digest = self.read_normalised(row)
        except BadTile as error:
            return row, np.zeros((self.size, self.size, 3), np.uint8), np.zeros(32, np.uint8), str(error)
        return row, self.preprocess.apply(pixels), np.frombuffer(digest, np.uint8), ""

    def fit_sources(self, rows: Iterable[int] | None = None, *, workers: int = 1) -> dict[Source, SourceFit]:
        """Return the stains of each source, estimated on its readable tiles.

        Args:
            rows: tiles that are used later: only their sources are estimated; None: all.
            workers: as `stain_normalisation.fit_sources`.

        Raises:
            Interrupted: SIGINT or SIGTERM.
        """
        used = set(self.sources if rows is None else (self.sources[row] for row in rows))

        def read(row: int) -> np.ndarray | None:
            try:
                return self.read(row)[0]
            except BadTile:
                return None

        promising = [row for row in self.promising() if self.sources[row] in used]
        return fit_sources(self.sources, promising, read, workers=workers)

    def fit_colours(self, rows: Iterable[int] | None = None, *, workers: int = 1) -> Self:
        """Return itself, its colours normalised by source if the preprocessing has a target; as `fit_sources`."""
        if self.preprocess.stains is not None:
            self.colours = SourceColours(self.fit_sources(rows, workers=workers), self.preprocess.stains)
        return self


class TileFiles(TileSource):
    """Read tiles from image files and check the hash of their pixels.

    Args:
        root: folder of the paths.
        paths: one for each tile.
        sha256: SHA-256 of each tile's pixels; "" for a tile that was unreadable when its manifest was made. None if no
            manifest lists the tiles.
        preprocess: makes the network's input of a tile.
        sources: as `TileSource`; empty: all tiles are of one source.
        side: in px, of tiles whose texture is compared with that of other tiles; None: any.
        change: maps a tile's checked pixels (h, w, 3) uint8 to the pixels that are normalised and preprocessed, as the
            faults of a scanner precede both.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        sha256: Sequence[str] | None,
        preprocess: Preprocess,
        *,
        sources: Sequence[Source] = (),
        side: int | None = None,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        super().__init__(root, preprocess, sources or [Source()] * len(paths))
        self.root, self.paths, self.side = root, list(paths), side
        self.sha256 = None if sha256 is None else list(sha256)
        self.change = change
        self.problems = [""] * len(self.paths)
        """Why a tile was unreadable when its manifest was made, if it was."""

    @classmethod
    def of_table(cls, root: Path, table: "pd.DataFrame", preprocess: Preprocess) -> "TileFiles":
        """Return the tiles of some rows of a manifest, with this preprocessing, their colours not normalised yet."""
        sources = list(map(Source, table["group"], table["split"]))
        tiles = cls(root, list(table["path"]), list(table["sha256"]), preprocess, sources=sources)
        tiles.problems = list(table["problem"])
        return tiles

    def part(self, rows: Sequence[int]) -> "TileFiles":
        """Return some of the tiles, with the maps of the sources of all."""
        own = copy.copy(self)
        own.paths, own.problems = [self.paths[row] for row in rows], [self.problems[row] for row in rows]
        own.sha256 = None if self.sha256 is None else [self.sha256[row] for row in rows]
        own.sources = [self.sources[row] for row in rows]
        return own

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """See `TileSource`."""
        return str(self.root / self.paths[row])

    def promising(self) -> Sequence[int]:
        """See `TileSource`."""
        return [row for row in range(len(self)) if self.sha256 is None or self.sha256[row]]

    def read(self, row: int) -> tuple[np.ndarray, bytes]:
        """See `TileSource`."""
        if self.sha256 is not None and not self.sha256[row]:
            raise BadTile(self.problems[row] or f"{self.name(row)}: unreadable when the manifest was made")
        pixels = decode_tile(self.root / self.paths[row])
        digest = pixel_hash(pixels)
        if self.sha256 is not None and digest.hex() != self.sha256[row]:
            raise BadTile(f"{self.name(row)}: {CHANGED_PIXELS}")
        return (pixels if self.change is None else self.change(pixels)), digest


def log_colours(stage: str, tiles: Sequence[TileSource]) -> None:
    """Log how colours were normalised by source, if they were, and which sources keep their colours."""
    colours = [each.colours for each in tiles if each.colours is not None]
    if not colours:
        return
    place = tiles[0].place
    sources = [source for each in colours for source in each.tables]
    log.info(f"{stage}: colours are normalised by source: {count(len(sources), 'source')}, {place}")
    if unchanged := [str(source) or str(place) for each in colours for source in each.unchanged]:
        log.warning(
            f"{stage}: {len(unchanged)} of {count(len(sources), 'source')} keep their colours (fewer than "
            f"{LEAST_SOURCE_TILES} tiles, little tissue, or one stain): {list_names(unchanged)}"
        )
    if all(source.split and not source.group for source in sources):
        log.warning(f"{stage}: the tiles have no groups: all tiles of a split count as one source")
