// A job: what it is, takes and makes, its logs, and what can be done with it; a refinement's live view in a tab of its own.

import { chart } from "./charts.js";
import { MOST, button, bytes, get, h, jobLink, post, say, show, status, tabs, watch } from "./dom.js";
import { liveView } from "./live.js";
import { view3d } from "./map3d.js";
import { validationView } from "./validation.js";

export async function jobPage(view, name, inView) {
  const job = await get(`job/${name}`);
  const heading = h("div", {});
  const state = { seen: null, text: "", gone: false };
  const alive = () => inView() && !state.gone;
  const redraw = async () => {
    try { await look(); } catch (error) {
      if (error.status !== 404) throw error;
      state.gone = true; // told once: nothing of it is asked for any more
      say("");
      if (inView()) show(view, h("h1", {}, name), h("p", { class: "problem warning" }, `${name} is gone: it has been deleted. What was moved to the project's Trash folder is still there.`));
    }
  };
  const look = async () => {
    const now = await get(`job/${name}/state`), before = state.seen || now;
    const { shown, ...heads } = now, text = JSON.stringify(heads);
    state.seen = now;
    if (text === state.text && (now.isRefinement || shown === before.shown)) return;
    const asAtFirst = before === now && ["status", "isRefinement", "hasValidation"].every((key) => now[key] === job[key]);
    const latest = asAtFirst ? job : await get(`job/${name}`);
    if (text !== state.text) show(heading, head(latest, redraw));
    state.text = text;
    offer(latest);
    // Who has turned to no other tab since the job began, and has written nothing, is shown what it has made.
    if (state.untouched && results.some((each) => each.offered) && (latest.isRefinement || latest.status === "Succeeded")) bar.open(0);
    if (latest !== job) await state.open.draw?.();
  };
  // What a job has made changes while its page is open: it is asked for when a tab is opened, and when the job ends behind it.
  const fresh = (title, draw, part = (now) => now) => {
    const place = h("div", {});
    let drawn = "";
    return { name: title, content: () => place, draw: async () => {
      try {
        const now = await get(`job/${name}`), text = JSON.stringify(part(now));
        if (text !== drawn && !place.querySelector("textarea")?.value) { drawn = text; show(place, draw(now)); } // a remark that is being written stays
      } catch (error) { say(error.message, true); }
    } };
  };
  const pages = [fresh("Overview", overview), { name: "Output", content: () => logs(name, alive) }, fresh("Options", optionTable), fresh("Files", files)];
  const results = [
    [(now) => !now.isRefinement && (now.maps.length || now.pictures.length || now.hasCurves), fresh("Result", result, ({ maps, pictures, hasCurves }) => [maps, pictures, hasCurves])],
    [(now) => now.hasValidation, { name: "Validation", content: () => validation(name) }],
    [(now) => now.isRefinement, { name: "Refinement", content: () => liveView(name, alive) }],
  ];
  // Tabs of what is there by now; one that comes later leaves the open one open, and what is being written in it.
  const offer = (now) => results.forEach((each) => { if (!each.offered && each[0](now)) { each.offered = true; bar ? bar.add(each[1]) : pages.unshift(each[1]); } });
  let bar = null;
  offer(job);
  bar = tabs("job", pages, job.status === "Running" && !job.isRefinement ? pages.findIndex((each) => each.name === "Output") : 0, (page) => { state.untouched = !state.open && ["Scheduled", "Running"].includes(job.status); state.open = page; page.draw?.(); });
  bar.element.addEventListener("input", () => { state.untouched = false; });
  show(view, heading, bar.element);
  await watch(redraw, alive, 5);
}

function head(job, redraw) {
  const act = async (action, body) => { const done = await post(`job/${job.name}/${action}`, body); if (done.message) say(done.message); await redraw(); };
  const remove = async () => {
    const others = job.dependents.length ? `\n\nThese take what it made, and go too:\n${job.dependents.join("\n")}` : "";
    if (!confirm(`Move ${job.name} to the project's Trash folder?${others}`)) return;
    const done = await post(`job/${job.name}/delete`, { with: job.dependents });
    say(done.message);
    location.hash = "#/";
  };
  const rename = async () => { const alias = prompt(`Another name for ${job.name} (empty: none)`, job.alias); if (alias !== null) await act("alias", { alias }); };
  const type = job.name.split("/")[0];
  return [h("h1", {}, job.alias ? `${job.name} (${job.alias})` : job.name),
    h("p", {}, status(job.status), h("span", { class: "hint" }, ` ${job.started ? `started ${job.started}` : ""} ${job.place}`)),
    job.startLog && h("pre", { class: "problem error" }, job.startLog), job.problem && h("p", { class: "problem warning" }, job.problem),
    h("p", { class: "actions" },
      job.can.start && button("Run now", () => act("start"), { class: "primary" }),
      job.can.abort && button("Abort", async () => { if (confirm(`Stop ${job.name}? What is finished is kept.`)) await act("abort"); }, { class: "danger" }),
      job.can.continue && h("a", { class: "button", href: `#/new/${type}?continue=${job.name}` }, "Continue"),
      job.can.clone && h("a", { class: "button", href: `#/new/${type}?from=${job.name}` }, "Clone"),
      button("Alias", rename), job.can.delete && button("Delete", remove, { class: "danger" }))];
}

