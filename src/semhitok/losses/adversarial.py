"""Adversarial training of the pixel branch: hinge losses and the adaptive weight of VQGAN (Esser et al. 2021).

Everything is unweighted; the training task decides when the discriminator starts and which factor multiplies the adaptive
weight. One generator step with a single backward pass through the perceptual network and the discriminator::

    reconstruction_loss = cut_at(images, l1 + perceptual)
    generator_loss = cut_at(images, generator_hinge_loss(discriminator(images)))
    weight = adaptive_weight(reconstruction_loss, generator_loss, decoder.last_layer)
    (reconstruction_loss + 0.5 * weight * generator_loss + quantizer_loss).backward()
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_hinge_loss(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye 2017), halved as in VQGAN: zero once both sides clear the margin of 1.

    Args:
        real_logits: any shape, the logits of data; high means real.
        generated_logits: any shape, the logits of reconstructions (detached from the generator by the caller).
    """
    real = functional.relu(1 - real_logits.float()).mean()
    generated = functional.relu(1 + generated_logits.float()).mean()
    return 0.5 * (real + generated)


def generator_hinge_loss(generated_logits: Tensor) -> Tensor:
    """Hinge loss of the generator: minus the mean logit of its images (unbounded, may be negative)."""
    return -generated_logits.float().mean()


def cut_at(images: Tensor, loss: Tensor) -> Tensor:
    """Backpropagate `loss` to `images` now, and return a surrogate loss that continues from there.

    The surrogate has the value of `loss` and the same gradient for everything before `images`. The networks between the
    two (perceptual network, discriminator) are backpropagated once and their activations freed, however often the
    surrogate is differentiated: `adaptive_weight` and the final ``backward()`` would otherwise do so twice. Parameters of
    those networks receive no gradient. Parts of `loss` that do not depend on `images` get no gradient: add them afterwards.

    Args:
        images: the generator's output with its graph (``requires_grad``).
        loss: scalar computed from `images`.
    """
    (gradient,) = torch.autograd.grad(loss, images)
    linear = (images.float() * gradient.float()).sum()
    return loss.detach() + (linear - linear.detach())


def adaptive_weight(
    reconstruction_loss: Tensor,
    generator_loss: Tensor,
    last_layer: Tensor,
    *,
    minimum: float = 0.0,
    maximum: float = 1e4,
    all_reduce: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Weight that equalises the gradient norms of adversarial and reconstruction loss at the last layer (VQGAN eq. 7).

    ``|d reconstruction_loss / d last_layer| / (|d generator_loss / d last_layer| + 1e-6)``, clamped to [minimum, maximum].

    Args:
        reconstruction_loss: scalar, L1 plus perceptual in VQGAN; its graph is kept for the later backward pass.
        generator_loss: scalar from the same forward pass; its graph is kept too.
        last_layer: weight of the decoder's last layer, an ordinary (not sharded) parameter.
        minimum: lower bound; UniTok uses 0.015 to keep the adversarial loss from vanishing.
        maximum: upper bound, reached when the discriminator saturates and its gradient vanishes.
        all_reduce: sums or averages a tensor over ranks in place. With it every rank gets the weight of the global
            batch: gradients are reduced, not norms, which would depend on how the batch is split.

    Returns:
        Scalar without gradient, fp32.
    """
    (reconstruction_gradient,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (generator_gradient,) = torch.autograd.grad(generator_loss, last_layer, retain_graph=True)
    gradients = torch.stack([reconstruction_gradient, generator_gradient]).float()
    if all_reduce is not None:
        all_reduce(gradients)
    reconstruction_norm, generator_norm = gradients.flatten(1).norm(dim=1)
    return (reconstruction_norm / (generator_norm + 1e-6)).clamp(minimum, maximum).detach()
