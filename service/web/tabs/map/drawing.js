// Draws the points: by WebGL 2, or on a plain canvas where there is none. `tones` has a colour's number for each point: 0 is none of
// the chosen labels, HIDDEN is not drawn. Points of a tone are drawn after those of lower ones. `share` is how many of each tone's are
// drawn, from 0 to 1: some from everywhere while the map moves, where all would take too long.
//
// Well-kept scatter plots for WebGL come with regl, which makes functions of text (new Function); the content policy forbids that.

import { element } from "../../components/elements.js";

export const HIDDEN = 255;

const VERTEX = `#version 300 es
in vec2 place;
in float tone;
uniform vec2 middle, scale;
uniform float size;
uniform vec4 colours[9];
out vec4 colour;
void main() {
  gl_Position = vec4((place - middle) * scale, 0, 1);
  gl_PointSize = size;
  colour = colours[int(tone)];
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec4 colour;
uniform float size;
out vec4 shown;
void main() {
  float far = length(gl_PointCoord - .5) * size;
  float alpha = colour.a * clamp(size * .5 - far + .5, 0., 1.);
  shown = vec4(colour.rgb * alpha, alpha);
}`;

// A canvas and what draws on it: { canvas, kind, paint(tones, colours), draw(view, size, share) }. `lost` is called when a context is.
export function drawingOf(points, lost) {
  const canvas = element("canvas", { className: "points", "aria-hidden": "true" });
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: true });
  if (!gl) return onPlainCanvas(points);
  canvas.addEventListener("webglcontextlost", lost, { once: true });
  return { canvas, kind: "WebGL", ...byWebGl(gl, points) };
}

function byWebGl(gl, { places }) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [middle, scale, size, palette] = ["middle", "scale", "size", "colours"].map(uniform);
  const buffers = [["place", 2, gl.FLOAT], ["tone", 1, gl.UNSIGNED_BYTE]].map(([name, parts, type]) => {
    const buffer = gl.createBuffer();
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, parts, type, false, 0, 0);
    return buffer;
  });
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  let runs = [];
  return {
    paint(tones, colours) {
      const order = [];
      runs = byTone(tones).map((some) => {
        const first = order.length;
        for (const i of some) order.push(i);
        return [first, some.length];
      });
      upload(buffers[0], Float32Array.from({ length: 2 * order.length }, (_, i) => places[2 * order[i >> 1] + (i & 1)]));
      upload(buffers[1], Uint8Array.from(order, (i) => tones[i]));
      gl.uniform4fv(palette, colours.flat());
    },
    draw({ x, y, scale: pixels, width, height, ratio }, diameter, share) {
      gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
      gl.uniform2f(middle, x, y);
      gl.uniform2f(scale, (2 * pixels) / width, (-2 * pixels) / height);
      gl.uniform1f(size, diameter * ratio);
      gl.clear(gl.COLOR_BUFFER_BIT);
      for (const [first, count] of runs) gl.drawArrays(gl.POINTS, first, Math.ceil(share * count));
    },
  };

  function upload(buffer, data) {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  }
}

export function onPlainCanvas({ places }) {
  const canvas = element("canvas", { className: "points", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  let [tones, styles] = [[], []];
  return {
    canvas,
    kind: "a plain canvas",
    paint(some, colours) {
      tones = byTone(some);
      styles = colours.map(([red, green, blue, alpha]) => `rgb(${255 * red} ${255 * green} ${255 * blue} / ${alpha})`);
    },
    draw({ x, y, scale, width, height, ratio }, diameter, share) {
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const [left, top] = [width / 2 - x * scale - diameter / 2, height / 2 - y * scale - diameter / 2];
      tones.forEach((points, tone) => {
        context.fillStyle = styles[tone];
        for (let at = 0; at < share * points.length; at++) {
          const px = places[2 * points[at]] * scale + left;
          const py = places[2 * points[at] + 1] * scale + top;
          if (px > -diameter && py > -diameter && px < width && py < height) context.fillRect(px, py, diameter, diameter);
        }
      });
    },
  };
}

// The points of each tone, in an order that begins everywhere on the map.
function byTone(tones) {
  const found = Array.from({ length: 9 }, () => []);
  const order = Uint32Array.from(tones, (_, i) => i);
  let state = 1;
  for (let i = order.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[other]] = [order[other], order[i]];
  }
  for (const i of order) if (tones[i] !== HIDDEN) found[tones[i]].push(i);
  return found;
}
