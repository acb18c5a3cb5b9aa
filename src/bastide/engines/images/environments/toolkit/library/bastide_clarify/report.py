"""The report for people: one page of HTML that needs nothing else, and the same in a notebook."""

from __future__ import annotations

import html
import json
from typing import Any

_STYLE = """
:root{--ink:#1d2733;--soft:#5b6b7c;--line:#dfe5ea;--one:#2f6f9f;--other:#c2622d;--page:#fff;--card:#f7f9fb}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9fb0c0;--line:#34404c;--one:#6fb1e0;--other:#e59a68;
--page:#161c22;--card:#1e262e}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1rem 0 .25rem}
p{color:var(--soft);margin:.25rem 0}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--line);vertical-align:middle}
th{color:var(--soft);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.75rem 1rem;margin:.75rem 0}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:11px}
""".replace("\n", "")


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else html.escape(str(value if value is not None else "-"))


def _bar(value: Any, most: float) -> str:
    """A bar from the middle to one of the sides."""
    if not isinstance(value, (int, float)):
        return ""
    width = min(1.0, abs(value) / most) * 100 if most else 0
    at, colour = (100, "var(--one)") if value >= 0 else (100 - width, "var(--other)")
    return (
        '<svg viewBox="0 0 200 12" preserveAspectRatio="none" style="height:12px" role="img">'
        f'<rect x="{at:.1f}" y="1" width="{width:.1f}" height="10" rx="2" fill="{colour}"/>'
        '<line x1="100" x2="100" y1="0" y2="12" stroke="var(--line)"/></svg>'
    )


def _bias(title: str, told: dict[str, Any]) -> str:
    parts = [
        f"<h2>{title}</h2><p>Label {html.escape(told['label'])}, positive: "
        f"{html.escape(told['label_value_or_threshold'])}. A metric of 0 (of DI: 1) is no difference.</p>"
    ]
    for facet, groups in told["facets"].items():
        for group in groups:
            rows = "".join(
                f"<tr><td>{html.escape(one['description'])}</td><td style='width:35%'>{_bar(one['value'], 1.0)}</td>"
                f"<td class=n title='{html.escape(one.get('error', ''), quote=True)}'>{_number(one['value'])}</td></tr>"
                for one in group["metrics"]
            )
            name = f"{html.escape(facet)} = {html.escape(group['value_or_threshold'])}"
            parts.append(f"<section><h3>{name}</h3><table>{rows}</table></section>")
    return "".join(parts)


def _shap(told: dict[str, Any]) -> str:
    parts = ["<h2>What predictions rest on</h2><p>Global Shapley values, the largest first.</p>"]
    for label, found in told.items():
        values = sorted(found["global_shap_values"].items(), key=lambda one: -abs(one[1]))
        most = abs(values[0][1]) if values else 0
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='width:45%'>{_bar(value, most)}</td>"
            f"<td class=n>{_number(value)}</td></tr>"
            for name, value in values[:50]
        )
        about = f"{html.escape(label)}, expected value {_number(found['expected_value'])}"
        parts.append(f"<section><h3>{about}</h3><table>{rows}</table></section>")
    return "".join(parts)


def _line(xs: list[Any], ys: list[float]) -> str:
    low, high = min(ys), max(ys)
    span = (high - low) or 1.0
    places = [(30 + 560 * at / max(1, len(ys) - 1), 110 - 95 * (y - low) / span) for at, y in enumerate(ys)]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="var(--one)"/>' for x, y in places)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    ends = "".join(
        f'<text x="{place[0]:.1f}" y="126" text-anchor="{anchor}">{_number(x)}</text>'
        for place, x, anchor in ((places[0], xs[0], "start"), (places[-1], xs[-1], "end"))
    )
    return (
        '<svg viewBox="0 0 620 130" role="img">'
        f'<polyline points="{path}" fill="none" stroke="var(--one)" stroke-width="2"/>'
        f'{dots}<text x="30" y="10">{_number(high)}</text><text x="30" y="108">{_number(low)}</text>{ends}</svg>'
    )


def _pdp(told: list[Any]) -> str:
    parts = ["<h2>Partial dependence</h2><p>The mean prediction as one feature takes each of its values.</p>"]
    for one in told:
        lines = "".join(_line(one["feature_values"], ys) for ys in one.get("model_predictions", ()) if ys)
        why = html.escape(one.get("error", ""))
        parts.append(f"<section><h3>{html.escape(one['feature_name'])}</h3>{lines}<p>{why}</p></section>")
    return "".join(parts)


def page(analysis: dict[str, Any], title: str, about: str) -> str:
    """The report."""
    parts = []
    for name, heading in (
        ("pre_training_bias_metrics", "Bias of the data"),
        ("post_training_bias_metrics", "Bias of predictions"),
    ):
        if name in analysis:
            parts.append(_bias(heading, analysis[name]))
    explained = analysis.get("explanations", {})
    if "kernel_shap" in explained:
        parts.append(_shap(explained["kernel_shap"]))
    if "pdp" in explained:
        parts.append(_pdp(explained["pdp"]))
    plain = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{plain}</title><style>{_STYLE}</style><h1>{plain}</h1><p>{html.escape(about)}</p>{''.join(parts)}</html>\n"
    )


def notebook(shown: str) -> str:
    """The report as a notebook of one cell."""
    cell = {"cell_type": "markdown", "id": "report", "metadata": {}, "source": shown}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
