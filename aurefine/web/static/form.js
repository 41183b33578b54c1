// A job's form: RELION's tabs and rows, checked while they are filled in; the command line; Run and Schedule.

import { browse } from "./browse.js";
import { button, get, h, post, say, show, tabs } from "./dom.js";

export async function formPage(view, type, query) {
  const { types } = await get("types");
  const chosen = types.find((each) => each.name === type);
  if (!chosen) {
    const texts = { Refine3D: "3D auto-refine", Extract: "Particle extraction", MaskCreate: "Mask creation", PostProcess: "Post-processing", Select: "Subset selection", Validation: "Validation", External: "Other jobs of aurefine" };
    show(view, h("h1", {}, "New job"), h("ul", { class: "cards" }, types.map((each) => h("li", {}, h("a", { href: `#/new/${each.name}` }, h("strong", {}, texts[each.name] || each.name), h("span", {}, each.name))))));
    return;
  }
  const source = query.get("from"), going = query.get("continue");
  const values = Object.fromEntries(chosen.tabs.flatMap((tab) => tab.rows.map((row) => [row.key, row.default])));
  const known = new Set(Object.keys(values));
  if (source || going) {
    const job = await get(`job/${source || going}`);
    for (const [key, value] of Object.entries(job.form?.values || {})) values[key] = value;
    if (source && known.has("fn_cont")) values.fn_cont = "";
    if (going && known.has("fn_cont")) values.fn_cont = job.lastOptimiser;
  }
  for (const [key, value] of query) if (known.has(key)) values[key] = value;
  new Form(view, chosen, values, going, source).draw();
}

class Form {
  constructor(view, type, values, going, source) {
    Object.assign(this, { view, type, values, going, source, inputs: new Map(), problems: new Map(), changed: new Set(), timer: 0, turn: 0 });
  }

  draw() {
    this.command = h("code", { id: "command", tabindex: 0, role: "group", "aria-label": "Command line" });
    this.general = h("div", { "aria-live": "polite" });
    const pages = this.type.tabs.map((tab) => ({ name: tab.name, content: () => h("div", { class: "rows" }, tab.rows.map((row) => this.row(row))) }));
    this.tabs = tabs(this.type.name, pages);
    pages.forEach((_, index) => this.tabs.open(index)); // all rows exist, so that problems can be shown on any tab
    this.tabs.open(0);
    const title = this.going ? `Continue ${this.going}` : this.source ? `New ${this.type.name} job, as ${this.source}` : `New ${this.type.name} job`;
    this.alias = h("input", { id: "alias", type: "text", autocomplete: "off" });
    show(this.view, h("h1", {}, title), this.tabs.element,
      this.going && h("p", { class: "hint" }, "It goes on in its own folder, from the file under Continue from here. What cannot change any more is grey."),
      h("section", { class: "run", "aria-label": "Run" }, this.general,
        h("p", { class: "label" }, "Command line"), h("div", { class: "command" }, this.command, button("Copy", () => this.copy())),
        this.going ? null : h("p", {}, h("label", { for: "alias" }, "Alias (optional) "), this.alias),
        h("p", { class: "actions" }, this.going
          ? button("Continue!", () => this.goOn(), { class: "primary" })
          : [button("Run!", () => this.run(false), { class: "primary" }), button("Schedule", () => this.run(true))])));
    this.check();
  }

  row(row) {
    const id = `row-${row.key}`, value = this.values[row.key] ?? "", open = row.supported && (!this.going || row.mayChange);
    const common = { id, "aria-describedby": `${id}-help ${id}-problem`, disabled: !open, "aria-required": row.required || null };
    let input;
    const change = () => { this.values[row.key] = input.type === "checkbox" ? (input.checked ? "Yes" : "No") : input.value; this.changed.add(row.key); this.later(); };
    if (row.kind === "bool") input = h("input", { ...common, type: "checkbox", checked: /^(yes|true|1)$/i.test(value), onchange: change });
    else if (row.kind === "choice") input = h("select", { ...common, onchange: change }, row.choices.map((each) => h("option", { value: each, selected: each === value }, each)));
    else input = h("input", { ...common, type: "text", value, inputmode: row.kind === "float" ? "decimal" : null, autocomplete: "off", spellcheck: "false", oninput: change, class: row.kind });
    this.inputs.set(row.key, input);
    const chooser = row.kind === "file" && open && h("button", { type: "button", "aria-label": `Browse for ${row.label}`, onclick: () => browse(this.type.name, row, (name) => { input.value = name; change(); input.focus(); }) }, "Browse");
    const problem = h("p", { id: `${id}-problem`, class: "problem", "aria-live": "polite" });
    this.problems.set(row.key, problem);
    return h("div", { class: `row ${open ? "" : "off"}` }, h("label", { for: id }, row.label, row.required && h("span", { class: "needed", title: "needed" }, " *")),
      h("div", { class: "field" }, input, chooser), h("p", { id: `${id}-help`, class: "help" }, row.supported ? row.help : `Not supported by aurefine. ${row.help}`), problem);
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check().catch((error) => say(error.message, true)), 250);
  }

  async check() {
    const mine = ++this.turn;
    const found = await post("form/check", { type: this.type.name, values: this.values, continue: this.going, changed: this.settings() });
    if (mine !== this.turn) return;
    for (const [key, place] of this.problems) {
      const here = found.problems.filter((each) => each.key === key);
      show(place, here.map((each) => h("span", { class: each.level }, each.text)));
      if (here.some((each) => each.level === "error")) this.inputs.get(key).setAttribute("aria-invalid", "true"); else this.inputs.get(key).removeAttribute("aria-invalid");
    }
    show(this.general, found.problems.filter((each) => !this.problems.has(each.key)).map((each) => h("p", { class: `problem ${each.level}` }, each.text)));
    this.type.tabs.forEach((tab, index) => {
      const count = found.problems.filter((each) => each.level === "error" && tab.rows.some((row) => row.key === each.key)).length;
      show(this.tabs.buttons[index], tab.name, count ? h("span", { class: "count", "aria-label": `, ${count} to correct` }, count) : null);
    });
    this.command.textContent = found.command || "(comes when the form is complete)";
  }

  async copy() {
    await navigator.clipboard.writeText(this.command.textContent);
    say("The command line is copied.");
  }

  async run(schedule) {
    const done = await post("form/run", { type: this.type.name, values: this.values, alias: this.alias.value.trim(), schedule });
    say(`${done.job} ${schedule ? "is scheduled" : "is started"}. ${done.message}`);
    location.hash = `#/job/${done.job}`;
  }

  // The rows that were changed, of a job that goes on.
  settings() { return Object.fromEntries([...this.changed].map((key) => [key, this.values[key]])); }

  async goOn() {
    const done = await post(`job/${this.going}/continue`, { values: this.settings() });
    say(`${this.going} goes on. ${done.message}`);
    location.hash = `#/job/${this.going}`;
  }
}
