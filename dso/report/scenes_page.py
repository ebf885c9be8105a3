"""Example scenes and answers at ω = 0 and 1 as one HTML file: no network, no JavaScript.

The page is built as a tree of elements, which escapes every text; pictures are PNGs inside it.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from dso.report.scene_examples import (
    COLOURS,
    KEYS,
    LABELS,
    NOTE,
    SHOWN,
    Asked,
    Bar,
    Described,
    ScenesPage,
    Section,
    Twins,
)
from dso.scenes.attributes import Scene
from dso.scenes.drawing import render

STYLE = f"""
:root {{ --woman: {COLOURS["woman"]}; --man: {COLOURS["man"]}; --right: {COLOURS["right"]};
  --wrong: {COLOURS["wrong"]}; --line: #dcdcdc; --quiet: #555; }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; color: #1c1c1c; background: #fbfbf9; margin: 0 auto; max-width: 1120px;
  padding: 32px 24px 64px; }}
h1 {{ font-size: 30px; line-height: 1.2; margin: 0 0 4px; }}
h2 {{ font-size: 21px; margin: 44px 0 4px; }}
h3 {{ font-size: 16px; margin: 0; }}
p {{ margin: 6px 0; max-width: 78ch; }}
.quiet {{ color: var(--quiet); font-size: 14px; }}
table {{ border-collapse: collapse; margin: 16px 0; background: #fff; }}
th, td {{ border: 1px solid var(--line); padding: 5px 12px; text-align: left; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.cards {{ display: grid; gap: 16px; margin-top: 14px; }}
.columns2 {{ grid-template-columns: repeat(2, 1fr); }}
.columns4 {{ grid-template-columns: repeat(4, 1fr); }}
.columns5 {{ grid-template-columns: repeat(5, 1fr); }}
.card {{ background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px;
  break-inside: avoid; }}
.card header {{ display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: baseline; }}
.two {{ display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin: 10px 0; }}
.beside {{ display: grid; grid-template-columns: 170px 1fr; gap: 16px; }}
.chip {{ font-size: 12px; border: 1px solid #888; border-radius: 9px; padding: 0 8px;
  white-space: nowrap; }}
.chip.heldout {{ background: #1c1c1c; border-color: #1c1c1c; color: #fff; }}
img {{ display: block; width: 100%; height: auto; border-radius: 4px; }}
h3:empty, p:empty {{ display: none; }}
.question {{ font-style: italic; }}
.answers {{ display: grid; grid-template-columns: max-content 1fr; gap: 5px 8px; margin-top: 8px;
  align-items: center; font-size: 13px; }}
.strength {{ color: var(--quiet); white-space: nowrap; }}
.bar {{ display: flex; height: 22px; border-radius: 4px; overflow: hidden; background: #eee; }}
.bar span {{ white-space: nowrap; overflow: hidden; line-height: 22px; padding: 0;
  min-width: 0; text-align: center; }}
.sides {{ display: flex; justify-content: space-between; grid-column: 2;
  font-variant-numeric: tabular-nums; margin-top: -4px; font-size: 12px; }}
.options {{ display: grid; grid-template-columns: max-content 1fr 3.2em; gap: 2px 8px;
  font-size: 13px; align-items: center; margin-top: 2px; }}
.options .bar {{ height: 12px; }}
.options .percent {{ text-align: right; font-variant-numeric: tabular-nums; }}
.options .label {{ grid-column: 1 / -1; color: var(--quiet); margin-top: 6px; }}
.woman {{ background: var(--woman); color: #1c1c1c; }}
.man {{ background: var(--man); color: #fff; }}
.right {{ background: var(--right); color: #fff; }}
.wrong {{ background: var(--wrong); color: #1c1c1c; }}
.key {{ display: inline-block; padding: 0 8px; border-radius: 4px; font-size: 13px;
  margin-right: 6px; }}
@media screen and (max-width: 960px) {{
  .columns2 {{ grid-template-columns: 1fr; }}
  .columns4, .columns5 {{ grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }} }}
@media print {{ body {{ background: #fff; padding: 0; font-size: 12px; }}
  h2 {{ break-after: avoid; }}
  * {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; }} }}
"""


def write_scenes_page(page: ScenesPage, path: str | Path) -> None:
    """Write the page; missing folders are created.

    Raises:
        ValueError: a figure that is not among the page's results.
    """
    root = _element(
        "html",
        _element(
            "head",
            Element("meta", charset="utf-8"),
            Element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            _element("title", page.title),
            _element("style", STYLE),
        ),
        _element("body", *_top(page), *(_section(section) for section in page.sections)),
    )
    root.set("lang", "en")
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"<!DOCTYPE html>\n{text}\n", encoding="utf-8")


def _element(tag: str, *children: Element | str, kind: str = "") -> Element:
    """An element with texts and elements in it; `kind` is its class."""
    made = Element(tag, {"class": kind} if kind else {})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def _top(page: ScenesPage) -> list[Element]:
    head = _element("tr", *(_element("th", text) for text in ("", "figure, in %", *LABELS)))
    rows = [
        _element(
            "tr", _element("td", where), _element("td", words),
            *(_element("td", cell, kind="number") for cell in cells),
        )
        for where, words, *cells in page.rows()
    ]  # fmt: skip
    return [
        _element("h1", page.title),
        _element("p", page.about, kind="quiet"),
        _element("p", page.planted),
        _element("table", head, *rows),
        _element(
            "p",
            NOTE,
            kind="quiet",
        ),
        _element("p", *(_element("span", text, kind=f"key {key}") for key, text in KEYS.items())),
    ]


def _section(section: Section) -> Element:
    cards = []
    for item in section.items:
        match item:
            case Twins():
                cards.append(_twins(item))
            case Asked():
                cards.append(_asked(item))
            case Described():
                cards.append(_described(item))
    return _element(
        "section",
        _element("h2", section.title),
        _element("p", section.says),
        _element("p", f"Which examples: {section.rule}", kind="quiet"),
        _element("div", *cards, kind=f"cards columns{section.columns}"),
    )


def _twins(twins: Twins) -> Element:
    chip = ("held-out", "chip heldout") if twins.held_out else ("trained on", "chip")
    return _element(
        "article",
        _element(
            "header",
            _element("h3", twins.occupation),
            _element("span", chip[0], kind=chip[1]),
            _element("span", twins.planted, kind="quiet"),
        ),
        _element("p", twins.one.choice.prompt, kind="question"),
        _element("div", *(_seen(one, _stacked(one)) for one in (twins.one, twins.other)),
                 kind="two"),
        _element("p", twins.verdict, kind="quiet"),
        kind="card",
    )  # fmt: skip


def _asked(asked: Asked) -> Element:
    answers = _stacked(asked) if asked.choice.first is not None else _listed(asked)
    return _element(
        "article",
        _element("h3", asked.heading),
        _element("p", asked.note, kind="quiet"),
        _element("p", asked.choice.prompt, kind="question"),
        _seen(asked, answers),
        kind="card",
    )


def _described(described: Described) -> Element:
    texts = []
    for label, said, judged in zip(
        LABELS, (described.before, described.after), described.judged(), strict=True
    ):
        texts += [
            _element("p", _element("span", f"{label} ", kind="strength"), f"“{said}”"),
            _element("p", judged, kind="quiet"),
        ]
    return _element(
        "article",
        _element(
            "div",
            _picture(described.scene),
            _element("div", _element("p", described.question, kind="question"), *texts),
            kind="beside",
        ),
        kind="card",
    )


def _seen(asked: Asked, answers: Element) -> Element:
    return _element("div", _picture(asked.scene), answers)


def _picture(scene: Scene) -> Element:
    data = io.BytesIO()
    render(scene, SHOWN).save(data, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    people = " and ".join(f"a {p.gender} ({p.attire or 'everyday clothes'})" for p in scene.people)
    return Element(
        "img", src=source, alt=f"From left to right: {people}", width=str(SHOWN), height=str(SHOWN)
    )


def _stacked(asked: Asked) -> Element:
    """One bar a strength: the left answer on the left, the right one on the right."""
    parts = []
    for label, bars in zip(LABELS, asked.bars(), strict=True):
        parts += [
            _element("span", label, kind="strength"),
            _element("div", *map(_segment, bars), kind="bar"),
            _element("div", *(_element("span", f"{b.text} {b.percent}") for b in bars),
                     kind="sides"),
        ]  # fmt: skip
    return _element("div", *parts, kind="answers")


def _listed(asked: Asked) -> Element:
    """One bar an answer, strength by strength."""
    parts = []
    for label, bars in zip(LABELS, asked.bars(), strict=True):
        parts.append(_element("span", label, kind="label"))
        for bar in bars:
            parts += [
                _element("span", bar.text),
                _element("div", _segment(bar), kind="bar"),
                _element("span", bar.percent, kind="percent"),
            ]
    return _element("div", *parts, kind="options")


def _segment(bar: Bar) -> Element:
    made = _element("span", kind=bar.meaning)
    made.set("style", f"width: {100 * bar.probability:.2f}%")
    made.set("title", f"{bar.text}: {bar.percent}")
    return made
