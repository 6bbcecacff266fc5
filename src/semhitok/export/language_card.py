"""The model card of a unified language model to share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semhitok.export.language_model import stored_as
from semhitok.export.model_card import NOT_STATED, data_section
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.shared_tokenizer import find_bundled
from semhitok.types import LANGUAGE_STAGES, HeadPrecision
from semhitok.visualization.markdown import table


def language_card(
    name: str,
    model: SemHiTokForConditionalGeneration,
    *,
    licence: str | None,
    figures: str,
    data: Sequence[Mapping[str, Any]],
    head: HeadPrecision = "bfloat16",
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        name: name of the checkpoint.
        model: the model to describe; its configuration holds stages and provenance.
        licence: SPDX name of the licence of the weights.
        figures: the Markdown report of ``semhitok evaluate-mllm``, or nothing.
        data: the contents of the ``dataset.json`` of each training set of scenes.
        head: how the head is stored.
    """
    front = ["---", *([f"license: {licence.lower()}"] if licence else []), "library_name: semhitok"]
    front += ["pipeline_tag: any-to-any", "tags:", "- image-text-to-text", "- text-to-image", "---"]
    sections = [
        "\n".join(front),
        f"# {name}",
        "One causal language model that answers questions about images and generates images from text, over one vocabulary "
        "(SemHiTok, arXiv 2503.06764, section 3.3).",
        _use(name, model),
        _facts(model, licence, head),
        _training(model),
        data_section(data),
        f"## Figures\n\n{figures.strip()}" if figures.strip() else "",
        _limits(data),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _use(name: str, model: SemHiTokForConditionalGeneration) -> str:
    return f"""## Use

```bash
semhitok chat photograph.jpg "Is there a dog in the picture?" --model {name}
semhitok generate "a dog" --model {name}
```

```python
from semhitok import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

model = SemHiTokForConditionalGeneration.from_pretrained("{name}").eval()  # this folder, or its id on a hub
processor = SemHiTokMLLMProcessor.from_pretrained("{name}")
inputs = processor(text=["a dog"], generation_mode="image")
ids = model.generate_images(**inputs, guidance=3.0)  # (1, {model.vocabulary.image_tokens})
images = processor.post_process_multimodal_output(model.decode_image_tokens(ids), generation_mode="image")
```"""


def _facts(model: SemHiTokForConditionalGeneration, licence: str | None, head: HeadPrecision) -> str:
    text, vocabulary = model.config.text_config, model.vocabulary
    own = sum(each.numel() for name, each in model.named_parameters() if not name.startswith("image_tokenizer."))
    rows = [
        ["language model", f"{text.model_type}, {text.num_hidden_layers} layers of width {text.hidden_size}"],
        ["ids", f"{vocabulary.text_size:,} of text, {vocabulary.visual_size:,} of images"],
        ["an image", f"{vocabulary.image_tokens:,} tokens"],
        ["visual ids become embeddings by", f"adapter {model.config.adapter}"],
        ["parameters", f"{own / 1e6:.1f}M beside the image tokenizer"],
        ["context", f"{model.config.context_length:,} positions"],
        ["stored as", stored_as(find_bundled(model.image_tokenizer), head)],
        ["licence of the weights", licence or NOT_STATED],
    ]
    return "## What it is\n\n" + table(["", ""], rows)


def _training(model: SemHiTokForConditionalGeneration) -> str:
    provenance, done = getattr(model.config, "provenance", {}), getattr(model.config, "stages", [])
    rows = []
    for stage in LANGUAGE_STAGES:
        if stage in done:
            entry = provenance.get(stage, {})
            counts = [f"{entry[key]:,}" if key in entry else NOT_STATED for key in ("steps", "rows")]
            rows.append([stage, *(str(entry.get(key, NOT_STATED)) for key in ("recipe", "data")), *counts])
    if not rows:
        return "## How it was trained\n\nIt was not trained: parts that are not pretrained have random weights."
    return "## How it was trained\n\n" + table(["stage", "recipe", "data", "steps", "packed rows"], rows)


def _limits(data: Sequence[Mapping[str, Any]]) -> str:
    lines = ["It sees only what the tokens of an image hold."]
    if data:
        concepts = len({concept for entry in data for concept in entry.get("concepts", ())})
        known = f"{concepts} kinds of things" if concepts else "a few kinds of things"
        lines.append(
            f"Trained on composed scenes alone, of {known}: it knows their captions and four kinds of questions about them "
            "(whether a thing is there, how many, where, what kind), and no other language."
        )
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)
