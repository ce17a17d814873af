"""The settings of the pre-training methods, told apart by their `name`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jepa_core.settings.checks import (
    check_area,
    check_fractions,
    check_not_negative,
    check_positive,
    check_unit,
)

TargetNorm = Literal["layer", "batch", "instance", "tanh", "none"]


@dataclass(frozen=True, kw_only=True)
class IJepaSettings:
    """I-JEPA: predict a teacher's features of hidden blocks, drawn as `masks` says, with the narrow `predictor`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["ijepa"] = "ijepa"
    """The pre-training method."""
    loss: Literal["smooth_l1", "l2"] = "smooth_l1"
    """The error between predicted and target features."""
    smooth_l1_beta: float = 1.0
    """Error at which the loss turns from squared to linear."""
    target_norm: TargetNorm = "layer"
    """How the teacher's features are brought to one scale: `layer` over the features of a patch (published), `batch`
    each feature over all images and patches of the batch, `instance` each feature over an image's patches, `tanh` a
    bounded function of each value, `none` not at all."""
    target_layers: int = 1
    """Last blocks of the teacher whose outputs are normalised and then averaged; 1 is published."""
    normalize_predictions: bool = False
    """Layer-norm the predictions, without affine parameters, before they are compared."""
    horizontal_flip: bool = False
    """Mirror every second image, drawn at random; the published method does not."""

    def __post_init__(self) -> None:
        check_positive(self, "smooth_l1_beta", "target_layers")
        if self.normalize_predictions and self.target_norm in ("tanh", "none"):
            raise ValueError(
                f"normalize_predictions cannot be true with target_norm {self.target_norm}, whose targets do not have "
                "the variance of 1 that predictions would; set target_norm to layer, batch or instance"
            )


