from . import mask_sweep as mask_sweep
from .document import PageContent as PageContent
from .document import render_page as render_page
from .mask_sweep import LEGEND as LEGEND
from .mask_sweep import audit_rows as audit_rows
from .mask_sweep import coverage_picture as coverage_picture
from .mask_sweep import coverage_text as coverage_text
from .mask_sweep import images_from as images_from
from .mask_sweep import previews as previews
from .masks import render_audit as render_audit
from .plots import figures as figures

__all__ = [
    "LEGEND",
    "PageContent",
    "audit_rows",
    "coverage_picture",
    "coverage_text",
    "figures",
    "images_from",
    "mask_sweep",
    "previews",
    "render_audit",
    "render_page",
]
