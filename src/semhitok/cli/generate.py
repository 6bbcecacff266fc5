"""``semhitok generate``: images from prompts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image, ImageDraw
from torch import Tensor, nn

from semhitok.cli.arguments import COUNT, Checkpoint, Count, Device, OptionalPath, UsageError, default
from semhitok.cli.progress import progress_bars
from semhitok.evaluation.text_to_image.prompt_sets import SETTINGS, Layout, draw_prompt_set, read_prompt_set, save_image
from semhitok.inference.language_loading import SHIPPED_LANGUAGE_MODEL, load_language_model
from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.prompts import check_guidance
from semhitok.visualization.examples import BACKGROUND, FAINT, GAP, INK, MARGIN, font

SEEDS = 4
TILE = 160  # side of a tile in pixels, at least
LABEL = 260  # width in pixels of the column with the prompts
LINE = 19  # height in pixels of a line of it
NOT_YET = "#e6e9ed"  # where an image is to come


@dataclass(frozen=True)
class Arguments:
    """Draw images from prompts.

    Prompts on the command line give a picture, a row for each prompt and a column for each seed, in --out/grid.png, and each
    image by itself in --out/images. --prompts draws a benchmark instead; the same command goes on where it was stopped.
    """

    prompt: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT ...", help_behavior_hint="")
    ] = ()
    """What to draw, each in quotation marks."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("generated")
    """Folder to write to."""
    model: Checkpoint = SHIPPED_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a shipped checkpoint."""
    guidance: float = 3.0
    """Classifier-free guidance: above 1 follows the prompt more closely, 1 is none."""
    seeds: Annotated[int | None, COUNT, default(f"{SEEDS}; of a benchmark as many as it wants")] = None
    """Images for each prompt."""
    seed: int = 0
    """Of the first column; the next ones count up."""
    temperature: float = 1.0
    """0 always takes the most likely token, then all columns are the same; 1 draws from the model's own distribution."""
    top_k: int = 0
    """Draw from the most likely tokens only, so many; 0 for all."""
    top_p: float = 1.0
    """Draw from the most likely tokens only, up to this share of probability."""
    batch_size: Count = 16
    """Images at a time."""
    stream: bool = False
    """Write grid.png again after each row of tokens, with what has been drawn so far."""
    prompts: OptionalPath = None
    """The file of prompts of a benchmark."""
    layout: Layout = "plain"
    """With --prompts, what the file is and how its scorer reads images: a prompt on each line, or GenEval's
    evaluation_metadata.jsonl (4 images a prompt), MJHQ-30K's meta_data.json, GenAI-Bench's genai_image.json."""
    device: Device = None
    """cpu, cuda, cuda:1 ..."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok generate")
    sampling = _checked(options)
    if options.prompts is not None:
        return _draw_benchmark(options, options.prompts, sampling)
    if (options.out / SETTINGS).exists():
        raise ValueError(f"{options.out} holds the images of a benchmark: choose another --out")
    drawer = Drawer(*load_language_model(options.model, options.device, encoder=False), options.guidance, sampling)
    drawer.check((f"prompt {number}", text) for number, text in enumerate(options.prompt, 1))
    _draw_grid(options, drawer)
    return 0


class Drawer:
    """Draws prompts from seeds.

    Args:
        model, processor: as loaded.
        guidance: above 0; 1 is none.
        sampling: its seed is not used.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        guidance: float,
        sampling: Sampling,
    ) -> None:
        self.model, self.processor = model, processor
        self.guidance, self.sampling = guidance, sampling

    def check(self, named: Iterable[tuple[str, str]]) -> None:
        """Refuse prompts that cannot be drawn from, before anything is drawn.

        Raises:
            ValueError: for the first that is empty, has an image in it, or leaves no room for one in the context.
        """
        room = self.processor.context_length - self.processor.image_tokens
        for name, text in named:
            try:
                inputs = self.processor(text=text, generation_mode="image", return_tensors=None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            length = len(inputs["input_ids"][0])
            if length > room:
                raise ValueError(
                    f"{name} has {length} tokens, but the context of {self.processor.context_length} leaves {room} beside the "
                    "image"
                )

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        show: Callable[[list[Image.Image]], None] | None = None,
    ) -> list[Image.Image]:
        """An image for each prompt and its seed.

        An image depends on its own prompt and seed alone, whatever the batch, unless a random number falls within rounding
        error of the border between two tokens.

        Args:
            prompts: checked.
            seeds: as many. Stretches that count up are drawn at once.
            show: called after each row of tokens with the images so far, of which the last may be unfinished.
        """
        finished: list[Image.Image] = []
        for begin, end in stretches(seeds):
            inputs = self.processor(text=list(prompts[begin:end]), generation_mode="image").to(self.model.device)
            sampling, ids = replace(self.sampling, seed=seeds[begin]), None
            for ids in self.model.stream_images(**inputs, guidance=self.guidance, sampling=sampling):
                if show is not None:
                    show([*finished, *self._pictures(self.model.decode_partial(ids))])
            assert ids is not None
            # One by one: in batches of other sizes single pixels are rounded the other way.
            for own in ids.split(1):
                finished += self._pictures(self.model.decode_image_tokens(own))
        return finished

    def _pictures(self, pixel_values: Tensor) -> list[Image.Image]:
        return self.processor.post_process_multimodal_output(pixel_values, generation_mode="image")