function overview(job) {
  const nodes = (list, toward) => list.length ? h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ["File", "Kind", toward].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, list.map((node) => h("tr", {}, h("td", {}, node.exists ? fileLink(node.name) : `${node.name} (not there)`), h("td", {}, node.kind),
      h("td", {}, toward === "Made by" ? node.from && jobLink(node.from) : node.to.map((each) => [jobLink(each), " "]))))))) : h("p", {}, "None.");
  const note = h("textarea", { id: "note", rows: 3 });
  const shown = h("pre", { class: "log", tabindex: 0, "aria-label": "Notes" }, job.note || "(empty)");
  const add = button("Add to the note", async () => {
    await post(`job/${job.name}/note`, { text: note.value });
    note.value = "";
    shown.textContent = (await get(`job/${job.name}`)).note;
    say("The note is kept in note.txt.");
  });
  return h("div", {}, h("h2", {}, "Inputs"), nodes(job.inputs, "Made by"), h("h2", {}, "Outputs"), nodes(job.outputs, "Taken by"), h("h2", {}, "Note"), shown, h("p", {}, h("label", { for: "note" }, "A remark for note.txt"), note), add);
}

const fileLink = (path) => h("span", {}, h("a", { href: `/api/file?${new URLSearchParams({ path })}`, target: "_blank", rel: "noopener" }, path.split("/").pop()), h("span", { class: "hint" }, ` ${path}`));

// Maps and pictures that a job has made.
function result(job) {
  const place = h("div", {});
  const curves = h("div", {});
  if (job.hasCurves) drawCurves(curves, job.name);
  if (job.maps.length) view3d(place, job.maps.map((map) => [`/api/volume?${new URLSearchParams({ path: map.name, version: map.stamp })}`, map.name.split("/").pop()]));
  return h("div", {}, curves, place, job.pictures.map((picture) => h("figure", {}, h("img", { class: "result", src: `/api/file?${new URLSearchParams({ path: picture.name, version: picture.stamp })}`, alt: picture.name }), h("figcaption", {}, picture.name))));
}

function validation(name) {
  const place = h("div", {});
  validationView(place, name);
  return place;
}

// What a post-processing has found, from its numbers.
async function drawCurves(place, name) {
  try {
    const found = await get(`job/${name}/curves`);
    show(place, h("div", { class: "summary" }, h("dl", {}, found.facts.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))))),
      h("div", { class: "charts" }, found.plots.map((plot) => chart(plot, `/api/job/${name}`))));
  } catch (error) { show(place, h("p", { class: "problem error" }, error.message)); }
}

function logs(name, alive) {
  const panes = ["run.out", "run.err"].map((file) => ({ file, position: 0, line: 0, whole: new Text(), last: new Text(), box: h("pre", { class: "log", tabindex: 0, "aria-label": file }) }));
  for (const pane of panes) pane.box.append(pane.whole, pane.last);
  watch(async () => {
    if (panes[0].box.closest("[hidden]")) return; // behind another tab
    for (const pane of panes) {
      const added = await get(`job/${name}/log`, { file: pane.file, from: pane.line });
      if (added.position === pane.position && pane.box.textContent) continue;
      const atEnd = pane.box.scrollTop + pane.box.clientHeight >= pane.box.scrollHeight - 20;
      if (added.start !== pane.line) pane.whole.data = added.start ? "…\n" : "";
      const end = added.text.lastIndexOf("\n") + 1;
      pane.whole.appendData(added.text.slice(0, end));
      pane.last.data = added.text.slice(end); // a progress bar, of which only the newest state is shown
      Object.assign(pane, { position: added.position, line: added.line });
      if (atEnd) pane.box.scrollTop = pane.box.scrollHeight;
    }
  }, alive, 2);
  return h("div", {}, panes.map((pane) => [h("h2", {}, pane.file), pane.box]));
}

function optionTable(job) {
  if (!job.form) return h("p", {}, job.problem || "This job has no job.star.");
  return h("table", {}, h("thead", {}, h("tr", {}, ["Tab", "Option", "Value"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, job.form.rows.map((row) => h("tr", { class: row.value === row.default ? "" : "changed" }, h("td", {}, row.tab), h("th", { scope: "row" }, row.label), h("td", {}, row.value)))));
}

function files(job) {
  const left = job.files.length - MOST;
  return [left > 0 && h("p", { class: "hint" }, `The first ${MOST.toLocaleString()} files by name; ${left.toLocaleString()} more are not listed.`), h("table", {}, h("thead", {}, h("tr", {}, ["File", "Size"].map((each) => h("th", { scope: "col" }, each)))),
    h("tbody", {}, job.files.slice(0, MOST).map((file) => h("tr", {}, h("td", {}, file.folder ? `${file.name}/` : fileLink(`${job.name}/${file.name}`)), h("td", { class: "number" }, file.folder ? "" : bytes(file.bytes))))))];
}
