// Elements, requests and messages. Texts only ever become text nodes, so nothing in a file name or log can become markup.

export const MOST = 2000; // files in a list

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in { value: 1, checked: 1, disabled: 1, selected: 1 }) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// New contents; who works by keyboard stays at the link or button of the same name.
export function show(element, ...children) {
  const held = element.contains(document.activeElement) && document.activeElement;
  element.replaceChildren();
  fill(element, null, children);
  if (held) [...element.querySelectorAll(held.tagName)].find((each) => each.id === held.id && named(each) === named(held))?.focus();
  return element;
}

const named = (element) => element.textContent.replace(/[▲▼]/g, "").trim();

async function answer(response) {
  const data = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (!response.ok) throw Object.assign(new Error(data.error || `The server answered ${response.status}.`), { status: response.status });
  return data;
}

export async function get(path, parameters) {
  const query = parameters ? `?${new URLSearchParams(parameters)}` : "";
  return answer(await request(`/api/${path}${query}`));
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return answer(await request(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(body || {}) }));
}

async function request(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Error("The page's server does not answer: is `aurefine gui` still running, and the ssh tunnel up?");
  }
}

let hide = 0;
export function say(text, isError = false) {
  const box = document.getElementById("message");
  box.className = isError ? "error" : "";
  box.setAttribute("role", isError ? "alert" : "status");
  box.textContent = text;
  clearTimeout(hide);
  hide = setTimeout(() => { box.textContent = ""; }, isError ? 15000 : 6000);
}

// An action of a button: its mistakes are shown, and it cannot be pressed twice.
export function button(label, action, attributes = {}) {
  const element = h("button", { type: "button", ...attributes, onclick: async () => {
    const held = document.activeElement === element;
    element.disabled = true;
    try { await action(); } catch (error) { say(error.message, true); }
    element.disabled = Boolean(attributes.disabled);
    if (held && document.activeElement === document.body) element.focus(); // a button that is disabled loses the focus
  } }, label);
  return element;
}

export const jobLink = (name, text) => h("a", { href: `#/job/${name}` }, text || name);
export const status = (word) => h("span", { class: `state ${word.toLowerCase()}` }, word);

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; count >= 1000 && unit < 4; unit++) count /= 1000;
  return `${unit ? count.toPrecision(3) : count} ${units[unit]}`;
}

export const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());

// Calls `look` now and every few seconds while the page is seen; ends when `alive` says so.
export function watch(look, alive, seconds = 4) {
  let running = false;
  const turn = async () => {
    if (!alive()) { clearInterval(timer); document.removeEventListener("visibilitychange", turn); return; }
    if (running || document.hidden) return;
    running = true;
    try { await look(); } catch (error) { say(error.message, true); }
    running = false;
  };
  const timer = setInterval(turn, seconds * 1000);
  document.addEventListener("visibilitychange", turn);
  return turn();
}

// Tabs by the pattern of ARIA: arrow keys move, panels are labelled. `pages` are {name, content() -> Node}; `add` puts one more before
// them and leaves the open one open.
export function tabs(label, pages, chosen = 0, onChange = () => {}) {
  const list = h("div", { role: "tablist", "aria-label": label }), element = h("div", { class: "tabs" }, list);
  const all = [];
  const open = (index, focus) => {
    all.forEach(({ button, panel }, i) => { button.setAttribute("aria-selected", i === index); button.tabIndex = i === index ? 0 : -1; panel.hidden = i !== index; });
    const { page, button, panel } = all[index];
    if (!panel.hasChildNodes()) panel.append(page.content());
    if (focus) button.focus();
    onChange(page);
  };
  const make = (page) => {
    const id = `${label}-${all.length}`, place = () => all.findIndex((each) => each.page === page);
    const panel = h("div", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, hidden: true });
    const button = h("button", {
      type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}`, "aria-selected": "false", tabindex: -1, onclick: () => open(place()),
      onkeydown: (event) => {
        const next = { ArrowRight: (place() + 1) % all.length, ArrowLeft: (place() + all.length - 1) % all.length, Home: 0, End: all.length - 1 }[event.key];
        if (next !== undefined) { event.preventDefault(); open(next, true); }
      },
    }, page.name);
    element.append(panel);
    return { page, button, panel };
  };
  const add = (page) => { all.unshift(make(page)); list.prepend(all[0].button); };
  for (const page of pages) { all.push(make(page)); list.append(all.at(-1).button); }
  open(Math.min(chosen, all.length - 1));
  return { element, buttons: all.map((each) => each.button), open, add };
}
