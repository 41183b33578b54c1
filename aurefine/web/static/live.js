// The live view of a refinement: phase, table and curves by iteration, sections, the map in 3D, directions, particles.

import { chart, downloadsOf } from "./charts.js";
import { get, h, number, show, tabs, watch } from "./dom.js";
import { view3d } from "./map3d.js";
import { particleTable } from "./particles.js";
import { reportView } from "./report.js";
import { validationView } from "./validation.js";

const COLUMNS = [
  ["Iteration", (row) => (row.iteration < 0 ? "final" : row.iteration)], ["Resolution (Å)", (row) => number(row.resolution)],
  ["FSC 0.143 (Å)", (row) => number(row.fsc143)], ["FSC 0.5 (Å)", (row) => number(row.fsc05)],
  ["Accuracy (°)", (row) => number(row.accuracyAngles)], ["Accuracy (Å)", (row) => number(row.accuracyOffsets)],
  ["Step (°)", (row) => `${number(row.step)}${row.local ? " local" : ""}`], ["Range (Å)", (row) => number(row.offsetRange)], ["Step (Å)", (row) => number(row.offsetStep)],
  ["Change (°)", (row) => number(row.changesAngles)], ["Change (Å)", (row) => number(row.changesOffsets)], ["Pmax", (row) => number(row.pmax)], ["Size (px)", (row) => number(row.imageSize)],
];

export function liveView(name, alive) {
  const base = `/api/job/${name}`;
  const summary = h("div", { class: "summary", "aria-live": "polite" }), table = h("div", { class: "wide" }), plots = h("div", { class: "charts" });
  const sections = new Sections(base), maps = h("div", {}), directions = h("div", {}), particles = particleTable(name), report = h("div", {}), validation = h("div", {});
  const state = { version: "", data: null, map: null };
  const draw3d = (data) => { if (state.map) state.map.update(volumes(base, data)); else state.map = view3d(maps, volumes(base, data)); };
  const pages = [
    { name: "Convergence", content: () => h("div", {}, plots, table) },
    { name: "Sections", content: () => sections.element, draw: (data) => sections.update(data) },
    { name: "Map in 3D", content: () => maps, draw: draw3d },
    { name: "Directions", content: () => directions, draw: (data) => show(directions, directionsFigure(base, data)) },
    { name: "Particles", content: () => particles.element, draw: () => particles.draw() },
    { name: "Validation", content: () => validation, draw: () => validationView(validation, name) },
    { name: "Report", content: () => report, draw: () => reportView(report, name) },
  ];
  // A tab is drawn when it is opened, or open while an iteration ends; never behind another one.
  const draw = (page) => { if (page.draw && state.data && page.drawn !== state.version) { page.drawn = state.version; page.draw(state.data); } };
  let open = pages[0];
  watch(async () => {
    const data = await get(`job/${name}/refinement`, { have: state.version });
    Object.assign(state, { version: data.version, data: { ...state.data, ...data } });
    const facts = headline(state.data);
    if (facts.textContent !== summary.textContent) show(summary, facts);
    if (data.unchanged) return;
    show(table, history(data));
    show(plots, data.plots.map((plot) => chart(plot, base)));
    draw(open);
  }, alive, 4);
  const inner = tabs("refinement", pages, 0, (page) => { open = page; draw(page); });
  return h("div", {}, summary, inner.element);
}

// Addresses and names of the maps, the newest last. Files of an iteration do not change: their addresses hold no version.
function volumes(base, data) {
  const name = (each, kind) => `${each.iteration < 0 ? "final" : `iteration ${each.iteration}`}, ${kind === "map" ? "all particles" : kind.replace("half", "half map ")}`;
  return data.maps.flatMap((each) => each.kinds.filter((kind) => kind !== "difference").reverse()
    .map((kind) => [`${base}/volume?${new URLSearchParams({ iteration: each.iteration, kind, side: 128, version: each.stamp })}`, name(each, kind)]));
}

function headline(data) {
  const last = data.rows.at(-1);
  const facts = [["Phase", data.phase], ["Time left", data.left], ["Iteration", last ? (last.iteration < 0 ? "final" : last.iteration) : "–"], ["Resolution", last && last.resolution ? `${number(last.resolution)} Å` : "–"],
    ["Symmetry", data.symmetry], ["Box", data.box ? `${data.box} px at ${number(data.pixelSize, 4)} Å` : ""]];
  return h("div", {}, h("dl", {}, facts.filter(([, value]) => value !== "").map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value)))),
    data.warnings.map((each) => h("p", { class: "problem warning" }, each)));
}

function history(data) {
  return h("table", {}, h("caption", { class: "hidden" }, "The refinement by iteration"), h("thead", {}, h("tr", {}, COLUMNS.map(([label]) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, data.rows.map((row) => h("tr", {}, COLUMNS.map(([, text], i) => h(i ? "td" : "th", i ? { class: "number" } : { scope: "row" }, text(row)))))));
}

function directionsFigure(base, data) {
  const address = `${base}/plot/directions`;
  return h("figure", {}, h("figcaption", {}, "Viewing directions of the particles and their symmetry mates, in an equal-area projection of the sphere"),
    h("img", { src: `${address}.png?show=1&version=${data.version}`, alt: "Density of the viewing directions over the sphere", class: "directions" }),
    downloadsOf({ name: "directions", title: "Viewing directions" }, base));
}

// Both half maps and their difference at one place, for any iteration.
class Sections {
  constructor(base) {
    this.base = base;
    this.iteration = h("select", { id: "section-iteration", onchange: () => this.draw() });
    this.axis = h("select", { id: "section-axis", onchange: () => this.draw() }, ["z", "y", "x"].map((axis) => h("option", { value: axis }, `along ${axis}`)));
    this.place = h("input", { id: "section-place", type: "range", min: 0, max: 1, step: 0.01, value: 0.5, oninput: () => this.draw() });
    this.images = h("div", { class: "sections" });
    this.element = h("div", {}, h("p", { class: "controls" }, h("label", { for: "section-iteration" }, "Iteration "), this.iteration, h("label", { for: "section-axis" }, " Section "), this.axis, h("label", { for: "section-place" }, " Place "), this.place), this.images);
  }

  update(data) {
    const before = this.iteration.value, newest = this.iteration.selectedIndex === this.iteration.options.length - 1;
    this.data = data;
    show(this.iteration, data.maps.map((each) => h("option", { value: each.iteration }, each.iteration < 0 ? "final" : each.iteration)));
    this.iteration.value = before !== "" && !newest ? before : data.maps.length ? data.maps.at(-1).iteration : "";
    this.draw();
  }

  draw() {
    const chosen = this.data?.maps.find((each) => String(each.iteration) === this.iteration.value);
    if (!chosen) { show(this.images, h("p", {}, "There is no map yet.")); return; }
    const names = { map: "map", half1: "half map 1", half2: "half map 2", difference: "difference of the halves" };
    const query = (kind) => new URLSearchParams({ iteration: chosen.iteration, kind, axis: this.axis.value, position: this.place.value, version: chosen.stamp });
    if (this.images.children.length !== chosen.kinds.length || this.images.querySelector("p")) show(this.images, chosen.kinds.map(() => h("figure", {}, h("img", { alt: "" }), h("figcaption", {}))));
    chosen.kinds.forEach((kind, i) => {
      const [image, caption] = this.images.children[i].children;
      image.src = `${this.base}/section?${query(kind)}`;
      image.alt = `Section of the ${names[kind]} along ${this.axis.value}`;
      caption.textContent = names[kind];
    });
  }
}