def stretches(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of the longest stretches of seeds that count up by one, as ``Sampling`` has those of a batch."""
    begin = 0
    for end in range(1, len(seeds) + 1):
        if end == len(seeds) or seeds[end] != seeds[end - 1] + 1:
            yield begin, end
            begin = end


def draw_grid(
    prompts: Sequence[str], seeds: Sequence[int], images: Sequence[Image.Image], *, side: int, title: str
) -> Image.Image:
    """A picture with a row for each prompt and a column for each seed.

    Args:
        prompts: written beside their rows, as far as the rows are high.
        seeds: written over the columns.
        images: row by row, squares; may be fewer than there are places.
        side: of an image in pixels. Images are enlarged a whole number of times without smoothing.
        title: at the head of the picture.
    """
    tile = side * max(1, math.ceil(TILE / side))
    step, left, top = tile + GAP, MARGIN + LABEL, MARGIN + 70
    width = max(left + len(seeds) * step - GAP, MARGIN + math.ceil(font(24).getlength(title))) + MARGIN
    picture = Image.new("RGB", (width, top + len(prompts) * step - GAP + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, INK, font(24))
    for column, seed in enumerate(seeds):
        draw.text((left + column * step + tile // 2, top - 8), f"seed {seed}", FAINT, font(15), anchor="mb")
    for row, prompt in enumerate(prompts):
        for number, line in enumerate(_wrapped(prompt, tile // LINE)):
            draw.text((MARGIN, top + row * step + LINE * number), line, INK, font(15))
    for place in range(len(prompts) * len(seeds)):
        row, column = divmod(place, len(seeds))
        x, y = left + column * step, top + row * step
        if place < len(images):
            picture.paste(images[place].resize((tile, tile), Image.Resampling.NEAREST), (x, y))
        else:
            draw.rectangle((x, y, x + tile - 1, y + tile - 1), NOT_YET)
    return picture


def _draw_grid(options: Arguments, drawer: Drawer) -> None:
    seeds = range(options.seed, options.seed + (options.seeds or SEEDS))
    jobs = [(row, seed) for row in range(len(options.prompt)) for seed in seeds]
    title = f"semhitok {Path(options.model).name}, guidance {options.guidance:g}"
    side = drawer.model.config.tokenizer_config.image_size
    images: list[Image.Image] = []

    def show(further: list[Image.Image]) -> None:
        picture = draw_grid(options.prompt, seeds, [*images, *further], side=side, title=title)
        save_image(picture, options.out / "grid.png")

    with progress_bars() as advance:
        for start in range(0, len(jobs), options.batch_size):
            part = jobs[start : start + options.batch_size]
            texts = [options.prompt[row] for row, _ in part]
            found = drawer(texts, [seed for _, seed in part], show if options.stream else None)
            for (row, seed), image in zip(part, found, strict=True):
                save_image(image, options.out / "images" / f"{row:03d}_seed{seed}.png")
            images += found
            advance("drawing", len(images), len(jobs))
    show([])
    count = f"{len(options.prompt)} prompt{'s' if len(options.prompt) > 1 else ''}"
    print(f"{count}, {len(seeds)} image{'s' if len(seeds) > 1 else ''} each, guidance {options.guidance:g}")
    for name in ("grid.png", "images"):
        print(f"wrote {options.out / name}")


def _draw_benchmark(options: Arguments, file: Path, sampling: Sampling) -> int:
    prompts = read_prompt_set(file, options.layout, options.seeds)
    drawer = Drawer(*load_language_model(options.model, options.device, encoder=False), options.guidance, sampling)
    drawer.check((f"{file}: prompt {prompt.key}", prompt.text) for prompt in prompts.prompts)
    drawn_from = asdict(sampling)
    del drawn_from["seed"]
    with progress_bars() as advance:
        drawn = draw_prompt_set(
            prompts,
            options.out,
            drawer,
            seed=options.seed,
            batch_size=options.batch_size,
            settings={"model": weights_digest(drawer.model), "guidance": options.guidance, **drawn_from},
            advance=lambda done, total: advance("drawing", done, total),
        )
    earlier = f", {len(prompts) - drawn} were there" if drawn < len(prompts) else ""
    print(f"drew {drawn} of {len(prompts)} images{earlier}")
    print(f"wrote {options.out} in the layout {options.layout}")
    return 0


def weights_digest(model: nn.Module) -> str:
    """Hex digest of names and values of all tensors: which model drew the images, wherever it lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _checked(options: Arguments) -> Sampling:
    """The options make sense together, or a ``UsageError``."""
    if not options.prompt and options.prompts is None:
        raise UsageError("say what to draw, in quotation marks, or name a file of prompts with --prompts")
    if options.prompt and options.prompts is not None:
        raise UsageError("prompts come from the command line or from --prompts, not from both")
    if options.prompts is None and options.layout != "plain":
        raise UsageError(f"--layout {options.layout} is for a file of prompts, named with --prompts")
    if options.prompts is not None and options.stream:
        raise UsageError("--stream shows prompts from the command line as they are drawn, not those of --prompts")
    for number, text in enumerate(options.prompt, 1):
        if not text.strip():
            raise UsageError(f"prompt {number} is empty")
    values: dict[str, Any] = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")}
    try:
        check_guidance(options.guidance)
        return Sampling(**values)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _wrapped(text: str, lines: int) -> list[str]:
    """The text in lines that fit the column of prompts; where there is no room for all of it, an ellipsis at the end."""
    found, face = [""], font(15)
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if face.getlength(longer) <= LABEL - 16 or not found[-1]:
            found[-1] = longer
        else:
            found.append(word)
    return found if len(found) <= lines else [*found[: lines - 1], f"{found[lines - 1]} ..."]
