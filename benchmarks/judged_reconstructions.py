"""What survives a tokenizer: the judge's recall on scenes and on their reconstructions.

python -m benchmarks.judged_reconstructions mini --fit scenes/train --test scenes/plain scenes/photograph

The judge is fitted on scenes of which every second one is reconstructed, so that it knows both kinds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from semhitok.data.transforms import to_float
from semhitok.evaluation.text_to_image.judge_scores import judge_recall
from semhitok.evaluation.text_to_image.judge_training import fit_judge
from semhitok.inference.loading import load_tokenizer
from semhitok.scenes.truth import read_scenes
from semhitok.tokenizers.protocol import Tokenizer

BATCH = 25


def main() -> None:
    """Fit the judge, and print what it finds in each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder, hub id or name of a bundled tokenizer")
    parser.add_argument("--fit", type=Path, required=True, help="scenes to fit the judge on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="sets of scenes to measure on")
    parser.add_argument("--fit-limit", type=int, default=4000)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    model = load_tokenizer(options.model)
    judge = fit_judge(options.fit, model, limit=options.fit_limit)
    for folder in options.test:
        scenes = read_scenes(folder, model.config.image_size, limit=options.limit, bare=False)
        real = to_float(scenes.images)
        for kind, images in (("real", real), ("reconstructed", reconstructed(model, real))):
            print(f"{folder.name}, {kind}: {judge_recall(judge, images, scenes.truths).sentence()}", flush=True)


@torch.no_grad()
def reconstructed(model: Tokenizer, images_BCHW: Tensor) -> Tensor:
    """Images (B,3,H,W) in [-1,1] through the tokenizer and back."""
    encoded = (model.encode(part.to(model.device)) for part in images_BCHW.split(BATCH))
    return torch.cat([model.decode(each.ids, each.grid).clamp(-1, 1).cpu() for each in encoded])


if __name__ == "__main__":
    main()
