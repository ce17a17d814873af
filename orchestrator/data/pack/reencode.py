"""Making images smaller when they are packed, on request: it changes the data, so it is never done unasked."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from orchestrator.data.format import image_extension
from orchestrator.data.read import UndecodableError, decode_rgb

_DEFAULT_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Reencode:
    """Images become JPEGs of `quality`, their shorter side at most `shorter_side_px` (None leaves the size)."""

    shorter_side_px: int | None = None
    quality: int = _DEFAULT_QUALITY

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}, must be 1 to 100")
        if self.shorter_side_px is not None and self.shorter_side_px < 1:
            raise ValueError(f"shorter_side_px is {self.shorter_side_px}, must be at least 1")


def reencoded(members: Mapping[str, bytes], reencode: Reencode | None) -> dict[str, bytes]:
    """A sample's members with its image re-encoded; one that cannot be decoded is left as it is, for the quarantine."""
    extension = image_extension(members)
    if reencode is None or extension is None:
        return dict(members)
    try:
        image = Image.fromarray(decode_rgb(members[extension]))
    except UndecodableError:
        return dict(members)
    shorter_px = min(image.size)
    if reencode.shorter_side_px is not None and shorter_px > reencode.shorter_side_px:
        scale = reencode.shorter_side_px / shorter_px
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=reencode.quality)
    others = {name: data for name, data in members.items() if name != extension}
    return {"jpg": out.getvalue(), **others}
