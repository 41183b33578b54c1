// A map as an isosurface in Mol* (vendor/molstar), which is loaded when a 3D view is first opened: the page itself stays light.

import { button, h, number, say, show } from "./dom.js";

const SURFACE = 0x6c91bd, PAPER = 0xffffff;
// `choices` are [address of the MRC file, text], the newest last; `update` takes more of them while a refinement runs.
export function view3d(place, choices) {
  const which = h("select", { id: "map-which", onchange: () => load() }), level = h("input", { id: "map-level", type: "range", min: 0, max: 10, step: 0.05, value: 3 });
  const value = h("input", { id: "map-value", type: "text", inputmode: "decimal", class: "float" }), sigma = h("output", { for: "map-level" });
  const spin = h("input", { id: "map-spin", type: "checkbox", onchange: () => scene?.spin(spin.checked) });
  const area = h("div", { class: "map3d", tabindex: 0, role: "img", "aria-busy": "true", "aria-label": "The map as a surface; arrow keys turn it, plus and minus zoom, Home brings it back" });
  const options = (found, chosen) => { show(which, found.map(([address, text]) => h("option", { value: address }, text))); which.value = chosen ?? found.at(-1)?.[0] ?? ""; };
  const problem = h("p", { class: "problem error", role: "alert" });
  let scene = null, shown = "", working = Promise.resolve(), waiting = false, unable = false;
  options(choices);
  show(place, h("p", { class: "controls" }, h("label", { for: "map-which" }, "Map "), which, h("label", { for: "map-level" }, " Contour "), level, sigma, h("label", { for: "map-value" }, " = "), value), problem,
    area, h("p", { class: "controls" }, button("Reset view", () => scene?.reset()), spin, h("label", { for: "map-spin" }, "Spin"),
      h("span", { class: "hint" }, "Drag to turn, wheel to zoom, right button to move; with the keyboard: arrows, + and −, Home. Drawn by Mol* (molstar.org).")));

  // One piece of work at a time, and of many contours only the last: a surface takes some tenths of a second where there is no graphics card.
  const work = (piece) => { working = working.then(piece).catch((error) => say(error.message, true)); return working; };
  const say_level = () => { sigma.textContent = `${number(Number(level.value))} σ`; value.value = number(scene.absolute(Number(level.value)), 4); };
  const contour = () => {
    if (!scene?.statistics) return;
    say_level();
    if (waiting) return;
    waiting = true;
    area.setAttribute("aria-busy", "true");
    work(async () => { waiting = false; await scene.contour(Number(level.value)); area.setAttribute("aria-busy", String(waiting)); });
  };
  // What keeps a map from being shown stays to be read in its place.
  const load = () => work(async () => {
    if (unable || !which.value || which.value === shown) return;
    area.setAttribute("aria-busy", "true");
    show(problem);
    try { await draw(); } catch (error) {
      unable = error instanceof NoWebGL;
      show(unable ? place : problem, unable ? h("p", { class: "problem error", role: "alert" }, error.message) : error.message);
    }
    area.setAttribute("aria-busy", "false");
  });
  const draw = async () => {
    scene ||= await Scene.open(area);
    const response = await fetch(which.value);
    if (!response.ok) throw new Error((await response.json()).error);
    const data = new Uint8Array(await response.arrayBuffer());
    const first = !scene.statistics, chosen = which.value;
    await scene.load(data);
    level.max = Math.max(scene.sigmas(scene.statistics.max) * 0.9, 0.1).toFixed(2);
    if (first) level.value = Math.min(4, Number(level.max) / 2);
    say_level();
    await scene.contour(Number(level.value));
    if (first) scene.reset();
    shown = chosen;
  };
  level.addEventListener("input", contour);
  value.addEventListener("change", () => { const given = Number(value.value); if (scene?.statistics && value.value.trim() && Number.isFinite(given)) level.value = scene.sigmas(given); contour(); });
  area.addEventListener("keydown", (event) => { if (scene?.key(event.key)) event.preventDefault(); });
  window.addEventListener("hashchange", () => work(() => { scene?.close(); scene = null; }), { once: true }); // browsers lend few WebGL contexts
  load();
  return { update(found) {
    const newest = which.selectedIndex === which.options.length - 1, before = which.value;
    options(found, newest ? undefined : before);
    if (newest) load();
  } };
}

class NoWebGL extends Error {}

// Whether there is WebGL, asked before Mol* is fetched; what was lent for it is given back.
function canDraw() {
  const lent = document.createElement("canvas").getContext("webgl2") || document.createElement("canvas").getContext("webgl");
  lent?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(lent);
}

