"""The five tabs as Gradio components: what is where, and which function runs when. What they show is made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from semhitok.data.images import load_image
from semhitok.studio import ask, codes, compare, draw, reconstruct
from semhitok.studio.html import empty
from semhitok.studio.parts import (
    PRIVATE,
    chips,
    examples,
    in_a_sentence,
    photograph,
    picked,
    picked_image,
    picked_text,
    piece,
    thumbnails,
)
from semhitok.studio.workspace import Workspace

CHECKPOINT = "A bundled name, the folder of a model or of a training run, or a hub id."


def reconstruct_tab(page: gr.Blocks, workspace: Workspace) -> None:
    """Drop a photograph, see what comes back."""
    files = examples(workspace.photographs())
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            image = photograph("Photograph")
            thumbs = piece(thumbnails(files, "Example photographs"))
            names = gr.Dropdown(
                list(workspace.tokenizers),
                value=list(workspace.tokenizers),
                multiselect=True,
                allow_custom_value=True,
                label="Tokenizers, side by side",
                info=CHECKPOINT,
            )
            fit = gr.Radio(list(reconstruct.FITS), value="Crop the centre", label="Photographs that are not square")
        with gr.Column(scale=5, min_width=320):
            result = piece(empty("Drop a photograph, or choose one of the examples."))

    def show(path: str | None, chosen: list[str], how: str) -> str:
        return reconstruct.show(workspace, path, chosen, reconstruct.FITS[how])

    thumbs.click(in_a_sentence(picked_image(files)), None, image, **PRIVATE)
    gr.on(
        [image.change, names.change, fit.change],
        in_a_sentence(show),
        [image, names, fit],
        result,
        trigger_mode="always_last",
        **PRIVATE,
    )
    if files:
        page.load(in_a_sentence(lambda: load_image(files[0])), None, image, **PRIVATE)


def codes_tab(tab: gr.Tab, workspace: Workspace) -> None:
    """Look at tokens, change them, mix them."""
    files = examples(workspace.photographs())
    state = gr.State(None)
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            image = photograph("Photograph", 180)
            thumbs = piece(thumbnails(files, "Example photographs"))
            model = _model_choice(workspace.tokenizers, "Tokenizer")
            folder = gr.Textbox(
                "",
                label="Find patches in",
                placeholder="the examples",
                info="A folder of your images, up to 2,000 of them; Enter searches.",
            )
        with gr.Column(scale=5, min_width=320):
            with gr.Row():
                with gr.Column(min_width=260):
                    gr.Markdown("### Choose a patch")
                    original = piece(empty("Drop a photograph, or choose one of the examples."))
                with gr.Column(min_width=260):
                    gr.Markdown("### Its tokens, decoded")
                    decoded = piece()
            facts = piece()
            gr.Markdown(
                "### The sub-codebook, drawn in place\nThis patch under every pixel code; choose one to put it there."
            )
            sub_codebook = piece(kind="sub-codebook")
            with gr.Row(elem_classes="token-row"):
                semantic = gr.Number(label="Semantic code k", precision=0, minimum=0, min_width=120)
                pixel = gr.Number(label="Pixel code j", precision=0, minimum=0, min_width=120)
                put = gr.Button("Put this token here", variant="primary", min_width=140)
                undo = gr.Button("Undo all changes", min_width=140)
            gr.Markdown("### Other patches with this semantic code")
            others = piece()
            gr.Markdown(
                "### Mix two images\nThe semantic codes of one image with the pixel codes of another: what is meaning, what is looks?"
            )
            with gr.Row():
                with gr.Column(scale=1, min_width=200):
                    second = photograph("Second photograph", 160)
                    second_thumbs = piece(thumbnails(files, "Examples for the second photograph"))
                with gr.Column(scale=3, min_width=280):
                    mixed = piece(empty("Choose a second photograph to mix the codes of both."))
    outputs = [state, original, decoded, facts, sub_codebook, semantic, pixel, others]

    def view(editing: codes.Editing, where: str) -> tuple[Any, ...]:
        k, j = editing.codes.at(editing.position)
        return (
            editing,
            codes.original_grid(editing),
            codes.decoded(editing),
            codes.token_facts(editing),
            codes.sub_codebook(editing),
            k,
            j,
            codes.other_patches(workspace, editing, where),
        )

    def start(path: str | None, name: str, where: str) -> Any:
        return gr.skip() if path is None else view(codes.open_image(workspace, path, name), where)

    def choose(editing: codes.Editing | None, where: str, event: gr.EventData) -> Any:
        place = picked(event)
        return gr.skip() if editing is None or not place else view(replace(editing, position=int(place)), where)

    def put_token(editing: codes.Editing | None, k: float | None, j: float | None, where: str) -> Any:
        return gr.skip() if editing is None else view(codes.change_token(editing, k, j), where)

    def put_pixel_code(editing: codes.Editing | None, where: str, event: gr.EventData) -> Any:
        j = picked(event)
        if editing is None or not j:
            return gr.skip()
        return view(codes.change_token(editing, editing.codes.at(editing.position)[0], int(j)), where)

    def undo_all(editing: codes.Editing | None, where: str) -> Any:
        return gr.skip() if editing is None else view(replace(editing, codes=editing.read), where)

    def mix(first: str | None, other: str | None, name: str) -> str:
        return codes.mix(workspace, first, other, name)

    gr.on([image.change, model.change], in_a_sentence(start), [image, model, folder], outputs, **PRIVATE)
    original.click(in_a_sentence(choose), [state, folder], outputs, **PRIVATE)
    sub_codebook.click(in_a_sentence(put_pixel_code), [state, folder], outputs, **PRIVATE)
    put.click(in_a_sentence(put_token), [state, semantic, pixel, folder], outputs, **PRIVATE)
    undo.click(in_a_sentence(undo_all), [state, folder], outputs, **PRIVATE)
    folder.submit(
        in_a_sentence(
            lambda editing, where: gr.skip() if editing is None else codes.other_patches(workspace, editing, where)
        ),
        [state, folder],
        others,
        **PRIVATE,
    )
    gr.on([second.change, image.change, model.change], in_a_sentence(mix), [image, second, model], mixed, **PRIVATE)
    thumbs.click(in_a_sentence(picked_image(files)), None, image, **PRIVATE)
    second_thumbs.click(in_a_sentence(picked_image(files)), None, second, **PRIVATE)
    if files:
        other = files[min(3, len(files) - 1)]

        def begin(one: str | None, two: str | None) -> tuple[Any, Any]:
            return gr.skip() if one else load_image(files[0]), gr.skip() if two else load_image(other)

        tab.select(in_a_sentence(begin), [image, second], [image, second], **PRIVATE)


def draw_tab(workspace: Workspace) -> None:
    """Write what to draw, see it appear row by row."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            prompts = gr.Textbox(draw.PROMPTS[0], lines=2, label="Prompts, one in each line")
            offered = piece(chips(draw.PROMPTS, "Example prompts"))
            guidance = gr.Slider(
                1, 10, 3, step=0.5, label="Guidance", info="How closely images follow the prompt; 1 turns it off."
            )
            count = gr.Slider(1, 8, 4, step=1, label="Images per prompt")
            seed = gr.Number(0, label="First seed", precision=0, minimum=0)
            with gr.Row():
                begin = gr.Button("Draw", variant="primary", min_width=110)
                stop = gr.Button("Stop", min_width=110)
            model = _model_choice(workspace.language_models, "Language model")
        with gr.Column(scale=5, min_width=320):
            result = piece(empty("Images appear here, row by row as they are made."))

    def run(name: str, text: str, scale: float, first: float | None, images: float) -> Iterator[str]:
        yield from draw.draw(workspace, name, text, scale, first, int(images))

    running = begin.click(in_a_sentence(run), [model, prompts, guidance, seed, count], result, **PRIVATE)
    stop.click(None, None, None, cancels=[running], api_visibility="private")
    offered.click(picked_text, None, prompts, **PRIVATE)


