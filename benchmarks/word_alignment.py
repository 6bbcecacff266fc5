"""What stage ``align`` alone learns: existence questions answered by the words nearest to an image's embeddings.

No layer of the language model runs. An object counts as present if its words score above their mean over the scenes by more
than a threshold, which is chosen on the even questions and applied to the odd ones, and vice versa.

    python -m benchmarks.word_alignment runs/mllm_nano/align/model scenes-100/shared
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from semhitok.data.transforms import to_float
from semhitok.evaluation.understanding.scene_questions import AskedScenes
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.training.tasks.word_alignment import word_scores


@torch.no_grad()
def scored_questions(
    model: SemHiTokForConditionalGeneration, processor: SemHiTokMLLMProcessor, scenes: AskedScenes
) -> tuple[Tensor, Tensor]:
    """For each existence question the score (Q) of its object, and whether it is there (Q)."""
    table, scores, asked = model.get_input_embeddings().weight, [], []
    for images, described in scenes:
        ids = model.image_tokenizer.encode(to_float(images)).ids
        visual_BND = model.embed_visual(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
        first = sum(map(len, scores))
        scores.append(word_scores(visual_BND, table))
        for row, scene in enumerate(described, first):
            for question in scene.questions:
                if question.kind == "existence":
                    words = processor.tokenizer(f" {question.concept}", add_special_tokens=False)["input_ids"]
                    asked.append((row, words, question.answer == "yes"))
    scores_IT = torch.cat(scores)
    scores_IT = scores_IT - scores_IT.mean(dim=0)
    found = torch.stack([scores_IT[row, words].mean() for row, words, _ in asked])
    return found, torch.tensor([there for _, _, there in asked])


def best_threshold(scores_Q: Tensor, there_Q: Tensor) -> float:
    """The threshold that answers most questions correctly."""
    thresholds = scores_Q.sort().values
    right = ((scores_Q[None] > thresholds[:, None]) == there_Q[None]).float().mean(dim=1)
    return float(thresholds[right.argmax()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the share of right answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a unified model")
    parser.add_argument("scenes", help="folder of scenes with questions")
    parser.add_argument("--limit", type=int, default=None, help="number of scenes, from the first on")
    options = parser.parse_args(arguments)
    model = SemHiTokForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).eval()
    processor = SemHiTokMLLMProcessor.from_pretrained(options.model)
    scenes = AskedScenes(options.scenes, model.config.tokenizer_config.image_size, limit=options.limit)
    scores_Q, there_Q = scored_questions(model, processor, scenes)
    halves = [slice(start, None, 2) for start in (0, 1)]
    right = 0
    for chosen, used in (halves, halves[::-1]):
        threshold = best_threshold(scores_Q[chosen], there_Q[chosen])
        right += int(((scores_Q[used] > threshold) == there_Q[used]).sum())
    print(f"{right / len(there_Q):.1%} of {len(there_Q):,} existence questions right (without looking: 50 %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
