"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const viewer = document.querySelector(".viewer");
  if (!viewer) return;

  const data = JSON.parse(document.getElementById("map-data").textContent);
  const find = (selector) => document.querySelector(selector);
  const stage = viewer.querySelector(".stage");
  const handle = viewer.querySelector(".handle");
  const readout = find(".readout");
  const layers = new Map([...stage.querySelectorAll(".layer")].map((node) => [node.dataset.layer, node]));
  const base = layers.get("scene") || null;
  const hidden = new Set();
  const view = { split: 50, zoom: 1, x: 0, y: 0, width: 1, height: 1, most: 16 };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ---- layout: the stage fits the viewer at zoom 1; x and y are its top left corner in viewer pixels

  function fit() {
    const wide = viewer.clientWidth, high = viewer.clientHeight;
    const scale = Math.min(wide / data.width, high / data.height);
    view.width = data.width * scale;
    view.height = data.height * scale;
    const picture = layers.get("map").querySelector("img");
    view.most = Math.max(8, (6 * (picture.naturalWidth || 1000)) / view.width);
    stage.style.width = `${view.width}px`;
    stage.style.height = `${view.height}px`;
    show();
  }

  function show() {
    const wide = viewer.clientWidth, high = viewer.clientHeight;
    const keep = (place, size, room) => (size <= room ? (room - size) / 2 : clamp(place, room - size, 0));
    view.x = keep(view.x, view.width * view.zoom, wide);
    view.y = keep(view.y, view.height * view.zoom, high);
    stage.style.transform = `translate(${view.x}px,${view.y}px) scale(${view.zoom})`;
    stage.style.setProperty("--zoom", view.zoom);
    viewer.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    viewer.classList.toggle("zoomed", view.zoom > 1);
    split();
  }

  function split() {
    const left = find("[data-side=left]").value, right = find("[data-side=right]").value;
    const at = (viewer.clientWidth * view.split) / 100;
    const share = clamp(((at - view.x) / (view.width * view.zoom)) * 100, 0, 100);
    for (const [kind, node] of layers) {
      const ends = kind === left && kind === right ? [0, 0] : kind === left ? [0, 100 - share] : [share, 0];
      const seen = kind === left || kind === right || node === base;
      node.hidden = !seen;
      node.style.clipPath = node === base ? "" : `inset(0 ${ends[1]}% 0 ${ends[0]}%)`;
    }
    handle.hidden = left === right;
    handle.style.left = `${view.split}%`;
    handle.setAttribute("aria-valuenow", Math.round(view.split));
    handle.setAttribute("aria-valuetext", `${data.titles[left]} on ${Math.round(view.split)} % of the width`);
    for (const [side, kind] of [["left", left], ["right", right]]) {
      const tag = viewer.querySelector(`.tag.${side}`);
      tag.textContent = data.titles[kind];
      tag.hidden = left === right && side === "right";
    }
  }

  function zoomAt(factor, px = viewer.clientWidth / 2, py = viewer.clientHeight / 2) {
    const zoom = clamp(view.zoom * factor, 1, view.most);
    view.x = px - ((px - view.x) * zoom) / view.zoom;
    view.y = py - ((py - view.y) * zoom) / view.zoom;
    view.zoom = zoom;
    show();
  }

  function move(dx, dy) {
    view.x += dx;
    view.y += dy;
    show();
  }

  function swipe(value) {
    view.split = clamp(value, 0, 100);
    split();
  }

  // ---- pointers: the handle swipes; elsewhere a drag moves a zoomed map and swipes one that shows all

  const fingers = new Map();
  const place = (event) => {
    const box = viewer.getBoundingClientRect();
    return [event.clientX - box.left - viewer.clientLeft, event.clientY - box.top - viewer.clientTop];
  };
  let grip = null;

  viewer.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    fingers.set(event.pointerId, place(event));
    grip = handle.contains(event.target) || view.zoom === 1 ? "swipe" : "move";
    viewer.setPointerCapture(event.pointerId);
    if (handle.contains(event.target)) handle.focus({ preventScroll: true });
    else viewer.focus({ preventScroll: true });
    event.preventDefault();
  });

  viewer.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) return tell(now);
    if (fingers.size === 2) {
      const other = [...fingers.entries()].find(([id]) => id !== event.pointerId)[1];
      const reach = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoomAt(reach(now) / reach(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (grip === "move") {
      move(now[0] - before[0], now[1] - before[1]);
    } else if (!handle.hidden) {
      swipe((now[0] / viewer.clientWidth) * 100);
    }
    fingers.set(event.pointerId, now);
  });

  for (const kind of ["pointerup", "pointercancel"]) {
    viewer.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }
  viewer.addEventListener("pointerleave", () => { readout.textContent = ""; });
  viewer.addEventListener("dblclick", (event) => zoomAt(2, ...place(event)));
  viewer.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY / 300), ...place(event));
  }, { passive: false });

  // ---- keyboard

  handle.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    if (!(event.key in steps)) return;
    swipe(view.split + steps[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });

  viewer.addEventListener("keydown", (event) => {
    const step = 60;
    const actions = {
      "+": () => zoomAt(1.5), "=": () => zoomAt(1.5), "-": () => zoomAt(1 / 1.5), "0": () => zoomAt(1 / view.zoom),
      ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0),
      ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
    };
    const arrow = event.key.startsWith("Arrow");
    if (!(event.key in actions) || event.ctrlKey || event.metaKey || event.altKey || (arrow && view.zoom === 1)) return;
    actions[event.key]();
    event.preventDefault();
  });

  // ---- controls

  const controls = {
    in: () => zoomAt(1.5), out: () => zoomAt(1 / 1.5), all: () => zoomAt(1 / view.zoom),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : viewer.parentElement.requestFullscreen()),
  };
  for (const [name, action] of Object.entries(controls)) {
    find(`[data-control=${name}]`).addEventListener("click", action);
  }
  for (const select of document.querySelectorAll("[data-side]")) select.addEventListener("change", split);

  const opacity = find("[data-control=opacity]");
  const fade = () => {
    for (const node of layers.values()) if (node !== base) node.style.opacity = opacity.value / 100;
  };
  opacity.addEventListener("input", fade);

  const numbers = find("[data-control=numbers]");
  const number = () => stage.classList.toggle("no-numbers", !numbers.checked);
  numbers.addEventListener("change", number);

  // ---- classes: the colours of classed layers tell their pixels apart: no two are equal

  const indexed = new Map();

  function decode(kind) {
    const picture = layers.get(kind).querySelector("img");
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const known = new Map(data.classes.map((entry, i) => [(entry.color[0] << 16) | (entry.color[1] << 8) | entry.color[2], i]));
    const values = new Uint8Array(canvas.width * canvas.height).fill(255);
    for (let i = 0, at = 0; i < values.length; i++, at += 4) {
      if (pixels.data[at + 3] < 128) continue;
      const color = (pixels.data[at] << 16) | (pixels.data[at + 1] << 8) | pixels.data[at + 2];
      if (!known.has(color)) known.set(color, nearest(pixels.data, at));
      values[i] = known.get(color);
    }
    canvas.className = "painted";
    canvas.setAttribute("aria-hidden", "true");
    return { canvas, context, pixels, values };
  }

  // some browsers move the colours of a canvas by a trace, against fingerprinting
  function nearest(pixels, at) {
    let best = 255, least = Infinity;
    data.classes.forEach((entry, i) => {
      const distance = entry.color.reduce((sum, channel, c) => sum + (channel - pixels[at + c]) ** 2, 0);
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  }

  function classed(kind) {
    if (!indexed.has(kind)) indexed.set(kind, decode(kind));
    return indexed.get(kind);
  }

  function paint() {
    for (const kind of data.classed) {
      const node = layers.get(kind), picture = node.querySelector("img");
      if (hidden.size) {
        const { canvas, context, pixels, values } = classed(kind);
        for (let i = 0; i < values.length; i++) {
          pixels.data[4 * i + 3] = values[i] === 255 || hidden.has(values[i]) ? 0 : 255;
        }
        context.putImageData(pixels, 0, 0);
        if (!canvas.isConnected) picture.after(canvas);
      } else if (indexed.has(kind)) {
        indexed.get(kind).canvas.remove();
      }
      picture.classList.toggle("off", hidden.size > 0);
    }
    for (const chip of stage.querySelectorAll(".chips span")) chip.hidden = hidden.has(Number(chip.dataset.index));
  }

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const index = Number(button.dataset.index);
      const off = !hidden.has(index);
      if (off) hidden.add(index);
      else hidden.delete(index);
      button.setAttribute("aria-pressed", String(!off));
      paint();
    });
  }

  // ---- what lies under the pointer

  const figures = (value) => value.toFixed(Math.abs(value) < 400 && Math.abs(data.transform[0]) < 0.01 ? 6 : 1);

  function tell([px, py]) {
    const u = (px - view.x) / (view.width * view.zoom), v = (py - view.y) / (view.height * view.zoom);
    if (u < 0 || v < 0 || u >= 1 || v >= 1) {
      readout.textContent = "";
      return;
    }
    const parts = data.classed.map((kind) => {
      const { canvas, values } = classed(kind);
      const index = values[Math.floor(v * canvas.height) * canvas.width + Math.floor(u * canvas.width)];
      return `${data.titles[kind]}: ${index === 255 ? "–" : data.classes[index].name}`;
    });
    const column = u * data.width, row = v * data.height, t = data.transform;
    parts.push(`column ${Math.floor(column)}, row ${Math.floor(row)}`);
    if (data.crs) {
      parts.push(`${figures(t[0] * column + t[1] * row + t[2])}, ${figures(t[3] * column + t[4] * row + t[5])} (${data.crs})`);
    }
    readout.textContent = parts.join("  ·  ");
  }

  // ---- the worst tiles lead to their place on the map

  for (const button of document.querySelectorAll("[data-place]")) {
    button.addEventListener("click", () => {
      const [top, left, height, width] = button.dataset.place.split(" ").map(Number);
      const scale = view.width / data.width;
      view.zoom = clamp(0.7 * Math.min(viewer.clientWidth / (width * scale), viewer.clientHeight / (height * scale)), 1, view.most);
      view.x = viewer.clientWidth / 2 - (left + width / 2) * scale * view.zoom;
      view.y = viewer.clientHeight / 2 - (top + height / 2) * scale * view.zoom;
      show();
      viewer.scrollIntoView({ block: "center", behavior: "auto" });
      viewer.focus({ preventScroll: true });
    });
  }

  new ResizeObserver(fit).observe(viewer);
  fade();
  number();
  Promise.all([...stage.querySelectorAll("img")].map((picture) => picture.decode().catch(() => null))).then(() => {
    fit();
    root.classList.add("ready");
  });
})();
