// The report of a refinement: a page to look at and to keep, the methods paragraph to paste, ChimeraX commands.

import { button, get, h, say, show } from "./dom.js";

const FILES = [["report.pdf", "Report, one page (PDF)"], ["report.html", "Report with all curves (HTML)"], ["methods.txt", "Methods (text)"], ["view.cxc", "ChimeraX commands"]];

export async function reportView(place, name, data) {
  const base = `/api/job/${name}/report`;
  show(place, h("p", {}, "The report is being made …"));
  try {
    const methods = await get(`job/${name}/methods`);
    const text = h("p", { id: "methods" }, methods.paragraph);
    const copy = async () => { await navigator.clipboard.writeText([methods.paragraph, "", ...methods.references].join("\n")); say("The paragraph and its references are copied."); };
    const links = FILES.map(([file, label]) => h("a", { class: "button", href: `${base}/${file}`, download: true }, label));
    const preview = h("img", { class: "sheet", alt: `${methods.title}: the report's page`, src: `${base}/report.png?${new URLSearchParams({ show: 1, version: data.version })}` });
    preview.addEventListener("error", () => preview.replaceWith(h("p", { class: "problem warning" }, "The page cannot be drawn yet: the run has no map.")));
    show(place, h("p", { class: "actions" }, links),
      h("p", { class: "hint" }, `Making one takes some seconds. Save view.cxc in ${name}/ or in a copy of that folder: the maps are looked for beside it. `,
        "On the command line: ", h("code", { class: "inline" }, `aurefine report --i ${name}`), "; it writes all of this, and every curve, into a folder."),
      h("h2", {}, "Methods paragraph"), text, h("ul", { class: "hint" }, methods.references.map((each) => h("li", {}, each))), button("Copy", copy),
      h("h2", {}, "The page"), preview);
  } catch (error) { show(place, h("p", { class: "problem error" }, error.message)); }
}
