"""First bytes of volumes, against files that the libraries of each format write."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from patchforest.io.volume_kind import dicom_files, head_bytes, holds_series, inflated_head, volume_kind

NIFTI = bytes(344) + b"n+1\0" + bytes(100)
DICOM = bytes(128) + b"DICM" + bytes(30) + b"1.2.840.10008.5.1.4.1.1.2\0"
SLIDE = bytes(128) + b"DICM" + bytes(30) + b"1.2.840.10008.5.1.4.1.1.77.1.6\0"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (NIFTI, "NIfTI"),
        (gzip.compress(NIFTI), "NIfTI"),
        (bytes(344) + b"ni1\0", "NIfTI"),
        (b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + bytes(540), "NIfTI"),
        (gzip.compress(np.random.default_rng(0).bytes(344) + b"n+1\0" + bytes(9999))[:512], "NIfTI"),
        (b"NRRD0005\ntype: uchar\n", "NRRD"),
        (DICOM, "DICOM"),
        (SLIDE, None),
        (gzip.compress(b"x" * 2000), None),
        (b"\x1f\x8b" + bytes(30), None),
        (b"", None),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), None),
    ],
)
def test_kinds(head: bytes, kind: str | None) -> None:
    assert volume_kind(head) == kind


def test_a_bomb_inflates_no_further_than_asked() -> None:
    assert inflated_head(gzip.compress(bytes(1 << 22))) == bytes(1024)
    assert inflated_head(b"nothing") == b""


def test_folders(tmp_path: Path) -> None:
    assert not holds_series(tmp_path)
    (tmp_path / ".hidden").write_bytes(DICOM)
    (tmp_path / "DICOMDIR").write_bytes(DICOM)
    (tmp_path / "sub").mkdir()
    assert list(dicom_files(tmp_path)) == []
    (tmp_path / "a.txt").write_text("notes")
    assert not holds_series(tmp_path)
    (tmp_path / "b").write_bytes(DICOM)
    assert holds_series(tmp_path)
    (tmp_path / "aa").write_bytes(SLIDE)
    assert not holds_series(tmp_path)
    assert head_bytes(tmp_path / "a.txt", 3) == b"not"