@dataclass(frozen=True, kw_only=True)
class MaeSettings:
    """Masked autoencoder: random patches are hidden and their pixels predicted by a narrow decoder."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["mae"] = "mae"
    mask_fraction: float = 0.75
    """Share of the patches that is hidden."""
    normalize_pixels: bool = True
    """Predict each patch with mean 0 and variance 1."""
    decoder_width: int = 512
    """Width of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_num_heads: int = 16
    """Heads of the decoder."""
    horizontal_flip: bool = True
    """Mirror every second image, drawn at random."""

    def __post_init__(self) -> None:
        check_fractions(self, "mask_fraction")
        check_positive(self, "decoder_width", "decoder_depth", "decoder_num_heads")
        if self.decoder_width % 4:
            raise ValueError(f"decoder_width {self.decoder_width} must be a multiple of 4 for the positions")
        if self.decoder_width % self.decoder_num_heads:
            raise ValueError(
                f"decoder_width {self.decoder_width} must be a multiple of decoder_num_heads "
                f"{self.decoder_num_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class Data2VecSettings:
    """data2vec 1.0: the student sees the whole sequence with mask tokens and predicts the teacher's top layers."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["data2vec"] = "data2vec"
    mask_fraction: float = 120 / 196
    """Share of the patches that is hidden."""
    averaged_layers: int = 6
    """Top blocks of the teacher that are averaged; all of them where it has fewer."""
    smooth_l1_beta: float = 2.0
    """Error at which the loss turns from squared to linear."""
    horizontal_flip: bool = True
    """Mirror every second image, drawn at random."""

    def __post_init__(self) -> None:
        check_fractions(self, "mask_fraction")
        check_positive(self, "averaged_layers", "smooth_l1_beta")


@dataclass(frozen=True, kw_only=True)
class Data2Vec2Settings:
    """data2vec 2.0: the student sees the visible patches alone, several times an image, against one teacher pass."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["data2vec2"] = "data2vec2"
    masked_views: int = 16
    """Masked views of an image that share a pass of the teacher."""
    mask_fraction: float = 0.8
    """Share of the patches that is hidden."""
    visible_block_patches: int = 3
    """Side of the squares that stay visible."""
    averaged_layers: int = 10
    """Top blocks of the teacher that are averaged; all of them where it has fewer."""
    decoder_width: int | None = None
    """Channels of the convolutional decoder; null is the encoder's width."""
    decoder_depth: int = 6
    """Convolutions of the decoder."""
    decoder_kernel_patches: int = 3
    """Side of the convolutions' kernels."""
    decoder_groups: int = 16
    """Groups of the convolutions."""
    horizontal_flip: bool = True
    """Mirror every second image, drawn at random."""

    def __post_init__(self) -> None:
        check_fractions(self, "mask_fraction")
        check_positive(self, "masked_views", "visible_block_patches", "averaged_layers", "decoder_width")
        check_positive(self, "decoder_depth", "decoder_kernel_patches", "decoder_groups")
        if self.decoder_kernel_patches % 2 == 0:
            raise ValueError(f"decoder_kernel_patches must be odd, not {self.decoder_kernel_patches}")


@dataclass(frozen=True, kw_only=True)
class CaeSettings:
    """Context autoencoder: regress the hidden patches' features, align them with the encoder's own, decode pixels."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["cae"] = "cae"
    mask_fraction: float = 0.5
    """Share of the patches that is hidden."""
    regressor_depth: int = 4
    """Cross-attention blocks of the regressor."""
    decoder_depth: int = 4
    """Self-attention blocks of the decoder."""
    alignment_weight: float = 2.0
    """Weight of the error between regressed and encoded features."""
    reconstruction_weight: float = 1.0
    """Weight of the error of the decoded pixels."""
    normalize_pixels: bool = True
    """Predict each patch with mean 0 and variance 1."""
    horizontal_flip: bool = True
    """Mirror every second image, drawn at random."""

    def __post_init__(self) -> None:
        check_fractions(self, "mask_fraction")
        check_positive(self, "regressor_depth", "decoder_depth")
        check_not_negative(self, "alignment_weight", "reconstruction_weight")
        if self.alignment_weight == self.reconstruction_weight == 0:
            raise ValueError("reconstruction_weight and alignment_weight must not both be 0")


@dataclass(frozen=True, kw_only=True)
class VicRegSettings:
    """Variance, invariance, covariance: two augmented views of an image get one embedding, without collapse."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["vicreg"] = "vicreg"
    invariance_weight: float = 25.0
    """Weight of the squared distance between the embeddings of the two views."""
    variance_weight: float = 25.0
    """Weight of the hinge that keeps every feature's standard deviation at 1."""
    covariance_weight: float = 1.0
    """Weight of the squared covariances between features."""
    projector_width: int = 8192
    """Width of the three layers between the encoder and the embedding."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the loaded image that a view shows."""
    colour_strength: float = 1.0
    """Strength of the colour changes; 0 leaves colours be, 1 is published."""
    blur: bool = True
    """Blur views as published."""
    solarize: bool = True
    """Solarise a fifth of the second views."""
    flip_probability: float = 0.5
    """Share of the views that is mirrored."""

    def __post_init__(self) -> None:
        check_not_negative(self, "invariance_weight", "variance_weight", "covariance_weight")
        check_positive(self, "projector_width")
        check_area(self, "crop_scale")
        check_unit(self, "colour_strength", "flip_probability")


@dataclass(frozen=True, kw_only=True)
class DinoSettings:
    """Self-distillation: crops of an image get one distribution over prototypes, the teacher's on the large crops."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Literal["dino"] = "dino"
    num_local_crops: int = 8
    """Small crops an image, beside two large ones."""
    global_crop_scale: tuple[float, float] = (0.25, 1.0)
    """Share of the loaded image that a large crop shows."""
    local_crop_scale: tuple[float, float] = (0.05, 0.25)
    """Share of the loaded image that a small crop shows."""
    local_side_fraction: float = 96 / 224
    """Side of a small crop as a fraction of a large one's, rounded to whole patches."""
    num_prototypes: int = 65536
    """Outputs of the head."""
    head_width: int = 2048
    """Width of the head's two hidden layers."""
    student_temperature: float = 0.1
    """Temperature of the student's distribution."""
    teacher_temperature: float = 0.04
    """Temperature of the teacher's distribution; lower is sharper."""
    center_targets: bool = True
    """Subtract the moving average of the teacher's outputs, without which one prototype takes all."""
    center_momentum: float = 0.9
    """Momentum of that average."""
    colour_strength: float = 1.0
    """Strength of the colour changes; 0 leaves colours be, 1 is published."""
    blur: bool = True
    """Blur views as published."""
    solarize: bool = True
    """Solarise a fifth of the second views."""
    flip_probability: float = 0.5
    """Share of the views that is mirrored."""

    def __post_init__(self) -> None:
        check_not_negative(self, "num_local_crops")
        check_area(self, "global_crop_scale", "local_crop_scale")
        check_fractions(self, "local_side_fraction")
        check_positive(self, "num_prototypes", "head_width", "student_temperature", "teacher_temperature")
        check_unit(self, "center_momentum", "colour_strength", "flip_probability")


ObjectiveSettings = (
    IJepaSettings
    | MaeSettings
    | Data2VecSettings
    | Data2Vec2Settings
    | CaeSettings
    | VicRegSettings
    | DinoSettings
)
"""The settings of any method, told apart by their `name`."""
