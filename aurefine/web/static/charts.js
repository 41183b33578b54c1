// Line charts as SVG from the server's description of a plot (plots.py): values under the pointer, downloads.

import { h, number, s } from "./dom.js";

const MANY = 5; // more curves than these are iterations: the first and the last are named
const W = 460, H = 280, R = 14, T = 12, B = 44;
const RESOLUTIONS = [100, 50, 30, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1];

export function chart(plot, downloads) {
  const area = h("div", { class: "chart-area" }), readout = h("p", { class: "readout", "aria-live": "off" }, " ");
  area.append(draw(plot, readout));
  const many = plot.series.length > MANY, shown = many ? [plot.series[0], plot.series.at(-1)] : plot.series;
  return h("figure", { class: "chart" }, h("figcaption", {}, plot.title), area, readout,
    h("p", { class: "legend" }, shown.map((each, i) => [many && i ? " … " : "", h("span", { class: "key" }, line(each), ` ${each.label} `)])),
    downloadsOf(plot, downloads));
}

// The three files of a plot of the job at `base`.
export const downloadsOf = (plot, base) => h("p", { class: "downloads" }, "Download: ",
  ["png", "pdf", "csv"].map((kind) => [h("a", { href: `${base}/plot/${plot.name}.${kind}`, download: `${plot.name}.${kind}`, "aria-label": `${plot.title} as ${kind.toUpperCase()}` }, kind.toUpperCase()), " "]));

const line = (series) => s("svg", { width: 26, height: 10, "aria-hidden": "true" }, s("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: series.color, "stroke-width": 2, "stroke-dasharray": series.dashed ? "5 3" : null }));

function draw(plot, readout) {
  const log = plot.y_kind === "log", f = log ? Math.log10 : (v) => v;
  const known = (y) => y !== null && y !== undefined && Number.isFinite(f(y));
  const points = plot.series.flatMap((each) => each.x.map((x, i) => [x, each.y[i]])).filter(([, y]) => known(y));
  const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": describe(plot) });
  if (!points.length) { svg.append(s("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "nothing to show yet")); return svg; }
  let [x0, x1] = range(points.map(([x]) => x)), [y0, y1] = plot.y_range || range(points.map(([, y]) => f(y)));
  if (plot.x_kind === "frequency") x0 = 0;
  if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
  if (!plot.y_range) { const pad = (y1 - y0) * 0.06 || 0.5; y0 -= pad; y1 += pad; }
  const py = (y) => H - B - ((f(y) - y0) / (y1 - y0)) * (H - T - B);
  const xTicks = plot.x_kind === "frequency" ? resolutionTicks(x1) : steps(x0, x1, 8, plot.x_kind === "iteration"), yTicks = plot.y_kind === "frequency" ? resolutionTicks(y1) : log ? decades(y0, y1) : steps(y0, y1, 6);
  const L = Math.max(58, 28 + 7 * Math.max(...yTicks.map(([, text]) => text.length))), px = (x) => L + ((x - x0) / (x1 - x0)) * (W - L - R);
  for (const [value, text] of xTicks) svg.append(s("line", { class: "grid", x1: px(value), x2: px(value), y1: T, y2: H - B }), s("text", { x: px(value), y: H - B + 16, "text-anchor": "middle" }, text));
  for (const [value, text] of yTicks) svg.append(s("line", { class: "grid", x1: L, x2: W - R, y1: py(value), y2: py(value) }), s("text", { x: L - 6, y: py(value) + 4, "text-anchor": "end" }, text));
  svg.append(s("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, plot.x_label), s("text", { transform: `translate(13 ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, plot.y_label));
  for (const [value, text] of plot.lines) if (f(value) >= y0 && f(value) <= y1) svg.append(s("line", { class: "mark", x1: L, x2: W - R, y1: py(value), y2: py(value) }), s("text", { class: "mark", x: L + 4, y: py(value) - 3 }, text));
  for (const series of plot.series) svg.append(curve(series, px, py, known));
  follow(svg, plot, px, (x) => x0 + ((x - L) / (W - L - R)) * (x1 - x0), readout);
  return svg;
}

function curve(series, px, py, known) {
  let path = "", pen = false;
  const dots = [];
  series.x.forEach((x, i) => {
    const y = series.y[i];
    if (!known(y)) { pen = false; return; }
    path += `${pen ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`;
    pen = true;
    if (series.markers) dots.push(s("circle", { cx: px(x), cy: py(y), r: 3, fill: series.color }));
  });
  return s("g", {}, s("path", { d: path, fill: "none", stroke: series.color, "stroke-width": series.width, "stroke-dasharray": series.dashed ? "6 4" : null }), dots);
}

// The values at the pointer, of the last series where there are many.
function follow(svg, plot, px, valueAt, readout) {
  const rule = s("line", { class: "rule", y1: T, y2: H - B, visibility: "hidden" });
  svg.append(rule);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = valueAt(((event.clientX - box.left) / box.width) * W);
    const shown = plot.series.length > MANY ? plot.series.slice(-1) : plot.series;
    const texts = shown.map((series) => {
      const near = series.x.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(series.x[best] - at) ? i : best), 0);
      rule.setAttribute("x1", px(series.x[near])); rule.setAttribute("x2", px(series.x[near])); rule.setAttribute("visibility", "visible");
      const value = series.y[near], text = value === null || value === undefined ? "–" : plot.y_kind === "frequency" ? `${number(1 / value)} Å` : number(value);
      return `${plot.x_kind === "frequency" ? (series.x[near] ? `${number(1 / series.x[near])} Å` : "∞") : plot.x_kind === "iteration" ? `iteration ${series.x[near]}` : number(series.x[near])}: ${series.label} ${text}`;
    });
    readout.textContent = texts.join(" · ");
  });
  svg.addEventListener("pointerleave", () => { rule.setAttribute("visibility", "hidden"); readout.textContent = " "; });
}

function describe(plot) {
  const last = plot.series.map((each) => [each.label, each.y.filter((y) => y !== null).at(-1)]).slice(-3);
  return `${plot.title}. ${plot.x_kind === "iteration" ? last.map(([label, y]) => `${label}: last ${y === undefined ? "unknown" : plot.y_kind === "frequency" ? `${number(1 / y)} Å` : number(y)}`).join(", ") : `${plot.series.length} curves`}`;
}

const range = (values) => [Math.min(...values), Math.max(...values)];

function resolutionTicks(highest) {
  const ticks = [];
  for (const value of RESOLUTIONS) if (1 / value <= highest * 1.001 && (!ticks.length || 1 / value - ticks.at(-1)[0] >= highest / 9)) ticks.push([1 / value, String(value)]);
  return ticks;
}

function steps(low, high, count, whole = false) {
  const raw = Math.max((high - low) / count, 1e-12), power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) ticks.push([value, String(Number(value.toPrecision(6)))]);
  return ticks;
}

function decades(low, high) {
  const ticks = [], fine = high - low < 1.6;
  for (let power = Math.floor(low); power <= high; power++) for (const part of fine ? [1, 2, 5] : [1]) if (Math.log10(part) + power >= low && Math.log10(part) + power <= high) ticks.push([part * 10 ** power, power < -3 || power > 4 ? `${part}e${power}` : String(Number((part * 10 ** power).toPrecision(2)))]);
  return ticks.length > 9 ? ticks.filter((_, index) => index % Math.ceil(ticks.length / 8) === 0) : ticks;
}
