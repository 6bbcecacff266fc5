"""Chat templates that cost too much or are none are refused in one sentence; all others render as in transformers."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.checkpoint_subjects import CHAT
from benchmarks.hostile_configurations import TEMPLATES
from tests.mllm.tiny_mllm import mllm, processor
from transformers.utils.chat_template_utils import render_jinja_template

from semhitok.mllm import SemHiTokMLLMProcessor
from semhitok.mllm.bounded_templates import CostlyTemplateError, check_rendering, check_template
from semhitok.runs.language_models import CHAT_TEMPLATE

USUAL = (
    CHAT_TEMPLATE,
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] ~ '<|im_end|>' }}{% endfor %}",
    "{%- set ns = namespace(n=0) %}{%- for m in messages %}{%- if loop.first %}{%- continue %}{%- endif %}"
    "{%- set ns.n = ns.n + loop.index * 2 %}{% generation %}{{ m | tojson }}{% endgeneration %}{%- endfor %}{{ ns.n }}",
    "{% macro turn(m, mark='>') %}{{ mark * 3 }}{{ m.content | trim | upper }}{% endmacro %}"
    "{% for m in messages[::-1] %}{{ turn(m) }}{% endfor %}{{ messages | map(attribute='role') | list | join(', ') }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v.split(' ')[-1] }}{% endfor %}{{ '%s|%5d' % ('a', 3) }}"
    "{{ '{:>4}'.format(3) }}{{ dict(a=1) }}{{ range(3) | list }}{{ 2 ** 8 }}{{ messages | selectattr('role', 'equalto', 'user') "
    "| list | length }}{% if tools is defined and tools %}{{ tools | length }}{% endif %}{{ strftime_now('%Y') }}",
)

HARMLESS = ("{{ self }}",)


@pytest.mark.parametrize("template", USUAL)
def test_usual_templates_pass_and_are_counted_by_the_same_rules(template: str, monkeypatch: pytest.MonkeyPatch):
    variables = {
        "messages": CHAT * 50,
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "eos_token": "E",
    }
    pieces: list[str] = []
    monkeypatch.setattr("semhitok.mllm.bounded_templates._Budget.write", lambda self, piece: pieces.append(piece))
    check_rendering(template, variables)
    rendered, _ = render_jinja_template([CHAT * 50], chat_template=template, add_generation_prompt=True, eos_token="E")
    assert "".join(pieces) == rendered[0]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """One GiB of addresses more than now: what is not refused fails instead of taking the machine's memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("template", TEMPLATES)
def test_hostile_templates_are_one_sentence_soon(template: str):
    begun = time.process_time()
    if template in HARMLESS:
        check_rendering(template, {"messages": CHAT})
    else:
        with pytest.raises(ValueError, match=r"^the chat template ") as caught:
            check_rendering(template, {"messages": CHAT})
        assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ("'x'|center(10000000000)", "for more than 1048576 of something"),
        ("'x'|center(10 ** 9 + 10 ** 9)", "for more than 1048576 of something"),
        ("'x'|center(('99999' ~ '9999')|int)", "for more than 1048576 of something"),
        ("10 ** (10 ** 10)", "a number without end"),
        ("10 ** ('10'|int ** 10)", "a number without end"),
        ("('x' * 10 ** 9)|length", "takes more than 1000000 steps"),
    ],
)
def test_a_constant_that_is_never_rendered_is_refused_because_it_is_computed(constant: str, message: str):
    with pytest.raises(CostlyTemplateError, match=message):
        check_template(f"{{% if false %}}{{{{ {constant} }}}}{{% endif %}}")


def test_a_processor_refuses_such_templates_when_it_is_loaded_or_used(tmp_path: Path):
    model = mllm()
    prompts = processor(model)
    prompts.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(
        ValueError, match=f"^{tmp_path} cannot be loaded: the chat template cannot be read, line 1: "
    ) as caught:
        SemHiTokMLLMProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[7])
    loaded = SemHiTokMLLMProcessor.from_pretrained(tmp_path)
    with pytest.raises(CostlyTemplateError, match="takes more than 1000000 steps for this conversation"):
        loaded.apply_chat_template(CHAT)
    with pytest.raises(ValueError, match=r"cannot be applied \(TemplateError: roles must alternate\)$"):
        prompts.apply_chat_template(CHAT, chat_template="{{ raise_exception('roles must alternate') }}")
    assert prompts.apply_chat_template(CHAT, chat_template="{{ messages[0].content }}") == "is there a cat"
