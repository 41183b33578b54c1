// A validation: its table of measures with their verdicts, its curves, its page of pictures and its files.

import { chart, downloadsOf } from "./charts.js";
import { get, h, jobLink, show } from "./dom.js";

const MARKS = { good: "✓ ", warning: "! ", poor: "✗ " };

export async function validationView(place, name) {
  try {
    const found = await get(`job/${name}/validation`);
    show(place, found.halfMap && invitation(found), !found.halfMap && !found.rows && h("p", {}, "A validation needs the half maps of a refinement that has ended."), found.rows && [
      found.folder === name ? null : h("p", {}, "Measured by ", found.job ? jobLink(found.job) : `aurefine validate in the folder ${found.folder}`, "."),
      h("p", { class: "hint" }, Object.entries(found.notes).map(([label, text]) => `${label}: ${text}`).join(" · ")),
      table(found.rows), downloads(found.files), h("div", { class: "charts" }, found.plots.map((plot) => chart(plot, `/api/job/${name}`)), found.globes.map((globe) => globeFigure(globe, `/api/job/${name}`, found.version))), sheet(found.files)]);
  } catch (error) { show(place, h("p", { class: "problem error" }, error.message)); }
}

// A map over the sphere of directions, drawn by the server.
const globeFigure = (globe, base, version) => h("figure", { class: "chart" }, h("figcaption", {}, globe.title),
  h("img", { class: "globe", loading: "lazy", src: `${base}/plot/${globe.name}.png?${new URLSearchParams({ show: 1, version })}`, alt: `${globe.title}, ${globe.unit}, over the sphere of directions` }),
  downloadsOf(globe, base));

// From a refinement, a new validation of its half maps.
const invitation = (found) => h("p", {}, h("a", { class: "button", href: `#/new/Validation?${new URLSearchParams({ fn_half: found.halfMap })}` }, found.rows ? "Validate again" : "Validate this refinement"),
  h("span", { class: "hint" }, " Directional FSC, sampling of views, ResLog; with an atomic model also the map-model FSC and the hand."));

const table = (rows) => h("div", { class: "wide" }, h("table", { class: "measures" }, h("caption", { class: "hidden" }, "Measures and verdicts"),
  h("thead", {}, h("tr", {}, ["Measure", "Value", "Verdict", "What it says", "Source"].map((each) => h("th", { scope: "col" }, each)))),
  h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.label), h("td", { class: "number" }, row.value),
    h("td", { class: `verdict ${row.verdict}` }, MARKS[row.verdict] || "", row.word), h("td", {}, row.text), h("td", { class: "hint" }, row.source))))));

const address = (file, more = {}) => `/api/file?${new URLSearchParams({ path: file.path, version: file.stamp, ...more })}`;

const downloads = (files) => h("p", { class: "downloads" }, "Download: ", files.map((file) => [h("a", { href: address(file, { download: 1 }), download: file.name }, file.name), " "]));

function sheet(files) {
  const picture = files.find((file) => file.name.endsWith(".png"));
  return picture && h("figure", {}, h("figcaption", {}, "The page"), h("img", { class: "result", src: address(picture), alt: "All figures of the validation, with maps over the sphere of directions" }));
}
