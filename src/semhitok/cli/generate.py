"""``semhitok generate``: images from prompts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from semhitok.cli.arguments import COUNT, Checkpoint, Count, Device, OptionalPath, UsageError, default
from semhitok.cli.progress import progress_bars
from semhitok.inference import DEFAULT_LANGUAGE_MODEL
from semhitok.types import PromptLayout

if TYPE_CHECKING:
    from PIL import Image

    from semhitok.inference.image_generator import ImageGenerator
    from semhitok.mllm import Sampling

SEEDS = 4


@dataclass(frozen=True)
class Arguments:
    """Generate images from prompts.

    Prompts on the command line produce --out/grid.png, with a row for each prompt and a column for each seed, and single
    images in --out/images. --prompts takes a benchmark instead; rerunning an interrupted command resumes it.
    """

    prompt: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT ...", help_behavior_hint="")
    ] = ()
    """Prompts, each in quotation marks."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("generated")
    """Folder to write to."""
    model: Checkpoint = DEFAULT_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a bundled checkpoint."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="SCALE"), default("the model's own")] = None
    """Scale of classifier-free guidance: above 1 follows the prompt more closely, 1 disables it."""
    seeds: Annotated[int | None, COUNT, default(f"{SEEDS}; for a benchmark as many as it needs")] = None
    """Number of images for each prompt."""
    seed: int = 0
    """Seed of the first column; later columns count up."""
    temperature: float = 1.0
    """0 always takes the most likely token, so that all columns are the same; 1 samples from the model's own distribution."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="N"), default("the model's own")] = None
    """Top-k sampling: number of most likely tokens to sample from; 0 for all."""
    top_p: float = 1.0
    """Nucleus sampling: share of the probability mass, most likely tokens first, to sample from."""
    batch_size: Count = 16
    """Number of images per batch."""
    stream: bool = False
    """Rewrite grid.png after each row of tokens to show the images so far."""
    prompts: OptionalPath = None
    """Prompt file of a benchmark."""
    layout: PromptLayout = "plain"
    """With --prompts, format of the file and of the images for its scorer: a prompt on each line, or GenEval's
    evaluation_metadata.jsonl (4 images a prompt), MJHQ-30K's meta_data.json, GenAI-Bench's genai_image.json."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok generate")
    sampling = _checked(options)
    if options.prompts is not None:
        return _generate_benchmark(options, options.prompts, sampling)
    from semhitok.evaluation.text_to_image.prompt_sets import SETTINGS

    if (options.out / SETTINGS).exists():
        raise ValueError(f"{options.out} holds the images of a benchmark: choose another --out")
    generator = _generator(options, sampling)
    generator.check((f"prompt {number}", text) for number, text in enumerate(options.prompt, 1))
    _generate_grid(options, generator)
    return 0


def _generator(options: Arguments, sampling: Sampling) -> ImageGenerator:
    from semhitok.inference.image_generator import ImageGenerator
    from semhitok.inference.loading import load_language_model

    parts = load_language_model(options.model, options.device, encoder=False)
    if options.top_k is None:
        sampling = replace(sampling, top_k=parts[0].config.image_top_k)
    return ImageGenerator(*parts, guidance=options.guidance, sampling=sampling)


def _generate_grid(options: Arguments, generator: ImageGenerator) -> None:
    from semhitok.evaluation.text_to_image.prompt_sets import save_image
    from semhitok.visualization.prompt_grid import draw_prompt_grid

    seeds = range(options.seed, options.seed + (options.seeds or SEEDS))
    jobs = [(row, seed) for row in range(len(options.prompt)) for seed in seeds]
    title = f"semhitok {Path(options.model).name}, guidance {generator.guidance:g}"
    side = generator.model.config.tokenizer_config.image_size
    images: list[Image.Image] = []

    def show(further: list[Image.Image]) -> None:
        picture = draw_prompt_grid(options.prompt, seeds, [*images, *further], side=side, title=title)
        save_image(picture, options.out / "grid.png")

    with progress_bars() as advance:
        for start in range(0, len(jobs), options.batch_size):
            part = jobs[start : start + options.batch_size]
            texts, own_seeds = [options.prompt[row] for row, _ in part], [seed for _, seed in part]
            if options.stream:
                for found in generator.stream(texts, own_seeds):
                    show(found)
            else:
                found = generator(texts, own_seeds)
            for (row, seed), image in zip(part, found, strict=True):
                save_image(image, options.out / "images" / f"{row:03d}_seed{seed}.png")
            images += found
            advance("generating", len(images), len(jobs))
    show([])
    count = f"{len(options.prompt)} prompt{'s' if len(options.prompt) > 1 else ''}"
    print(f"{count}, {len(seeds)} image{'s' if len(seeds) > 1 else ''} each, guidance {generator.guidance:g}")
    for name in ("grid.png", "images"):
        print(f"wrote {options.out / name}")


def _generate_benchmark(options: Arguments, file: Path, sampling: Sampling) -> int:
    from semhitok.evaluation.text_to_image.prompt_sets import draw_prompt_set, read_prompt_set
    from semhitok.inference.image_generator import weights_digest

    prompts = read_prompt_set(file, options.layout, options.seeds)
    generator = _generator(options, sampling)
    generator.check((f"{file}: prompt {prompt.key}", prompt.text) for prompt in prompts.prompts)
    drawn_from = asdict(generator.sampling)
    del drawn_from["seed"]
    with progress_bars() as advance:
        drawn = draw_prompt_set(
            prompts,
            options.out,
            generator,
            seed=options.seed,
            batch_size=options.batch_size,
            settings={"model": weights_digest(generator.model), "guidance": generator.guidance, **drawn_from},
            advance=lambda done, total: advance("generating", done, total),
        )
    earlier = f", {len(prompts) - drawn} were there already" if drawn < len(prompts) else ""
    print(f"generated {drawn} of {len(prompts)} images{earlier}")
    print(f"wrote {options.out} in the layout {options.layout}")
    return 0


def _checked(options: Arguments) -> Sampling:
    """The sampling options, top-k as far as it is given; a ``UsageError`` if options contradict each other."""
    if not options.prompt and options.prompts is None:
        raise UsageError("pass prompts in quotation marks, or a file of prompts with --prompts")
    if options.prompt and options.prompts is not None:
        raise UsageError("prompts come from the command line or from --prompts, not from both")
    if options.prompts is None and options.layout != "plain":
        raise UsageError(f"--layout {options.layout} needs a file of prompts, passed with --prompts")
    if options.prompts is not None and options.stream:
        raise UsageError("--stream works with prompts from the command line, not with those of --prompts")
    for number, text in enumerate(options.prompt, 1):
        if not text.strip():
            raise UsageError(f"prompt {number} is empty")
    from semhitok.mllm import Sampling
    from semhitok.mllm.prompts import check_guidance

    values: dict[str, Any] = {name: getattr(options, name) for name in ("temperature", "top_p", "seed")}
    try:
        check_guidance(options.guidance)
        return Sampling(top_k=options.top_k or 0, **values)
    except ValueError as error:
        raise UsageError(str(error)) from error
