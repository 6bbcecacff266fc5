"""Conversations to texts and model inputs, under a chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from semhitok.mllm.chat import read_messages
from semhitok.mllm.chat_rendering import ChatRenderer
from semhitok.mllm.control_marks import ControlMarks, control_marks

LENGTHS = ("padding", "truncation", "max_length")


class ChatInputsMixin:
    """For a processor with a text tokenizer and a chat template; see ``SemHiTokMLLMProcessor``."""

    if TYPE_CHECKING:
        tokenizer: Any
        chat_template: Any
        __call__: Callable[..., Any]

    @property
    def marks(self) -> ControlMarks:
        """The control tokens of texts."""
        return control_marks(self.tokenizer, self.chat_template if isinstance(self.chat_template, str) else "")

    def renderer(self, chat_template: str | None = None, **template_variables: Any) -> ChatRenderer:
        """Writes conversations under a template, by default the processor's own."""
        own = self.chat_template
        named = own.get(chat_template or "default") if isinstance(own, dict) else None
        template = named or chat_template or own
        if not isinstance(template, str):
            raise ValueError(f"a chat template must be a text, got {type(template).__name__}")
        return ChatRenderer(self.marks, template, {**self.tokenizer.special_tokens_map, **template_variables})

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = "pt",
        processor_kwargs: dict[str, Any] | None = None,
        **template_variables: Any,
    ) -> Any:
        """A conversation, or a list of them, as text or as model inputs.

        Args:
            conversation: messages with "role" (system, user or assistant) and "content"; content is a text, in which nothing is an
                image or a control token, or a list of parts {"type": "text", "text": ...} and {"type": "image", "image": ...} (or
                "path", "base64", a data URL as "url", or nothing, for images passed separately); {"type": "image_url",
                "image_url": {"url": ...}} for a data URL as well.
            chat_template: replaces the processor's own. It receives contents as texts, with a noncharacter for an image.
            add_generation_prompt, continue_final_message, template_variables: as in transformers.
            tokenize: False returns text that the processor can be given later; True returns input_ids, or all inputs with
                return_dict.
            return_tensors, processor_kwargs: for ``__call__``; padding, truncation and max_length may also be given directly.

        Raises:
            ValueError: a message or the template cannot be used.
        """
        lengths = {name: template_variables.pop(name) for name in LENGTHS if name in template_variables}
        several = bool(conversation) and not isinstance(conversation[0], dict)
        if add_generation_prompt and continue_final_message:
            raise ValueError(
                "add_generation_prompt begins an answer and continue_final_message goes on with one: set one of them"
            )
        renderer = self.renderer(chat_template, **template_variables)
        texts, images = [], []
        for conversation_messages in conversation if several else [conversation]:
            messages, found = read_messages(conversation_messages)
            images.append(found)
            texts.append(renderer.prompt(messages, ask=add_generation_prompt, unfinished=continue_final_message))
        if not tokenize:
            return texts if several else texts[0]
        options = {"return_tensors": return_tensors, **lengths, **(processor_kwargs or {})}
        inputs = self(images, texts, **options)
        return inputs if return_dict else inputs["input_ids"]
