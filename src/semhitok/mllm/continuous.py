"""The upper bound of the LLaVA-v1.5 setting (paper, Table 4, first row): the teacher's continuous features in place of ids.

    image -> teacher features (B,N,F) -> two-layer MLP -> the placeholder positions of the image

Everything else is as with tokens. The model understands images but cannot generate them.

Shapes: B sequences, L positions, I images, N tokens of one image, F channels of the teacher, D of the language model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semhitok.mllm.adapter import MLP
from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
from semhitok.storage.configuration import sentence_about
from semhitok.storage.weights import check_values

FILE = "continuous_projector.safetensors"


class ContinuousProjector(nn.Module):
    """Teacher features to input embeddings by the MLP of the ``single`` adapter with another input width.

    Args:
        feature_dim: F.
        width: D.
    """

    def __init__(self, *, feature_dim: int, width: int) -> None:
        super().__init__()
        self.mlp = MLP(feature_dim, width)

    @classmethod
    def for_model(cls, model: SemHiTokForConditionalGeneration) -> ContinuousProjector:
        """A projector with random weights for the teacher of the model's tokenizer.

        Raises:
            ValueError: the tokenizer has no teacher, or was loaded without its encoder side.
        """
        config = getattr(model.image_tokenizer.config, "teacher_config", None)
        if config is None or getattr(model.image_tokenizer, "teacher", None) is None:
            raise ValueError(
                f"continuous features come from the tokenizer's teacher, which a {type(model.image_tokenizer).__name__} "
                "without encoder side or of another kind does not have: use a SemHiTok tokenizer with its encoder side"
            )
        projector = cls(feature_dim=_feature_dim(model), width=model.config.text_config.hidden_size)
        return projector.to(model.device, model.get_input_embeddings().weight.dtype)

    def forward(self, features_INF: Tensor) -> Tensor:
        """(I,N,F) -> (I,N,D)."""
        return self.mlp(features_INF)

    def embeds(self, model: SemHiTokForConditionalGeneration, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        """Input embeddings (B,L,D) of ids (B,L) with placeholders and of images (I,3,H,W) in [-1,1], in order."""
        with torch.no_grad():
            features_INF = model.image_tokenizer.teacher_features(pixel_values) if len(pixel_values) else None
        places_BL = input_ids == model.vocabulary.placeholder_id
        embeds_BLD = model.embed(input_ids)
        if features_INF is None:
            # No images, but every rank must use the projector in every step.
            weight = self.mlp.hidden.weight
            features_INF = weight.new_zeros(0, model.vocabulary.image_tokens, weight.shape[1])
        return embeds_BLD.masked_scatter(places_BL[..., None], self(features_INF).to(embeds_BLD.dtype))

    @torch.no_grad()
    def generate(
        self, model: SemHiTokForConditionalGeneration, input_ids: Tensor, pixel_values: Tensor, *, max_new_tokens: int
    ) -> Tensor:
        """Greedy text generation for prompts of equal length; the model's own ``generate`` takes ids, not features.

        Args:
            model: the unified model.
            input_ids: (B,L) with placeholders, without padding.


            pixel_values: (I,3,H,W) in [-1,1], the images in order.
            max_new_tokens: maximum number of generated ids.

        Returns:
            (B,L + n) ids including the prompts; a finished row is padded with its end-of-text id.
        """
        end = model.generation_config.eos_token_id if model.generation_config is not None else None
        ends = torch.tensor([-1] if end is None else end, device=input_ids.device).flatten()
        outputs = model.body(inputs_embeds=self.embeds(model, input_ids, pixel_values), use_cache=True)
        found, done_B = [], torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for _ in range(max_new_tokens):
            assert outputs.last_hidden_state is not None
            logits_BT = outputs.last_hidden_state[:, -1] @ model.head_rows(0, model.vocabulary.text_size).T
            next_B = torch.where(done_B, ends[0], logits_BT.argmax(dim=-1))
            found.append(next_B)
            done_B |= torch.isin(next_B, ends)
            if done_B.all():
                break
            outputs = model.body(next_B[:, None], past_key_values=outputs.past_key_values, use_cache=True)
        return torch.cat([input_ids, torch.stack(found, dim=1)], dim=1)

    def save(self, directory: str | os.PathLike[str], state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Save the weights in the model's folder; by default its own, which must not be sharded."""
        state = self.state_dict() if state_dict is None else state_dict
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
            Path(directory) / FILE,
        )

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], model: SemHiTokForConditionalGeneration
    ) -> ContinuousProjector | None:
        """The projector saved in a model's folder, or None if the model was trained on tokens.

        Raises:
            ValueError: the file is damaged, of another model, or its values are not finite.
        """
        path = Path(directory) / FILE
        if not path.exists():
            return None
        projector = cls.for_model(model)
        with sentence_about(path):
            tensors = load_file(path)
            check_values(tensors, path, every_one=True)
            projector.load_state_dict(tensors)
        return projector


@torch.no_grad()
def _feature_dim(model: SemHiTokForConditionalGeneration) -> int:
    side = model.image_tokenizer.config.image_size
    blank = torch.zeros(1, 3, side, side, device=model.image_tokenizer.device, dtype=model.image_tokenizer.dtype)
    return model.image_tokenizer.teacher_features(blank).shape[-1]