def ask_tab(tab: gr.Tab, workspace: Workspace) -> None:
    """Ask about images."""
    files = examples(workspace.scenes())
    state, asked = gr.State(None), gr.State("")
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            images = gr.Gallery(
                label="Images, shown before the first question",
                file_types=["image"],
                interactive=True,
                columns=2,
                height=260,
                format="png",
                object_fit="contain",
                buttons=[],
                type="filepath",
            )
            thumbs = piece(thumbnails(files, "Example images"))
            model = _model_choice(workspace.language_models, "Language model")
        with gr.Column(scale=5, min_width=320):
            talk = gr.Chatbot(label="Conversation", height=380, layout="bubble", buttons=[], render_markdown=False)
            question = gr.Textbox(
                label="Question", placeholder="Ask about the images, and press Enter", submit_btn=False
            )
            offered = piece(chips(ask.QUESTIONS, "Example questions"))
            with gr.Row():
                send = gr.Button("Ask", variant="primary", min_width=110)
                stop = gr.Button("Stop", min_width=110)
                anew = gr.Button("New conversation", min_width=110)

    def answer(chat: ask.Chat | None, name: str, shown: list[Any] | None, text: str) -> Iterator[Any]:
        paths = [entry[0] if isinstance(entry, tuple) else entry for entry in shown or []]
        chat = chat or ask.Chat()
        for messages in ask.ask(workspace, chat, name, paths, text):
            yield chat, messages

    # The question leaves its field at once, so that the next one can be typed while the answer is generated.
    take = {"inputs": question, "outputs": [asked, question], "queue": False, **PRIVATE}
    answers = {"inputs": [state, model, images, asked], "outputs": [state, talk], **PRIVATE}
    running: list[dict[str, Any]] = [
        gr.on([send.click, question.submit], lambda text: (text, ""), **take).then(in_a_sentence(answer), **answers),
        offered.click(picked_text, None, asked, **PRIVATE).success(in_a_sentence(answer), **answers),
    ]
    stop.click(None, None, None, cancels=running, api_visibility="private")
    gr.on([anew.click, talk.clear], lambda: (None, []), None, [state, talk], **PRIVATE)

    load = picked_image(files)

    def replace_images(event: gr.EventData) -> Any:
        image = load(event)
        return image if isinstance(image, dict) else [image]

    thumbs.click(in_a_sentence(replace_images), None, images, **PRIVATE)
    if files:
        tab.select(
            in_a_sentence(lambda shown: gr.skip() if shown else [load_image(files[0])]), images, images, **PRIVATE
        )


