// The report of a refinement: a page to look at and to keep, the methods paragraph to paste, ChimeraX commands.

import { button, get, h, say, show } from "./dom.js";

const FILES = [["report.pdf", "Report (PDF)"], ["report.html", "Report with all curves (HTML)"], ["methods.txt", "Methods (text)"], ["view.cxc", "ChimeraX commands"]];

export async function reportView(place, name) {
  const base = `/api/job/${name}/report`;
  show(place, h("p", {}, "The report is being made …"));
  try {
    const methods = await get(`job/${name}/methods`);
    const text = h("p", { id: "methods" }, methods.paragraph);
    const copy = async () => { await navigator.clipboard.writeText([methods.paragraph, "", ...methods.references].join("\n")); say("The paragraph and its references are copied."); };
    const links = FILES.map(([file, label]) => h("a", { class: "button", href: `${base}/${file}`, download: true }, label));
    const pages = ["report.png", "report_2.png"].slice(0, methods.pages).map((file, i) => {
      const page = h("img", { class: "sheet", alt: `${methods.title}: page ${i + 1} of the report`, src: `${base}/${file}?${new URLSearchParams({ show: 1, version: methods.version })}` });
      page.addEventListener("error", () => page.replaceWith(h("p", { class: "problem warning" }, `Page ${i + 1} cannot be drawn${i ? "." : " yet: the run has no map."}`)));
      return page;
    });
    show(place, h("p", { class: "actions" }, links),
      h("p", { class: "hint" }, `Making one takes some seconds. Save view.cxc in ${name}/ or in a copy of that folder: the maps are looked for beside it. `,
        "On the command line: ", h("code", { class: "inline" }, `aurefine report --i ${name}`), "; it writes all of this, and every curve, into a folder."),
      h("h2", {}, "Methods paragraph"), text, h("ul", { class: "hint" }, methods.references.map((each) => h("li", {}, each))), button("Copy", copy),
      h("h2", {}, methods.pages > 1 ? `Its ${methods.pages} pages` : "Its page"), pages);
  } catch (error) { show(place, h("p", { class: "problem error" }, error.message)); }
}
