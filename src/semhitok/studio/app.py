"""The page itself: header, tabs, colours."""

from __future__ import annotations

import gradio as gr
from gradio.themes.base import Base
from gradio.themes.utils.colors import Color, gray
from gradio.themes.utils.fonts import Font

from semhitok.studio.tabs import ask_tab, codes_tab, compare_tab, draw_tab, reconstruct_tab
from semhitok.studio.workspace import Workspace

TITLE = "semhitok studio"
HEADER = """
<header><h1>semhitok <span>studio</span></h1>
<p>One set of image tokens to understand and to generate: see what each token keeps, change it, draw with it, ask about it.</p>
</header>
"""
ACCENT = Color(
    *(
        "#eefaf7",
        "#d3f2ea",
        "#a8e4d6",
        "#74d0bd",
        "#42b5a0",
        "#1f9a86",
        "#127c6c",
        "#0f6458",
        "#0f5048",
        "#0f423c",
        "#062824",
    ),
    name="accent",
)


def build(workspace: Workspace) -> gr.Blocks:
    """The page of a workspace."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(HEADER, apply_default_css=False, elem_classes=["piece"])
        with gr.Tabs():
            with gr.Tab("Reconstruct"):
                reconstruct_tab(page, workspace)
            with gr.Tab("Codes") as tab:
                codes_tab(tab, workspace)
            with gr.Tab("Draw"):
                draw_tab(workspace)
            with gr.Tab("Ask") as tab:
                ask_tab(tab, workspace)
            with gr.Tab("Compare") as tab:
                compare_tab(tab, workspace)
    return page


def theme() -> Base:
    """One accent colour on neutral greys, in the fonts of the system."""
    sans = [Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")]
    mono = [Font(name) for name in ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")]
    return Base(primary_hue=ACCENT, secondary_hue=ACCENT, neutral_hue=gray, font=sans, font_mono=mono).set(
        body_background_fill="#fafaf9",
        body_background_fill_dark="#0f1413",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171d1c",
        block_info_text_color="#5b6670",
        block_label_text_color="#5b6670",
        block_title_text_color="*neutral_800",
        input_placeholder_color="#6b7280",
        input_background_fill_dark="#222a29",
        checkbox_label_background_fill_dark="#222a29",
        checkbox_label_background_fill_selected_dark="#222a29",
        block_border_width="1px",
        block_radius="10px",
        button_large_radius="8px",
        button_large_text_size="*text_md",
        button_large_text_weight="500",
        button_large_padding="9px 18px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        slider_color="*primary_600",
    )
