// The addresses of the page: #/ jobs, #/new/TYPE a form, #/job/TYPE/jobNNN a job.

import { get, h, say, show } from "./dom.js";
import { formPage } from "./form.js";
import { jobPage } from "./job.js";
import { projectPage } from "./project.js";

const main = document.getElementById("main");
let turn = 0;

async function route() {
  const mine = ++turn;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").filter(Boolean).map(decodeURIComponent);
  const alive = () => mine === turn;
  const view = h("div", {});
  try {
    if (!page) await projectPage(view, alive);
    else if (page === "new") await formPage(view, rest[0] || "", new URLSearchParams(query || ""));
    else if (page === "job") await jobPage(view, `${rest[0]}/${rest[1]}`, alive);
    else throw new Error(`There is no page ${page}.`);
  } catch (error) {
    show(view, h("p", { class: "problem error" }, error.message));
  }
  if (!alive()) return;
  show(main, view);
  const title = view.querySelector("h1");
  document.title = title ? `${title.textContent} – aurefine` : "aurefine";
  for (const link of document.querySelectorAll("header nav a")) {
    const here = link.getAttribute("href") === (page === "new" ? "#/new" : "#/") && page !== "job";
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
if (location.search) history.replaceState(null, "", `/${location.hash}`); // the token is used up
// Another page begins at its top; one that draws itself anew (it dispatches the event, without addresses) leaves the focus where it is.
window.addEventListener("hashchange", (event) => { route().then(() => { if (event.newURL || document.activeElement === document.body) main.focus({ preventScroll: false }); }); });
get("project").then((project) => { document.getElementById("project-name").textContent = project.name; }).catch((error) => say(error.message, true));
route();
