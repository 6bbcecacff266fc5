"""Models with the shapes of the recipes and random weights; nothing is downloaded."""

from __future__ import annotations

import torch
from benchmarks.full_size import TEACHERS
from torch import Tensor
from transformers import SiglipVisionConfig

from semhitok.recipes import Recipe, mini, nano, semhitok_256
from semhitok.teachers import TeacherConfig
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel

RECIPES = {"nano": nano, "mini": mini, "semhitok_256": semhitok_256}


def recipe_named(name: str) -> Recipe:
    """A recipe by name."""
    return RECIPES[name]()


def random_model(recipe: Recipe, *, device: str = "cpu") -> SemHiTokModel:
    """The recipe's tokenizer in eval mode, its teacher built from the published configuration."""
    torch.manual_seed(0)
    # Without a vision tower it is the built-in teacher, which is TeacherConfig's default.
    backbone = SiglipVisionConfig(**TEACHERS[recipe.name]) if recipe.name in TEACHERS else None
    teacher = TeacherConfig(backbone, image_size=recipe.teacher_image_size)
    return SemHiTokModel(SemHiTokConfig(teacher, **recipe.model)).eval().to(device)  # pyright: ignore


def random_images(batch: int, size: int, *, device: str = "cpu") -> Tensor:
    """(batch,3,size,size) in [-1,1]."""
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 3, size, size, generator=generator).mul_(2).sub_(1).to(device)
