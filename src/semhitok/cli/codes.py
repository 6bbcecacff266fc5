"""``semhitok codes``: patches assigned to semantic codes (the paper's Figure 5)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semhitok.cli.arguments import Checkpoint, Count, Device, ImagePaths, Limit, UsageError
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_TOKENIZER
from semhitok.storage.atomic import write_text
from semhitok.types import FitMode


@dataclass(frozen=True)
class Arguments:
    """Show the patches assigned to semantic codes: what does a code stand for?

    Each code has a row of patches, framed, with their surroundings, and grouped by the pixel code j under the semantic
    code. Writes codes.png and codes.json to the folder --out.
    """

    images: ImagePaths
    """Image files, folders of them, or one data set (tars, parquet). Hundreds of images make a good picture."""
    allow_outside: bool = False
    """Also read images that a Hugging Face data set stores as paths outside its folder."""
    code: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...", help_behavior_hint="(default: see --top)")] = ()
    """Semantic codes to show."""
    top: Count = 12
    """Number of codes to show if --code is not given."""
    by: Literal["alike", "used"] = "alike"
    """Which codes come first: those whose patches look most alike across images, or those used most."""
    patches: Count = 12
    """Maximum number of patches in a row, from as many images as possible."""
    context: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Number of neighbouring patches shown on each side of a patch."""
    limit: Limit = None
    """Maximum number of images to read, evenly spaced."""
    fit: FitMode = "crop"
    """How to make images square: crop the centre, or resize (squeeze)."""
    model: Checkpoint = DEFAULT_TOKENIZER
    """A folder, a hub id, or the name of a bundled checkpoint."""
    batch_size: Count = 32
    """Number of images per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("codes")
    """Folder to write to."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok codes")
    if not 0 <= options.context <= 8:
        raise UsageError(f"--context must be 0 to 8 patches, got {options.context}")
    from semhitok.data.reading import SizedImages
    from semhitok.data.sources import open_images
    from semhitok.inference.code_patches import find_patches
    from semhitok.inference.loading import load_tokenizer
    from semhitok.visualization.code_rows import code_rows, draw_codes

    source = open_images(options.images, allow_outside=options.allow_outside)
    model = load_tokenizer(options.model, options.device)
    codes = model.semantic_codebook_size
    if codes is None:
        raise ValueError(f"{options.model} has no semantic codes: `semhitok codes` takes SemHiTok checkpoints")
    size = model.config.image_size
    wrong = [code for code in options.code if not 0 <= code < codes]
    if wrong:
        raise UsageError(f"semantic codes of {options.model} are 0 to {codes - 1:,}, got {wrong[0]}")
    images = SizedImages(source, size, fit=options.fit, limit=options.limit, batch_size=options.batch_size)
    with progress_bars() as advance:
        found = find_patches(model, images, lambda done: advance("encoding", done, len(images)))
    ranked = found.most_alike if options.by == "alike" else found.most_used
    chosen = list(dict.fromkeys(options.code)) or ranked(options.top)
    patches = {code: found.choose(code, options.patches) for code in chosen}
    rows = code_rows(found, source, patches, context=options.context, fit=options.fit)
    count = len(found.images_I)
    how = "chosen" if options.code else {"alike": "whose patches look most alike", "used": "used most"}[options.by]
    subtitle = (
        f"{count:,} images, {found.ids_IN.numel():,} patches, {int((found.seen_K > 0).sum()):,} of {codes:,} codes"
    )
    subtitle += f" in use; codes {how}\nframed: the patch; around it: its surroundings; j: the pixel code under the semantic code"
    options.out.mkdir(parents=True, exist_ok=True)
    title = f"Patches on semantic codes of {Path(options.model).name}"
    draw_codes(rows, title=title, subtitle=subtitle).save(options.out / "codes.png")
    content = {
        "model": options.model,
        "images": count,
        "tokens": found.ids_IN.numel(),
        "left_out": [{"image": bad.key, "reason": bad.reason} for bad in images.bad],
        "codes": [found.facts(code, row, source, size) for code, row in patches.items()],
    }
    write_text(options.out / "codes.json", json.dumps(content, indent=1, ensure_ascii=False))
    print(subtitle.splitlines()[0])
    if images.bad:
        print(f"{len(images.bad)} unreadable images left out, the first: {images.bad[0].reason}")
    for name in ("codes.png", "codes.json"):
        print(f"wrote {options.out / name}")
    return 0
