"""The settings of a network: what ``build_model`` needs and what ``config.json`` of a trained model says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Which network, how wide and how deep.

    Attributes
    ----------
    name : ``apf_unetr``, ``shf``, ``apf_vit`` or ``unet``.
    channels : of the image.
    classes : output channels: 1 for one foreground class (sigmoid), else the number of classes with background.
    width, depth, heads : of the transformer (ViT-B: 768, 12, 12); for ``unet`` width and depth of the U.
    patch : side p to which every leaf is resampled, in pixels.
    cell : side of the smallest leaf in level-0 pixels; must be the forest's.
    q : output side per leaf of the token readout; default 2 · patch.
    readout : of ``apf_unetr``: ``paint`` (leaf states and stem features, light convolutions), ``raster`` (UNETR on
        registered rasters), ``pseudo`` (the papers' √L grid, for comparison).
    stem : widths of the convolutional stem before gathering, strides 2, 4, ...; empty for none.
    stride : of the logits of the ``paint`` readout.
    embedding : ``place`` or the papers' ``index``.
    max_tokens : length of the ``index`` embedding.
    features : width of the UNETR decoder.
    image_branch : UNETR's full-resolution image branch.
    downscale : of ``unet``: it sees the image area-averaged by this factor.
    dropout : in the transformer.
    """

    name: str = "apf_unetr"
    channels: int = 3
    classes: int = 1
    width: int = 128
    depth: int = 4
    heads: int = 4
    patch: int = 8
    cell: int = 8
    q: int | None = None
    readout: str = "paint"
    stem: tuple[int, ...] = (16, 32, 64)
    stride: int = 2
    embedding: str = "place"
    max_tokens: int = 4096
    features: int = 16
    image_branch: bool = True
    downscale: int = 1
    dropout: float = 0.0
