"""Training losses, pure and unweighted; weights and schedules belong to the training tasks."""

from semhitok.losses.adversarial import adaptive_weight, cut_at, discriminator_hinge_loss, generator_hinge_loss
from semhitok.losses.augment import augment
from semhitok.losses.contrastive import sigmoid_contrastive_loss, softmax_contrastive_loss
from semhitok.losses.dino_discriminator import DinoDiscriminator, dinov2_small_config
from semhitok.losses.discriminator import PatchDiscriminator
from semhitok.losses.distillation import distillation_loss
from semhitok.losses.perceptual import VGGLayer, VGGPerceptual
from semhitok.losses.reconstruction import l1_loss, l2_loss

__all__ = [
    "DinoDiscriminator",
    "PatchDiscriminator",
    "VGGLayer",
    "VGGPerceptual",
    "adaptive_weight",
    "augment",
    "cut_at",
    "dinov2_small_config",
    "discriminator_hinge_loss",
    "distillation_loss",
    "generator_hinge_loss",
    "l1_loss",
    "l2_loss",
    "sigmoid_contrastive_loss",
    "softmax_contrastive_loss",
]
