"""``semhitok evaluate-mllm``: how well a language model understands composed scenes and generates images of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from semhitok.cli.arguments import Checkpoint, Count, DataPlaces, Device, Limit, OptionalPath, UsageError, default
from semhitok.cli.progress import Advance, progress_bars
from semhitok.inference import DEFAULT_LANGUAGE_MODEL
from semhitok.storage.atomic import write_text

if TYPE_CHECKING:
    from semhitok.evaluation.text_to_image.judge import Judge
    from semhitok.evaluation.text_to_image.report import GenerationReport
    from semhitok.evaluation.understanding.in_words import WordsReport
    from semhitok.evaluation.understanding.understand import UnderstandingReport

PICTURED = 6
JUDGE = "judge.safetensors"


@dataclass(frozen=True)
class Arguments:
    """Measure a unified language model on composed scenes with ground truth.

    Understanding: questions about existence (POPE's metrics), number, position and category, and captions, compared with
    answers that do not use the image. Generation: whether a judge finds the objects of a prompt, in the right number and
    place, compared with real and reconstructed scenes. The judge is fitted once on the training scenes and kept in --out.
    """

    scenes: DataPlaces
    """Sets of test scenes (`semhitok data scenes`), such as scenes-100/shared; prompts come from the first set."""
    train: OptionalPath = None
    """Training scenes, on which the judge and the blind baselines are fitted; not needed with --no-images."""
    model: Checkpoint = DEFAULT_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a bundled checkpoint."""
    limit: Limit = None
    """Maximum number of test scenes of each set, from the first on; whole shards keep the questions balanced."""
    images: bool = True
    """Show the images; without them, captions take their place, and nothing is drawn."""
    draw: bool = True
    """Generate images and judge them; without it only answers are measured."""
    prompts: Count = 300
    """Number of prompts to generate images from."""
    guidance: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SCALE ...")] = (1.0, 2.0, 4.0, 7.0)
    """Scales of classifier-free guidance; 1 disables it."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="N"), default("the model's own")] = None
    """Top-k sampling: number of most likely tokens to sample from; 0 for all."""
    judge: OptionalPath = None
    """A judge fitted earlier, to use in place of a new one."""
    judge_scenes: Count = 8000
    """Number of training scenes that a new judge is fitted on."""
    seed: int = 0
    """Seed of the first image; later images count up."""
    batch_size: Count = 64
    """Number of prompts per batch."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("evaluation-mllm")
    """Folder to write to."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok evaluate-mllm")
    from semhitok.evaluation.text_to_image.generation import draw_and_judge
    from semhitok.evaluation.understanding.in_words import answers_in_words
    from semhitok.evaluation.understanding.understand import understand
    from semhitok.inference.loading import load_language_model

    names = [Path(place).name for place in options.scenes]
    if len(set(names)) < len(names):
        raise UsageError(f"sets of scenes must have different names, got {', '.join(names)}")
    if options.images and options.train is None:
        raise UsageError("--train is missing: training scenes, on which the judge and the blind baselines are fitted")
    model, processor = load_language_model(options.model, options.device)
    top_k: int = model.config.image_top_k if options.top_k is None else options.top_k
    answers: dict[str, UnderstandingReport | WordsReport] = {}
    drawing: GenerationReport | None = None
    options.out.mkdir(parents=True, exist_ok=True)
    with progress_bars() as advance:
        for name, place in zip(names, options.scenes, strict=True):
            if not options.images:
                answers[name] = answers_in_words(
                    model, processor, place, limit=options.limit, batch_size=options.batch_size, progress=advance
                )
                continue
            assert options.train is not None
            answers[name] = understand(
                model,
                processor,
                place,
                train_folder=options.train,
                limit=options.limit,
                batch_size=options.batch_size,
                progress=advance,
            )
        if options.draw and options.images:
            drawing = draw_and_judge(
                model,
                processor,
                _judge(options, model, advance),
                options.scenes[0],
                guidances=options.guidance,
                prompts=options.prompts,
                seed=options.seed,
                batch_size=options.batch_size,
                top_k=top_k,
                progress=advance,
            )
            _picture(options, model, processor, top_k)
    _write(options, answers, drawing)
    return 0


def _judge(options: Arguments, model: Any, advance: Advance) -> Judge:
    from semhitok.evaluation.text_to_image.judge import Judge
    from semhitok.evaluation.text_to_image.judge_training import fit_judge

    path = options.judge or options.out / JUDGE
    if path.is_file() or options.judge is not None:
        return Judge.load(path)
    assert options.train is not None
    judge = fit_judge(options.train, model.image_tokenizer, limit=options.judge_scenes, progress=advance)
    judge.save(path)
    return judge


def _picture(options: Arguments, model: Any, processor: Any, top_k: int) -> None:
    """A picture of the first prompts, not cherry-picked, at every guidance scale."""
    from semhitok.evaluation.text_to_image.generation import draw_images
    from semhitok.evaluation.text_to_image.prompt_sets import save_image
    from semhitok.evaluation.text_to_image.prompts import prompts_of
    from semhitok.evaluation.text_to_image.report import guidance_name
    from semhitok.scenes.truth import read_scenes
    from semhitok.visualization.guidance_grid import guidance_picture

    scenes = read_scenes(options.scenes[0], processor.image_processor.size, limit=20 * PICTURED, bare=False)
    texts = [prompt.text for prompt in prompts_of(scenes.truths, PICTURED)]
    drawn = {
        guidance_name(guidance): draw_images(
            model, processor, texts, guidance=guidance, seed=options.seed, batch_size=PICTURED, top_k=top_k
        )
        for guidance in options.guidance
    }
    title = f"{Path(options.model).name}: the first {PICTURED} prompts by guidance"
    picture = guidance_picture(drawn, texts, title=title, subtitle=f"seed {options.seed} + row; not cherry-picked")
    save_image(picture, options.out / "guidance.png")


def _write(
    options: Arguments, answers: dict[str, UnderstandingReport | WordsReport], drawing: GenerationReport | None
) -> None:
    content = {
        "model": options.model,
        "understanding": {name: asdict(report) for name, report in answers.items()},
        "drawing": None if drawing is None else json.loads(drawing.to_json()),
    }
    sections = [f"### Answers: {name}\n\n{report.to_markdown()}" for name, report in answers.items()]
    if drawing is not None:
        sections.append(f"### Generated images: {Path(options.scenes[0]).name}\n\n{drawing.to_markdown()}")
    text = "\n".join(sections)
    write_text(options.out / "report.json", json.dumps(content, indent=1))
    write_text(options.out / "report.md", text)
    print(text)
    print(f"wrote {options.out / 'report.json'}\nwrote {options.out / 'report.md'}")
