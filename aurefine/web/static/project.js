// The project: its jobs as a table and as a graph.

import { get, h, jobLink, s, show, status, watch } from "./dom.js";

export async function projectPage(view, alive) {
  const table = h("div", {}), graph = h("div", { class: "graph" });
  const wanted = h("select", { id: "state", onchange: () => draw() }, ["All", "Running", "Scheduled", "Succeeded", "Failed", "Aborted"].map((each) => h("option", { value: each }, each)));
  let seen = "", project = null;
  const draw = () => {
    for (const option of wanted.options) option.textContent = `${option.value} (${project.jobs.filter((job) => option.value === "All" || job.status === option.value).length})`;
    show(table, jobsTable(project, wanted.value));
  };
  show(view, h("h1", {}, "Jobs"), h("p", { class: "controls" }, h("a", { class: "button primary", href: "#/new" }, "New job"), h("label", { for: "state" }, "Show"), wanted), table,
    h("h2", {}, "Graph"), h("p", { class: "hint" }, "An arrow means that a job takes what another has made."), graph);
  await watch(async () => {
    project = await get("project");
    const now = JSON.stringify(project);
    if (now === seen) return;
    seen = now;
    draw();
    show(graph, drawGraph(project));
  }, alive);
}

function jobsTable(project, wanted) {
  if (!project.jobs.length) return h("p", {}, "This project has no jobs yet.");
  const jobs = project.jobs.filter((job) => wanted === "All" || job.status === wanted);
  if (!jobs.length) return h("p", {}, "No job is in this state.");
  const rows = jobs.reverse().map((job) => h("tr", {},
    h("th", { scope: "row" }, jobLink(job.name)), h("td", {}, job.alias), h("td", {}, status(job.status)),
    h("td", {}, job.started), h("td", {}, job.place)));
  return h("div", { class: "wide" }, h("table", {}, h("caption", { class: "hidden" }, "Jobs, the newest first"),
    h("thead", {}, h("tr", {}, ["Job", "Alias", "State", "Started", "Where"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)));
}

const WIDTH = 170, HEIGHT = 46, GAP_X = 60, GAP_Y = 18, LETTERS = 22; // of small ones in a box

function drawGraph(project) {
  if (!project.jobs.length) return null;
  const columns = columnsOf(project);
  const places = new Map();
  columns.forEach((names, column) => names.forEach((name, row) => places.set(name, [10 + column * (WIDTH + GAP_X), 10 + row * (HEIGHT + GAP_Y)])));
  const width = 20 + columns.length * (WIDTH + GAP_X) - GAP_X, height = 20 + Math.max(1, ...columns.map((each) => each.length)) * (HEIGHT + GAP_Y);
  const edges = project.edges.map(([from, to]) => [places.get(from.replace(/\/$/, "")), places.get(to.replace(/\/$/, ""))]).filter(([a, b]) => a && b)
    .map(([[x1, y1], [x2, y2]]) => {
      const [ax, ay, bx, by] = [x1 + WIDTH, y1 + HEIGHT / 2, x2, y2 + HEIGHT / 2];
      const sag = by === ay && bx - ax > GAP_X ? HEIGHT * 0.95 : 0; // round the boxes between
      return s("path", { d: `M${ax} ${ay} C${ax + 40} ${ay + sag} ${bx - 40} ${by + sag} ${bx - 3} ${by}`, class: "edge", "marker-end": "url(#arrow)" });
    });
  const boxes = project.jobs.map((job) => {
    const [x, y] = places.get(job.name), room = LETTERS - job.status.length - 3;
    const alias = job.alias.length > room ? `${job.alias.slice(0, room - 1)}…` : job.alias;
    return s("a", { href: `#/job/${job.name}`, "aria-label": `${job.name}, ${job.status}` },
      s("title", {}, job.alias ? `${job.name} (${job.alias})` : job.name), s("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 6, class: `node ${job.status.toLowerCase()}` }),
      s("text", { x: x + 10, y: y + 19 }, job.name), s("text", { x: x + 10, y: y + 37, class: "small" }, alias ? `${alias} · ${job.status}` : job.status));
  });
  const marker = s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0 0 8 4 0 8z", class: "head" })));
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Graph of the jobs" }, marker, edges, boxes);
}

// Every job stands to the right of those whose files it takes.
function columnsOf(project) {
  const level = new Map(project.jobs.map((job) => [job.name, 0]));
  const edges = project.edges.map(([from, to]) => [from.replace(/\/$/, ""), to.replace(/\/$/, "")]);
  for (let round = 0; round < project.jobs.length; round++) {
    let moved = false;
    for (const [from, to] of edges) if (from !== to && level.get(to) < level.get(from) + 1 && level.get(from) < project.jobs.length) { level.set(to, level.get(from) + 1); moved = true; }
    if (!moved) break;
  }
  const columns = [];
  for (const job of project.jobs) (columns[level.get(job.name)] ||= []).push(job.name);
  return columns.filter(Boolean);
}
