"""Choose the network for a slide: in a plan, the part that held the slide's source out."""

import dataclasses
from pathlib import Path

from pipeline.errors import BadArtifact, PipelineError
from pipeline.names import RunFile
from pipeline.runtime.console import log
from pipeline.slides.find import SlideEntry
from pipeline.storage import atomic, records
from pipeline.storage.protocol import read_protocol
from pipeline.tiles.datasets.groups import parse_groups
from pipeline.tiles.datasets.kather2016 import GROUP_REGEX
from pipeline.tiles.datasets.names import name_key
from pipeline.tiles.manifest import Manifest, read_manifest

UNKNOWN = "unknown"
"""Value of `saw_source` if the slide's source is not known."""


@dataclasses.dataclass(frozen=True)
class SlideModel:
    """A trained network and what it was trained on."""

    path: Path
    """model.safetensors."""

    manifest: Manifest | None
    """The manifest that it was trained on, if that is next to the model."""

    source: str | None
    """Source of the slide, from its name or from the user, in the spelling of the manifest's groups."""

    @property
    def saw_source(self) -> bool | str:
        """Whether the network was trained or selected on tiles of the slide's source; without a source `UNKNOWN`."""
        if self.source is None or self.manifest is None:
            return UNKNOWN
        table = self.manifest.table
        return bool(table.loc[table["split"].isin(["train", "val"]), "group"].eq(self.source).any())


def slide_model(run: Path, entry: SlideEntry, *, model: Path | None) -> SlideModel:
    """Return the network of a run that embeds a slide.

    In a plan it is the network of the first part of the main arm that tests the slide's source. If no part does, or the
    source is not known, it is that of the first part.

    Args:
        run: the run folder.
        entry: the slide.
        model: another model.safetensors.

    Raises:
        BadArtifact: a file of the run is missing or damaged.
    """
    if model is not None:
        manifest = manifest_of(model)
        return SlideModel(model, manifest, source_of(entry, manifest))
    manifest = read_manifest(run / RunFile.MANIFEST)
    source = source_of(entry, manifest)
    protocol = read_protocol(run)
    if protocol is None:
        return SlideModel(run / RunFile.MODEL, manifest, source)
    parts = [part for part in protocol.parts if part.arm == protocol.main_arm and part.inner is None]
    held_out = [part for part in parts if source in part.test_groups]
    part = (held_out or parts)[0]
    why = f"source {source} held out" if held_out else "the first: no part is known to have held its source out"
    log.info(f"slide: {entry.name}: part {part.name}, {why}")
    folder = protocol.folder(part)
    return SlideModel(folder / RunFile.MODEL, read_manifest(folder / RunFile.MANIFEST), source)


def source_of(entry: SlideEntry, manifest: Manifest | None) -> str | None:
    """Return the source of a slide: as the user or the table of annotated slides gives it, else by the tiles' rule.

    A source that the rule finds counts only if some tile has it: the slide may be named by another rule.
    """
    if manifest is None:
        return entry.group
    if entry.group is not None:
        return _as_spelled(entry.group, manifest) or entry.group
    if isinstance(annotated := manifest.details.get("slides"), dict) and entry.path.name in annotated:
        return str(annotated[entry.path.name])
    options = records.read_record(manifest.path)["options"]
    regex = options.get("group_regex")
    if regex is None and manifest.details.get("origin") in ("demo", "kather2016"):
        regex = GROUP_REGEX
    if not isinstance(regex, str) or not regex:
        return None
    try:
        found = parse_groups([entry.path.name], regex)[0]
    except PipelineError:
        return None
    return _as_spelled(found, manifest)


def _as_spelled(source: str, manifest: Manifest) -> str | None:
    """Return a group of a manifest that is the source, whatever the case or the blanks; None without such a group.

    The same spelling counts first: groups may differ in case only (`prepare --allow-similar-names`).
    """
    groups = manifest.table["group"].unique()
    if source in groups:
        return source
    return next((group for group in groups if name_key(group) == name_key(source)), None)


def manifest_of(model: Path) -> Manifest | None:
    """Return the manifest next to a model if the model was trained on it; None if that cannot be shown."""
    path = model.with_name(RunFile.MANIFEST)
    try:
        manifest = read_manifest(path)
        made_from = records.read_record(model)["inputs"]
    except BadArtifact:
        return None
    return manifest if atomic.sha256_file(path) in made_from.values() else None
