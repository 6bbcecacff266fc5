"""Which tokenizers can be exported: every system of ``semhitok compare``, SemHiTok and UniTok with their options, several teachers.

    python -m benchmarks.exported_systems [--only NAME ...] [--skip-onnx]

Tiny models with random weights, 64 random images. One line for each: shares of equal ids and the largest difference of a pixel, as
a program of torch.export and as ONNX files in fp32 and int8, or the sentence that says what cannot be exported.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import SIZE, pixels, tiny_model, tower_config
from tests.tiny_unitok import tiny_unitok
from tests.tiny_vit import SYSTEMS, tiny_vit
from transformers import CLIPVisionConfig, Dinov2Config, Siglip2VisionConfig

from semhitok.export.onnx_files import export_onnx
from semhitok.export.programs import export_programs
from semhitok.teachers import TeacherConfig
from semhitok.teachers.efficientnet import EfficientNetLiteConfig

TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}
IMAGES = pixels(64, seed=5)


def with_teacher(backbone: Any, image_size: int = SIZE, **changes: Any) -> Any:
    """SemHiTok under another teacher."""
    return tiny_model(teacher_config=TeacherConfig(backbone, image_size=image_size, **changes))


MODELS: dict[str, Callable[[], Any]] = {
    "semhitok": tiny_model,
    "semhitok, 16 sizes of sub-codebooks": lambda: tiny_model(subcodebook_sizes=[1, 2, 3, 4] * 4),
    "semhitok, pixel_codebook shared": lambda: tiny_model(pixel_codebook="shared"),
    "semhitok, pixel_codebook random": lambda: tiny_model(pixel_codebook="random"),
    "semhitok, concat length": lambda: tiny_model(concat="length"),
    "semhitok, teacher at half the size": lambda: with_teacher(tower_config(SIZE // 2, 4), SIZE // 2),
    "semhitok, teacher at twice the size": lambda: with_teacher(tower_config(2 * SIZE, 16), 2 * SIZE),
    "semhitok, EfficientNet-Lite0": lambda: with_teacher(EfficientNetLiteConfig.lite0(5), SIZE, layer=-1),
    "semhitok, CLIP": lambda: with_teacher(CLIPVisionConfig(**TOWER, image_size=SIZE)),
    "semhitok, DINOv2": lambda: with_teacher(
        Dinov2Config(**{key: value for key, value in TOWER.items() if key != "intermediate_size"}, image_size=SIZE)
    ),
    "semhitok, SigLIP2": lambda: with_teacher(Siglip2VisionConfig(**TOWER, num_patches=16)),
    "unitok": tiny_unitok,
    **{system: lambda system=system: tiny_vit(system) for system in SYSTEMS},
}


def line(name: str, onnx: bool) -> str:
    """What became of one model."""
    cells = [name]
    try:
        model = MODELS[name]().eval()
        with tempfile.TemporaryDirectory() as scratch:
            for write in (export_programs, export_onnx) if onnx else (export_programs,):
                _, agreements = write(model, Path(scratch) / write.__name__, name=name, images=IMAGES)
                cells += [
                    f"{100 * found.equal_ids:.2f} % {found.pixel_difference:.1e}" for found in agreements.values()
                ]
    except ValueError as error:
        cells.append(str(error))
    return " | ".join(cells)


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS), help="models to export")
    parser.add_argument("--skip-onnx", action="store_true", help="programs of torch.export only")
    arguments = parser.parse_args()
    print("model | program: equal ids, pixels within | ONNX fp32 | ONNX int8")
    for name in arguments.only:
        print(line(name, not arguments.skip_onnx), flush=True)


if __name__ == "__main__":
    main()
