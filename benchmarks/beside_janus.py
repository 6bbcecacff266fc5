"""How does semhitok_256 compare with a convolutional tokenizer of the same tokens, per image and per parameter?

    python -m benchmarks.beside_janus [--quick]

Compared with transformers' JanusVQVAE in its default configuration, which is LlamaGen's VQ-16: 16 px per token, 16,384
codes of 8 channels, 72M parameters. It has no text-aligned encoder and its tokens carry no semantics by design, so a
higher cost of ``encode`` here is the cost of the teacher.
"""

from __future__ import annotations

import torch
from benchmarks.measuring import interleaved
from benchmarks.models import random_images, random_model, recipe_named
from benchmarks.reporting import Report, Row, run_alone
from torch import nn
from transformers import JanusVQVAE, JanusVQVAEConfig

from semhitok.quantizers import EMAQuantizer

PIXELS_PER_TOKEN = 16


def janus(image_size: int, **changes: int) -> JanusVQVAE:
    """Random weights; ``num_patches`` is the side of the token grid that ``decode`` requires, no weight depends on it."""
    torch.manual_seed(0)
    return JanusVQVAE(JanusVQVAEConfig(num_patches=image_size // PIXELS_PER_TOKEN, **changes)).eval()


def millions(*modules: nn.Module | None) -> float:
    """Parameters of the modules in millions, including EMA codebooks, which are buffers, but not their running
    statistics."""
    present = [module for module in modules if module is not None]
    parameters = sum(tensor.numel() for module in present for tensor in module.parameters())
    codebooks = sum(module.codebook_KD.numel() for module in present if isinstance(module, EMAQuantizer))
    return (parameters + codebooks) / 1e6


@torch.no_grad()
def measure(quick: bool) -> Report:
    """Batch 1 and 4; ``nano`` and a narrow Janus if quick."""
    ours = random_model(recipe_named("nano" if quick else "semhitok_256"))
    size = ours.config.image_size
    peer = janus(size, base_channels=32) if quick else janus(size)
    ours_encode = millions(
        ours.teacher, ours.semantic.projection, ours.semantic.quantizer, ours.pixel_encoder, ours.pixel_quantizer
    )
    ours_decode = millions(ours.semantic.quantizer, ours.pixel_quantizer, ours.pixel_decoder)
    peer_encode = millions(peer.encoder, peer.quant_conv, peer.quantize)
    peer_decode = millions(peer.quantize, peer.post_quant_conv, peer.decoder)
    rows = []
    for batch in (1,) if quick else (1, 4):
        images = random_images(batch, size)
        ids, tokens = ours.encode(images).ids, peer.encode(images).image_tokens.reshape(batch, -1)
        sides = {
            "our encode": lambda images=images: ours.encode(images),
            "peer encode": lambda images=images: peer.encode(images),
            "our decode": lambda ids=ids: ours.decode(ids),
            "peer decode": lambda tokens=tokens: peer.decode(tokens),
        }
        times = interleaved(sides, rounds=2 if quick else 5)
        for job in ("encode", "decode"):
            row = Row.of_times(
                f"{job} a batch of {batch}", ("semhitok", times[f"our {job}"]), ("JanusVQVAE", times[f"peer {job}"])
            )
            counts = (ours_encode, peer_encode) if job == "encode" else (ours_decode, peer_decode)
            rows += [row, per_parameter(row, batch, *counts)]
    counts = ("semhitok", ours_encode), ("JanusVQVAE", peer_encode)
    rows.append(Row.of_amounts("parameters that encode uses", *counts, "M"))
    counts = ("semhitok", ours_decode), ("JanusVQVAE", peer_decode)
    rows.append(Row.of_amounts("parameters that decode uses", *counts, "M"))
    return Report(
        name="beside_janus",
        title="Beside JanusVQVAE",
        method=f"{size} px, {ours.num_tokens} tokens against {(size // PIXELS_PER_TOKEN) ** 2}, fp32, random weights. Per "
        "parameter: time per image and per million parameters of the modules in use, codebooks included.",
        rows=rows,
    )


def per_parameter(row: Row, batch: int, left_millions: float, right_millions: float) -> Row:
    """Times of a batch as time per image and per million parameters."""
    return Row(
        what=f"{row.what}, per image and million parameters",
        left=row.left,
        left_amount=row.left_amount.scaled(1 / (batch * left_millions)),
        right=row.right,
        right_amount=row.right_amount.scaled(1 / (batch * right_millions)),
        ratio=row.ratio.scaled(right_millions / left_millions),
        unit=row.unit,
        cpu_ratio=None if row.cpu_ratio is None else row.cpu_ratio * right_millions / left_millions,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