def compare_tab(tab: gr.Tab, workspace: Workspace) -> None:
    """Results as a picture and a table."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280, elem_classes="controls"):
            folder = gr.Textbox(
                "",
                label="Results",
                placeholder="the bundled results",
                info="A folder of .json files; Enter reads it.",
            )
            chosen = gr.Dropdown([compare.EVERYTHING], value=compare.EVERYTHING, label="Table")
            words = gr.Textbox("", label="Only experiments named", placeholder="semhitok m8")
            across = gr.Dropdown([(compare.title("bits"), "bits")], value="bits", label="Horizontal axis")
            up = gr.Dropdown([(compare.title("psnr"), "psnr")], value="psnr", label="Vertical axis")
        with gr.Column(scale=5, min_width=320):
            plot = piece(empty("Results appear here."), "plot")
            table = piece()

    def places(path: str) -> list[Path]:
        found = [Path(path.strip()).expanduser()] if path.strip() else workspace.results_folders()
        if not found:
            raise ValueError("there are no bundled results here; name a folder of results")
        return found

    def read(path: str) -> Any:
        where = places(path)
        everything = compare.Selection()
        figures = compare.figures_in(compare.select(where, everything))
        x, y = ("bits", "psnr") if {"bits", "psnr"} <= set(figures) else (figures[0], figures[min(1, len(figures) - 1)])
        named = [(compare.title(name), name) for name in figures]
        return (
            gr.Dropdown(compare.tables_in(where), value=compare.EVERYTHING),
            gr.Dropdown(named, value=x),
            gr.Dropdown(named, value=y),
            *show(path, everything.tables, "", x, y),
        )

    def show(path: str, name: str, only: str, x: str, y: str) -> tuple[str, str]:
        where, selection = places(path), compare.Selection(name, only)
        return compare.draw_picture(where, selection, x, y), compare.draw_table(where, selection, x, y)

    opened = [chosen, across, up, plot, table]
    folder.submit(in_a_sentence(read), folder, opened, **PRIVATE)
    tab.select(in_a_sentence(read), folder, opened, **PRIVATE)
    gr.on(
        [chosen.input, words.change, across.input, up.input],
        in_a_sentence(show),
        [folder, chosen, words, across, up],
        [plot, table],
        trigger_mode="always_last",
        **PRIVATE,
    )


def _model_choice(names: Sequence[str], label: str) -> gr.Dropdown:
    return gr.Dropdown(list(names), value=names[0], allow_custom_value=True, label=label, info=CHECKPOINT)
