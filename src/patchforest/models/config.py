"""The settings of a network, and of the volumes it reads: what ``config.json`` of a trained model says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCORER = "scorer"
"""The criterion of forests cut by a trained scorer, and the folder that holds it beside the model's weights."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network, how wide and how deep.

    Attributes
    ----------
    name : one of ``models.build.MODELS``.
    channels : of the image.
    classes : output channels: 1 for one foreground class (sigmoid), else the number of classes with background.
    width, depth, heads : of the transformer (ViT-B: 768, 12, 12); for ``unet`` width and depth of the U.
    patch : side p to which every leaf is resampled, in pixels; of ``unetr`` the side of its patches.
    cell : side of the smallest leaf in level-0 pixels; must be the forest's.
    q : output side per leaf of the token readout, and that for which a scorer places leaves; default 2 · patch.
    readout : of ``apf_unetr``: ``paint`` (leaf states and stem features, light convolutions), ``raster`` (UNETR on
        registered rasters), ``pseudo`` (the papers' √L grid, for comparison); of ``refined``: ``paint`` or ``token``.
    stem : widths of the convolutional stem before gathering, strides 2, 4, ...; empty for none. Of ``scorer``: of all
        its convolutions.
    surround : side in pixels of the surroundings that dense models and stems see every value against, beside the value
        itself: for what is faint and small beside what light does, as in photographs of the retina; 0 for the value
        alone. Of images, not of volumes, and not of leaves.
    norm : of the convolutions of stem, paint readout, U-Net and TransUNet's decoder: ``batch``, or ``instance``, every
        image by itself (where few images teach, and others have other light).
    stride : of the finest features of the ``paint`` readout, which answer on stride × stride values a cell.
    embedding : ``place`` (of a leaf in the image), ``window`` (in what the network sees of it; better where few images
        or volumes teach) or the papers' ``index``.
    max_tokens : length of the ``index`` embedding.
    growth, look : of ``refined``: leaves of the second look for every one of the first; who looks first: ``leaves``
        (half of the blocks, at a first forest) or ``stem`` (the convolutions).
    features : width of the UNETR decoder, of the stem of ``transunet``, feature size of ``swin_unetr``.
    image_branch : UNETR's full-resolution image branch.
    downscale : of ``unet`` and ``scorer``: it sees the image area-averaged by this factor.
    dropout : in the transformer.
    pooling : of ``vit`` and ``apf_vit``, over the tokens of an image: ``tokens`` (plain mean: detail weighs more),
        ``area`` (by the pixels each shows) or ``attention`` (learned, with a gate).
    crop, region : of ``hipt``: sides of the squares that its first and its second level read, in pixels.
    backbone : a foreign transformer in place of our own, in ``apf_unetr``, ``shf`` and ``apf_vit``: ``timm:NAME``,
        ``hf:FOLDER`` (or its config.json) or ``monai:vit``; see ``models.backbone``.
    backbone_config : settings that its library builds it from, such as ``img_size``; with ``image_mean`` and
        ``image_std`` of its pixel values. Training writes all of them here, and width and depth of the backbone above.
    window : (height, width) of the images that a model with a position table is made for; training sets it.
    spatial : 2 for images, 3 for volumes (``shf`` and ``apf_vit``: octrees, patches p × p × p, q × q × q answers a
        leaf).
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
    surround: int = 0
    norm: str = "batch"
    stride: int = 4
    embedding: str = "place"
    max_tokens: int = 4096
    growth: int = 1
    look: str = "leaves"
    features: int = 16
    image_branch: bool = True
    downscale: int = 1
    dropout: float = 0.0
    pooling: str = "tokens"
    crop: int = 256
    region: int = 4096
    backbone: str | None = None
    backbone_config: dict[str, Any] | None = None
    window: tuple[int, int] | None = None
    spatial: int = 2


@dataclass(frozen=True)
class VolumeSpec:
    """How volumes are given to a network: on which grid, and as sub-volumes or as slices.

    Voxels are often longer one way than another, and leaves are cubes of voxels, so volumes are first averaged over
    whole blocks of voxels; masks come out at the stored voxels all the same.

    Attributes
    ----------
    window : (planes, rows, columns) of the training windows, in voxels after averaging. Slice-wise: of all windows
        the axes that lie in the slice count.
    downscale : blocks (planes, rows, columns) that are averaged.
    spacing : millimetres (plane, row, column) wanted instead; each volume is averaged to come nearest to it.
    axes : along which volumes are sliced for a network of images (0 plane, 1 row, 2 column); empty for one of volumes.
    """

    window: tuple[int, int, int] = (32, 64, 64)
    downscale: tuple[int, int, int] = (1, 1, 1)
    spacing: tuple[float, float, float] | None = None
    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("window", "downscale"):
            value = getattr(self, name)
            if len(value) != 3 or not all(isinstance(v, int) and v >= 1 for v in value):
                raise ValueError(f"{name} must be three whole numbers (planes, rows, columns) from 1 on; got {value}")
        if self.spacing is not None and (len(self.spacing) != 3 or not all(0 < v < float("inf") for v in self.spacing)):
            raise ValueError(f"spacing must be three lengths in millimetres; got {self.spacing}")
        if self.spacing is not None and self.downscale != (1, 1, 1):
            raise ValueError("set downscale or spacing, not both")
        if len(set(self.axes)) != len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(f"axes must be different ones of 0 (plane), 1 (row) and 2 (column); got {self.axes}")
