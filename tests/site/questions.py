"""Thirty questions of users: the words that one types into the search box, and the page that answers.

The first twenty were written down before the pages, the last ten by a later reader before the first search.

``test_search.py`` types them into the built site and wants the page among the first results.
"""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A question, what is typed into the search box, and the page (with the heading) that answers it."""

    question: str
    typed: str
    page: str


QUESTIONS = (
    Question("How do I install it on a machine without a GPU?", "install without GPU", "#install"),
    Question(
        "How do I reconstruct a photograph and look at its tokens?",
        "reconstruct a photograph",
        "notebooks/reconstruct/",
    ),
    Question("What is in a token id, and what are k and j?", "two codes in one id", "how-it-works/"),
    Question("How do I train a tokenizer on my own images?", "train on your own images", "train/"),
    Question("How do I give my own language model image tokens?", "own language model", "language-model/"),
    Question("How do I add a quantizer of my own?", "own quantizer", "own-quantizer/"),
    Question("Only a few codes are used: what can I do?", "codebook collapse", "faq/#my-codebook-collapses"),
    Question("Why is the loss NaN in bf16 once the GAN starts?", "NaN bf16 GAN", "faq/#the-loss-becomes-nan"),
    Question("Why does my rFID differ from the paper's?", "rFID differs from paper", "faq/#my-rfid-differs"),
    Question(
        "Where do image ids begin in the joint vocabulary?", "offset of image ids", "faq/#where-do-image-ids-begin"
    ),
    Question("Can it take images that are not square?", "images not square", "faq/#my-images-are-not-square"),
    Question("It runs out of memory: what can I change?", "out of memory", "faq/#it-runs-out-of-memory"),
    Question("How do I tokenize millions of images once?", "pretokenize", "data/"),
    Question("How do I train from S3?", "S3 bucket", "data/"),
    Question("How do I train on several nodes with SLURM?", "several nodes slurm", "scale/"),
    Question("How many GPU hours will a recipe take?", "GPU hours", "scale/"),
    Question("Can I use OpenAI's client?", "OpenAI client", "serve/"),
    Question("My run was interrupted: how does it go on?", "resume interrupted run", "long-runs/"),
    Question("Which tokenizer is better on equal terms?", "compare tokenizers", "comparison/"),
    Question("Under which licence are the weights?", "licence of the weights", "licences/"),
    Question("How do mini and nano differ, and which one do I get?", "mini or nano", "#the-bundled-models"),
    Question(
        "How closely do images follow the prompt?", "classifier-free guidance", "language-model/#ask-and-generate"
    ),
    Question("Can I fine-tune the bundled tokenizer?", "fine-tune tokenizer", "train/#fine-tune-a-finished-tokenizer"),
    Question("How do I share what I trained?", "push to hub", "train/#share-it-push-to-the-hub"),
    Question("Can SigLIP be the teacher?", "SigLIP teacher", "train/#recipes"),
    Question("Is it fast enough without a GPU?", "speed on CPU", "faq/#how-fast-is-it-on-a-cpu"),
    Question("Where do I see the losses?", "tensorboard", "train/#watch-it-losses-and-tensorboard"),
    Question(
        "What happens to a photograph of 12 megapixels?", "high resolution photo", "faq/#my-images-are-not-square"
    ),
    Question("Does it run on a Mac?", "mac windows", "faq/#which-python-and-which-versions"),
    Question("How do I cite it?", "cite", "licences/#how-to-cite"),
)
