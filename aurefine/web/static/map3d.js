// A map as an isosurface, by casting rays through a 3D texture: the contour moves without a new mesh. WebGL 2, no library.

import { h, number, say, show } from "./dom.js";

const VERTEX = `#version 300 es
in vec2 corner; out vec2 at; void main() { at = corner; gl_Position = vec4(corner, 0.0, 1.0); }`;
const FRAGMENT = `#version 300 es
precision highp float; precision highp sampler3D;
uniform sampler3D map; uniform mat3 turn; uniform float level, zoom, aspect, side; in vec2 at; out vec4 color;
float value(vec3 p) { return texture(map, p + 0.5).r; }
void main() {
  // Orthographic: the map fills a cube of side 1 about the origin; rays go along -z of the camera.
  vec3 start = turn * vec3(at.x * aspect / zoom, at.y / zoom, 1.0), along = turn * vec3(0.0, 0.0, -1.0);
  vec3 a = (-0.5 - start) / along, b = (0.5 - start) / along, near = min(a, b), far = max(a, b);
  float t = max(max(near.x, near.y), near.z), end = min(min(far.x, far.y), far.z), step = 0.6 / side;
  color = vec4(1.0);
  if (t >= end) return;
  float before = t;
  for (int i = 0; i < 600 && t < end; i++, t += step) {
    if (value(start + along * t) >= level) {
      for (int j = 0; j < 6; j++) { float middle = 0.5 * (before + t); if (value(start + along * middle) >= level) t = middle; else before = middle; }
      vec3 p = start + along * t, d = vec3(1.0 / side, 0.0, 0.0);
      vec3 normal = -normalize(vec3(value(p + d.xyy) - value(p - d.xyy), value(p + d.yxy) - value(p - d.yxy), value(p + d.yyx) - value(p - d.yyx)) + 1e-9);
      float light = max(dot(normal, turn * normalize(vec3(0.4, 0.6, 1.0))), 0.0), rim = pow(1.0 - max(dot(normal, -along), 0.0), 3.0);
      color = vec4(vec3(0.36, 0.52, 0.72) * (0.35 + 0.75 * light) + 0.12 * pow(light, 24.0) - 0.18 * rim, 1.0);
      return;
    }
    before = t;
  }
}`;

// `choices` are [address of the volume, text], the newest last; `update` takes more of them while a refinement runs.
export function view3d(place, choices) {
  const canvas = h("canvas", { width: 720, height: 560, tabindex: 0, role: "img", "aria-label": "The map as a surface; arrow keys turn it, plus and minus zoom" });
  const which = h("select", { id: "map-which", onchange: () => load() }), level = h("input", { id: "map-level", type: "range", min: 0, max: 10, step: 0.05, value: 3 }), shown = h("output", { for: "map-level" });
  const options = (found, chosen) => { show(which, found.map(([value, text]) => h("option", { value }, text))); which.value = chosen ?? found.at(-1)?.[0] ?? ""; };
  options(choices);
  show(place, h("p", { class: "controls" }, h("label", { for: "map-which" }, "Map "), which, h("label", { for: "map-level" }, " Contour "), level, shown), canvas, h("p", { class: "hint" }, "Drag to turn, wheel to zoom; with the keyboard: arrows, + and −."));
  const scene = open3d(canvas);
  if (!scene) { show(place, h("p", { class: "problem warning" }, "This browser has no WebGL 2: the 3D view needs it. The sections show the map too.")); return null; }
  let peak = 10, deviation = 1;
  const redraw = () => { scene.level = Number(level.value); shown.textContent = ` ${number(scene.level)} σ (${number(scene.level * deviation)})`; scene.draw(); };
  async function load() {
    if (!which.value) return;
    try {
      const response = await fetch(which.value);
      if (!response.ok) throw new Error((await response.json()).error);
      const first = !scene.side;
      scene.fill(new Uint16Array(await response.arrayBuffer()), Number(response.headers.get("X-Side")));
      [peak, deviation] = [Number(response.headers.get("X-Max")), Number(response.headers.get("X-Deviation"))];
      level.max = (peak * 0.9).toFixed(2);
      if (first) level.value = Math.min(4, peak * 0.4);
      redraw();
    } catch (error) { say(error.message, true); }
  }
  level.addEventListener("input", redraw);
  load();
  return { update(found) {
    const newest = which.selectedIndex === which.options.length - 1, before = which.value;
    options(found, newest ? undefined : before);
    if (newest && which.value !== before) load();
  } };
}

function open3d(canvas) {
  const gl = canvas.getContext("webgl2", { preserveDrawingBuffer: true });
  const program = gl && link(gl);
  if (!program) return null;
  const place = (name) => gl.getUniformLocation(program, name);
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(gl.getAttribLocation(program, "corner"));
  gl.vertexAttribPointer(gl.getAttribLocation(program, "corner"), 2, gl.FLOAT, false, 0, 0);
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  for (const [key, value] of [[gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR], [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_R, gl.CLAMP_TO_EDGE]]) gl.texParameteri(gl.TEXTURE_3D, key, value);
  const scene = { side: 0, level: 3, zoom: 2.2, turn: [1, 0, 0, 0, 1, 0, 0, 0, 1], pending: false,
    fill(values, side) {
      scene.side = side;
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 2);
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, side, side, side, 0, gl.RED, gl.HALF_FLOAT, values);
    },
    draw() { if (!scene.pending && scene.side) { scene.pending = true; requestAnimationFrame(paint); } } };
  const paint = () => {
    scene.pending = false;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.uniformMatrix3fv(place("turn"), false, scene.turn);
    for (const [name, value] of [["level", scene.level], ["zoom", scene.zoom * 1.0], ["aspect", canvas.width / canvas.height], ["side", scene.side]]) gl.uniform1f(place(name), value);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn || 0) + 1);
  };
  steer(canvas, scene);
  return scene;
}

function link(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) { say(`3D view: ${gl.getShaderInfoLog(shader)}`, true); return null; }
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
}

function steer(canvas, scene) {
  const rotate = (x, y) => { // about the camera's axes: camera axes are the columns of `turn`
    const [cx, sx, cy, sy] = [Math.cos(x), Math.sin(x), Math.cos(y), Math.sin(y)];
    const t = scene.turn, column = (i) => t.slice(3 * i, 3 * i + 3), mix = (a, p, b, q) => a.map((value, i) => value * p + b[i] * q);
    let [right, up, back] = [column(0), column(1), column(2)];
    [right, back] = [mix(right, cx, back, sx), mix(right, -sx, back, cx)];
    [up, back] = [mix(up, cy, back, -sy), mix(up, sy, back, cy)];
    scene.turn = [...right, ...up, ...back];
    scene.draw();
  };
  const zoom = (factor) => { scene.zoom = Math.min(12, Math.max(0.5, scene.zoom * factor)); scene.draw(); };
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (!last) return; rotate((event.clientX - last[0]) * 0.01, (event.clientY - last[1]) * 0.01); last = [event.clientX, event.clientY]; });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.001)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
    if (turns) { event.preventDefault(); rotate(...turns); }
    if (event.key === "+" || event.key === "=") zoom(1.15);
    if (event.key === "-") zoom(1 / 1.15);
  });
}
