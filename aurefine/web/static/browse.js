// Choosing a file: the project's nodes of the right kind first, then its folders.

import { MOST, bytes, get, h, say, show } from "./dom.js";

export async function browse(type, row, choose) {
  const list = h("div", { class: "browse-list" });
  const everything = h("input", { type: "checkbox", id: "browse-all", onchange: () => open(under) });
  const dialog = h("dialog", { "aria-labelledby": "browse-title" }, h("h2", { id: "browse-title" }, row.label.replace(/:$/, "")), list,
    h("p", {}, everything, h("label", { for: "browse-all" }, " All kinds of files ")), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"));
  let under = "";
  const pick = (name) => { dialog.close(); choose(name); };
  const entry = (text, hint, action) => h("li", {}, h("button", { type: "button", class: "entry", onclick: action }, text, hint && h("span", { class: "hint" }, ` ${hint}`)));

  async function open(folder) {
    try {
      const found = await get("browse", { type, key: row.key, under: folder });
      under = found.under;
      const fits = (each) => each.folder || everything.checked || !found.endings.length || found.endings.some((ending) => each.name.endsWith(ending));
      const path = (name) => (under ? `${under}/${name}` : name);
      const fitting = found.entries.filter(fits), left = fitting.length - MOST;
      show(list,
        !under && found.nodes.length > 0 && [h("h3", {}, "From this project's jobs"), h("ul", {}, found.nodes.map((name) => entry(name, "", () => pick(name))))],
        h("h3", {}, `Files in ${under || "the project"}`),
        h("ul", {}, under && entry("‹ up", "", () => open(under.split("/").slice(0, -1).join("/"))),
          fitting.slice(0, MOST).map((each) => each.folder ? entry(`${each.name}/`, "", () => open(path(each.name))) : entry(each.name, bytes(each.bytes), () => pick(path(each.name))))),
        left > 0 && h("p", { class: "hint" }, `${left.toLocaleString()} more are not listed: type the name of one into the field.`));
      list.scrollTop = 0;
      list.querySelector("button")?.focus();
    } catch (error) { say(error.message, true); }
  }
  const before = document.activeElement;
  dialog.addEventListener("close", () => { dialog.remove(); if (document.activeElement === document.body) before?.focus(); });
  document.body.append(dialog);
  dialog.showModal();
  await open("");
}
