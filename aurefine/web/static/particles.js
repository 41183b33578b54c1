// The particles by their likelihood, or another column, with their images.

import { get, h, say, show } from "./dom.js";

export function particleTable(name) {
  const place = h("div", {});
  const state = { sort: "rlnLogLikeliContribution", down: true, first: 0 };
  const draw = async () => {
    try {
      const data = await get(`job/${name}/particles`, { sort: state.sort, down: state.down ? 1 : 0, first: state.first });
      show(place, h("p", { class: "controls" }, `${data.count.toLocaleString()} particles of ${data.file}; ${state.first + 1} to ${Math.min(state.first + 24, data.count)} `,
        h("button", { type: "button", disabled: state.first === 0, onclick: () => { state.first = Math.max(0, state.first - 24); draw(); } }, "Before"),
        h("button", { type: "button", disabled: state.first + 24 >= data.count, onclick: () => { state.first += 24; draw(); } }, "Next")), table(data));
    } catch (error) { say(error.message, true); }
  };
  const order = (label) => { state.down = state.sort === label ? !state.down : true; state.sort = label; state.first = 0; draw(); };
  const table = (data) => h("div", { class: "wide" }, h("table", { class: "particles" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Image"), h("th", { scope: "col" }, "Row"),
    data.labels.map((label, i) => h("th", { scope: "col", "aria-sort": data.sorted === label ? (state.down ? "descending" : "ascending") : null }, h("button", { type: "button", class: "sort", onclick: () => order(label) }, data.titles[i], data.sorted === label ? (state.down ? " ▼" : " ▲") : ""))))),
    h("tbody", {}, data.rows.map((row) => h("tr", {}, h("td", {}, h("img", { class: "thumbnail", onerror: missing, loading: "lazy", width: 72, height: 72, alt: `Particle ${row.image}`, src: `/api/thumbnail?${new URLSearchParams({ image: row.image })}` })), h("td", { class: "number" }, row.row),
      row.values.map((value) => h("td", { class: "number" }, value)))))));
  return { element: place, draw };
}

// Where the stack is not there, as in a folder that was copied without it.
function missing() { this.replaceWith(h("span", { class: "hint" }, "no image")); }
