"""The report as one HTML file: pictures and data are inside it, so that it can be sent, and read without the internet."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from aurefine.reporting import methods
from aurefine.reporting.facts import Facts
from aurefine.reporting.plots import FORMATS
from aurefine.reporting.sheet import versions
from aurefine.reporting.validation_plots import ValidationFound

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", sans-serif; color: #1d2126; background: #fff; max-width: 1100px; margin: 0 auto;
  padding: 16px 24px 40px; }
h1 { font-size: 25px; margin-bottom: 4px; } h2 { font-size: 18px; margin-top: 28px; }
figure { margin: 0; border: 1px solid #c9ced6; border-radius: 6px; padding: 8px; } img { width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; color: #3c434c; margin-top: 4px; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 16px; }
dl { columns: 2; column-gap: 40px; font-size: 14px; margin: 0; } dl div { display: flex; gap: 12px; break-inside: avoid; padding: 2px 0; }
dt { color: #535b66; flex: 0 0 150px; } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: #f4f6f8; border: 1px solid #c9ced6; border-radius: 6px; padding: 10px; white-space: pre-wrap; font-size: 13px;
  overflow-wrap: anywhere; }
footer { margin-top: 30px; color: #535b66; font-size: 13px; } a { color: #0b5394; }
table { border-collapse: collapse; font-size: 13px; margin-bottom: 14px; } th, td { text-align: left; padding: 3px 10px 3px 0;
  border-bottom: 1px solid #e2e5ea; vertical-align: top; } .good { color: #11683f; } .warning { color: #7a4d00; font-weight: 600; }
.poor { color: #a31616; font-weight: 700; }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Drawn:
    """A figure as its files: png, pdf and csv."""

    name: str
    title: str
    files: Mapping[str, bytes]


def html(facts: Facts, drawn: Sequence[Drawn], sections: bytes, title: str, chimerax: str,
         validation: ValidationFound | None = None) -> str:  # fmt: skip
    """The page. `sections` is a PNG file, `chimerax` is `view.cxc`."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in methods.parameters(facts))
    figures = "".join(_figure(each) for each in drawn)
    command = f"<h2>Command line of the run</h2><pre>{escape(methods.command_line(facts))}</pre>" if facts.command else ""
    warnings = f"<h2>Warnings of the run</h2><ul id='warnings'>{''.join(f'<li>{escape(each)}</li>' for each in facts.warnings)}</ul>"
    references = "".join(f"<li>{escape(entry)}</li>" for _, entry in methods.REFERENCES)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
{warnings if facts.warnings else ""}
<figure><img alt="Central sections of the map and its projections" src="{_data(sections, "image/png")}">
<figcaption>Central sections of the map, and its projections</figcaption></figure>
<h2>Parameters</h2><dl>{rows}</dl>
{_validation(validation) if validation else ""}
<h2>Curves</h2><div class="plots">{figures}</div>
<h2>Methods</h2><p id="methods">{escape(methods.paragraph(facts))}</p><ul>{references}</ul>
{command}
<h2>ChimeraX</h2><p>As view.cxc beside this file:</p><pre>{escape(chimerax)}</pre>
<footer>{escape(versions(facts))}</footer>
</body></html>
"""


def _validation(found: ValidationFound) -> str:
    """The table of measures, and the page of pictures where it is there."""
    rows = "".join(f"<tr><th>{escape(row.label)}</th><td>{escape(row.value)}</td><td class='{row.verdict}'>{escape(row.word)}</td>"
                   f"<td>{escape(row.text)}</td><td>{escape(row.source)}</td></tr>" for row in found.rows)  # fmt: skip
    sheet = next((path for path in found.files if path.suffix == ".png"), None)
    picture = f'<figure><img alt="The figures of the validation" src="{_data(sheet.read_bytes(), "image/png")}"></figure>' if sheet else ""
    head = "".join(f"<th>{name}</th>" for name in ("Measure", "Value", "", "What it says", "Source"))
    return f"<h2>Validation</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{picture}"


def _figure(drawn: Drawn) -> str:
    """A picture with its files as downloads."""
    addresses = {kind: _data(data, FORMATS[kind].split(";")[0]) for kind, data in drawn.files.items()}
    links = " ".join(f'<a download="{drawn.name}.{kind}" href="{address}">{kind.upper()}</a>' for kind, address in addresses.items())
    return (f'<figure><img alt="{escape(drawn.title)}" src="{addresses["png"]}">'
            f"<figcaption>{escape(drawn.title)}. Download: {links}</figcaption></figure>")  # fmt: skip


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