// Mol*'s plugin without its panels: a canvas, the mouse, a map and its surface.
class Scene {
  static async open(place) {
    if (!canDraw()) throw new NoWebGL("This browser has no WebGL, which the 3D view needs. The map itself is under Files.");
    const molstar = await import("/static/vendor/molstar/molstar.js");
    const config = [[molstar.PluginConfig.General.AllowMajorPerformanceCaveat, true]]; // also without a graphics card
    const plugin = new molstar.PluginContext({ behaviors: [], config });
    await plugin.init();
    if (!await plugin.mountAsync(place)) throw new NoWebGL("Mol* cannot start its 3D view in this browser.");
    plugin.canvas3d.setProps({ renderer: { backgroundColor: PAPER }, camera: { manualReset: true }, cameraFog: { name: "off", params: {} },
      multiSample: { mode: "off" } }); // a still picture is not drawn again and again for smoother edges
    return Object.assign(new Scene(), { molstar, plugin, statistics: null });
  }

  async load(data) {
    await this.plugin.clear();
    this.representation = null;
    const build = this.plugin.build();
    this.map = build.toRoot().apply(this.molstar.RawData, { data, label: "map" }).apply(this.molstar.ParseCcp4, {}).apply(this.molstar.VolumeFromCcp4, {}).selector;
    await build.commit({ revertOnError: true });
    this.statistics = this.map.data.grid.stats;
  }

  // `level` standard deviations above the mean.
  async contour(level) {
    const isoValue = { kind: "relative", relativeValue: level };
    const change = this.plugin.build();
    if (this.representation) {
      change.to(this.representation).update((old) => { old.type.params.isoValue = isoValue; });
      await change.commit();
      return;
    }
    this.representation = change.to(this.map).apply(this.molstar.VolumeRepresentation3D, { type: { name: "isosurface", params: { isoValue, tryUseGpu: false } },
      colorTheme: { name: "uniform", params: { value: SURFACE } }, sizeTheme: { name: "uniform", params: { value: 1 } } }).selector;
    await change.commit();
  }

  absolute(level) { return this.statistics.mean + level * this.statistics.sigma; }
  sigmas(value) { return (value - this.statistics.mean) / this.statistics.sigma; }
  // The map's box seen along z, whatever of it the contour shows.
  reset() {
    const size = [...this.map.data.grid.transform.cell.size], middle = size.map((each) => each / 2), reach = Math.max(...size) / 2;
    this.plugin.managers.camera.reset((scene, camera) => ({ ...camera.getInvariantFocus(middle, 0.8 * reach, [0, 1, 0], [0, 0, -1]), radius: 2 * reach }), 0);
  }

  close() { this.spin(false); this.plugin.dispose(); }

  // Mol*'s own spinning rests from the first turn of the wheel until the next drag.
  spin(on) {
    cancelAnimationFrame(this.frame);
    let last = performance.now();
    const step = (now) => { this.turn(false, 0.0006 * Math.min(now - last, 100)); last = now; this.frame = requestAnimationFrame(step); };
    if (on) this.frame = requestAnimationFrame(step);
  }

  // Turn, zoom or go back; whether the key is one of these.
  key(name) {
    const zoom = { "+": 1 / 1.15, "=": 1 / 1.15, "-": 1.15 }[name], turn = { ArrowLeft: [false, 0.12], ArrowRight: [false, -0.12], ArrowUp: [true, 0.12], ArrowDown: [true, -0.12] }[name];
    if (name === "Home") this.reset();
    else if (turn) this.turn(...turn);
    else if (zoom) this.look((view, up) => [view.map((each) => each * zoom), up]);
    else return false;
    return true;
  }

  // About the screen's upright axis, or the one across; radians.
  turn(across, angle) {
    this.look((view, up) => { const axis = unit(across ? cross(up, view) : up); return [rotated(view, axis, angle), rotated(up, axis, angle)]; });
  }

  look(change) {
    const { position, target, up } = this.plugin.canvas3d.camera.state;
    const [view, upright] = change([0, 1, 2].map((i) => position[i] - target[i]), [...up]);
    this.plugin.canvas3d.camera.setState({ position: view.map((each, i) => each + target[i]), up: upright }, 0);
    this.plugin.canvas3d.requestDraw();
  }
}

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((each) => each / Math.hypot(...a));
// Rodrigues' formula; `axis` has length one, `angle` is in radians.
function rotated(a, axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)], along = axis.reduce((sum, each, i) => sum + each * a[i], 0) * (1 - c), across = cross(axis, a);
  return a.map((each, i) => each * c + across[i] * s + axis[i] * along);
}
