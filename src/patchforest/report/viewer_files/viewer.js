// The page: OpenSeadragon shows the tiles, the panel toggles layers, the read-outs say where one is.
"use strict";

(function () {
  const view = window.patchforestView;
  const forest = window.patchforestLeaves ? window.patchforestForest(window.patchforestLeaves) : null;
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const grouped = (number) => Math.round(number).toLocaleString("en");
  const SHARP = 3; // screen pixels an image pixel, from which on pixels are drawn as squares
  let failed = 0;
  let smoothed = true;
  let whole = true; // the image fits the window, and does so again after a change of the window's size

  function tileSource(tiles) {
    return {
      width: tiles.width,
      height: tiles.height,
      tileSize: tiles.tile,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: tiles.levels - 1,
      getTileUrl: (level, column, row) => `${tiles.folder}/${level}/${column}_${row}${tiles.suffix}`,
    };
  }

  const shrink = 170 / Math.max(view.width, view.height);
  byId("navigator").style.width = `${Math.max(view.width * shrink, 40)}px`;
  byId("navigator").style.height = `${Math.max(view.height * shrink, 40)}px`;

  const viewer = OpenSeadragon({
    element: byId("slide"),
    drawer: "canvas", // files opened by a double click cannot be read into WebGL
    tileSources: [view.image, ...view.layers.map((layer) => layer.tiles)].map((tiles) => ({
      tileSource: tileSource(tiles),
      width: 1,
    })),
    showNavigationControl: false,
    showNavigator: true,
    navigatorElement: byId("navigator"),
    navigatorAutoFade: false,
    navigatorBackground: "transparent",
    navigatorBorderColor: "transparent",
    navigatorOpacity: 1,
    navigatorDisplayRegionColor: "#0072b2",
    keyboardNavEnabled: false,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    animationTime: 0.5,
    springStiffness: 9,
    zoomPerScroll: 1.3,
    maxZoomPixelRatio: 32,
    minZoomImageRatio: 0.6,
    visibilityRatio: 0.3,
    maxImageCacheCount: 600,
    imageLoaderLimit: 8,
    preserveImageSizeOnResize: true,
  });

  // ---- where we are -------------------------------------------------------------------------------------------

  // Screen pixels an image pixel, and the screen place of the image's corner.
  function placement() {
    const corner = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const far = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
    return { x: corner.x, y: corner.y, scale: (far.x - corner.x) / view.width };
  }

  function moveTo(row, column, scale, immediately) {
    const zoom = (scale * view.width) / viewer.viewport.getContainerSize().x;
    viewer.viewport.zoomTo(zoom, null, immediately);
    viewer.viewport.panTo(new OpenSeadragon.Point(column / view.width, row / view.width), immediately);
  }

  // ---- layers -------------------------------------------------------------------------------------------------

  // Every layer: {name, key, shown, opacity, set(shownOpacity), legend}
  const layers = [];
  let forestLayer = null;

  function addLayer(name, options, set) {
    const taken = layers.map((layer) => layer.key);
    const key = [...name.toLowerCase()].find((c) => /[a-z]/.test(c) && c !== "l" && !taken.includes(c)) || "";
    const layer = { name, key, set, ...options };
    layers.push(layer);
    return layer;
  }

  function apply(layer) {
    layer.set(layer.shown ? layer.opacity : 0);
    layer.box.checked = layer.shown;
    layer.element.classList.toggle("off", !layer.shown);
    layer.slider.disabled = !layer.shown;
    remember();
  }

  function toggle(layer) {
    layer.shown = !layer.shown;
    apply(layer);
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function swatches(entries) {
    return entries.map((entry) => {
      const colour = element("i", {});
      colour.style.background = `rgb(${entry.colour.join(",")})`;
      return element("li", {}, colour, entry.name);
    });
  }

  function ramp(colours, from, to) {
    const bar = element("li", { className: "ramp" });
    bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
    const ends = element("li", { className: "ends" }, element("span", {}, from), element("span", {}, to));
    return [bar, ends];
  }

  function buildPanel() {
    for (const layer of layers) {
      layer.box = element("input", { type: "checkbox" });
      layer.slider = element("input", { type: "range", min: 0, max: 100, step: 1, value: 100 * layer.opacity });
      layer.slider.setAttribute("aria-label", `Opacity of the ${layer.name}`);
      layer.box.addEventListener("change", () => toggle(layer));
      layer.slider.addEventListener("input", () => {
        layer.opacity = layer.slider.value / 100;
        apply(layer);
      });
      const label = element("label", {}, layer.box, element("span", { className: "name" }, layer.name));
      if (layer.key) label.append(element("kbd", {}, layer.key));
      layer.element = element("div", { className: "layer" }, label, layer.slider);
      if (layer.legend.length) layer.element.append(element("ul", { className: "legend" }, ...layer.legend));
      byId("layers").append(layer.element);
    }
    const keys = [...layers.filter((layer) => layer.key).map((layer) => [layer.key, `${layer.name} on or off`])];
    keys.push(["l", "this panel"], ["+ −", "zoom"], ["0", "whole image"], ["1", "full resolution"], ["← ↑ → ↓", "move"]);
    for (const [key, text] of keys) byId("keys").append(element("dt", {}, element("kbd", {}, key)), element("dd", {}, text));
  }

  function collectLayers() {
    if (forest) {
      const colours = forest.colours.map((rgb) => `rgb(${rgb.join(",")})`);
      const sides = forest.sides;
      const legend = ramp(colours, `${grouped(sides[0])} px`, `${grouped(sides[sides.length - 1])} px`);
      legend.unshift(element("li", {}, `${grouped(forest.count)} leaves`));
      forestLayer = addLayer("forest", { shown: true, opacity: 0.9, legend }, (opacity) => {
        byId("leaves").style.opacity = opacity;
        viewer.forceRedraw();
      });
    }
    let front = true; // only the first mask is shown at the start: two would hide each other
    view.layers.forEach((layer, number) => {
      const colours = ["rgba(13,8,135,0)", "rgba(156,23,158,.5)", "rgba(237,121,83,.75)", "rgb(240,249,33)"];
      const legend = layer.kind === "mask" ? swatches(layer.legend) : ramp(colours, "0", "1");
      addLayer(layer.name, { shown: front, opacity: 0.5, legend }, (opacity) => {
        viewer.world.getItemAt(number + 1).setOpacity(opacity);
      });
      front = false;
    });
    addLayer("image", { shown: true, opacity: 1, legend: [] }, (opacity) => viewer.world.getItemAt(0).setOpacity(opacity));
  }

  // ---- read-outs ----------------------------------------------------------------------------------------------

  function round125(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return power * [5, 2, 1].find((step) => step * power <= value);
  }

  function drawReadouts({ scale }) {
    const percent = 100 * scale;
    const parts = [`${percent >= 10 ? Math.round(percent) : percent.toPrecision(2)} %`];
    if (view.mpp) {
      const times = (10 / view.mpp) * scale;
      parts.unshift(`${times >= 10 ? Math.round(times) : times.toPrecision(2)}×`);
      const micron = round125((140 * view.mpp) / scale);
      byId("scale-text").textContent = micron >= 1000 ? `${grouped(micron / 1000)} mm` : `${+micron.toPrecision(3)} µm`;
      byId("scale-line").style.width = `${(micron / view.mpp) * scale}px`;
      byId("scale").hidden = false;
    }
    byId("zoom").textContent = parts.join("  ·  ");
  }

  function drawLeaves({ x, y, scale }) {
    const canvas = byId("leaves");
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const context = canvas.getContext("2d");
    if (!forestLayer.shown) context.clearRect(0, 0, ...size);
    root.dataset.leaves = forestLayer.shown ? forest.draw(context, x * ratio, y * ratio, scale * ratio, view.height, view.width) : 0;
  }

  function redraw() {
    const place = placement();
    drawReadouts(place);
    if (forest) drawLeaves(place);
    whole = Math.abs(viewer.viewport.getZoom() / viewer.viewport.getHomeZoom() - 1) < 1e-3;
    const smooth = place.scale < SHARP;
    if (smoothed !== smooth) viewer.drawer.setImageSmoothingEnabled(smooth);
    smoothed = smooth;
  }

  function point(event) {
    const { x, y, scale } = placement();
    const box = byId("slide").getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - y) / scale);
    const column = Math.floor((event.clientX - box.left - x) / scale);
    const inside = row >= 0 && column >= 0 && row < view.height && column < view.width;
    let text = inside ? `row ${grouped(row)}, column ${grouped(column)}` : "";
    if (inside && forest) text += `, leaf of ${grouped(forest.sideAt(row, column))} px`;
    byId("place").textContent = text;
  }

  // ---- the address keeps the view: a link or a reload comes back to the same place --------------------------------

  function remember() {
    clearTimeout(remember.timer);
    remember.timer = setTimeout(() => {
      const centre = viewer.viewport.getCenter();
      const state = new URLSearchParams({
        row: Math.round(centre.y * view.width),
        column: Math.round(centre.x * view.width),
        zoom: placement().scale.toPrecision(4),
        layers: layers.filter((layer) => layer.shown).map((layer) => layer.name).join(","),
      });
      try {
        history.replaceState(null, "", `#${state}`);
      } catch (error) {
        // Some browsers refuse it for local files; then a reload starts with the whole image.
      }
    }, 300);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    const [row, column, zoom] = ["row", "column", "zoom"].map((name) => parseFloat(state.get(name)));
    if ([row, column, zoom].every(Number.isFinite) && zoom > 0) moveTo(row, column, zoom, true);
    if (state.has("layers")) {
      const shown = state.get("layers").split(",");
      for (const layer of layers) layer.shown = shown.includes(layer.name);
    }
  }

  // ---- start --------------------------------------------------------------------------------------------------

  function setPanel(shown) {
    byId("panel").hidden = !shown;
    byId("show-panel").hidden = shown;
  }

  const actions = {
    "+": () => viewer.viewport.zoomBy(1.5),
    "=": () => viewer.viewport.zoomBy(1.5),
    "-": () => viewer.viewport.zoomBy(1 / 1.5),
    0: () => viewer.viewport.goHome(),
    1: () => viewer.viewport.zoomTo((view.width / viewer.viewport.getContainerSize().x) / (window.devicePixelRatio || 1)),
    l: () => setPanel(byId("panel").hidden),
    ArrowLeft: () => pan(-1, 0),
    ArrowRight: () => pan(1, 0),
    ArrowUp: () => pan(0, -1),
    ArrowDown: () => pan(0, 1),
  };

  function pan(x, y) {
    const step = viewer.viewport.getBounds().width / 6;
    viewer.viewport.panBy(new OpenSeadragon.Point(x * step, y * step));
    viewer.viewport.applyConstraints();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
    const layer = layers.find((candidate) => candidate.key === event.key);
    const action = layer ? () => toggle(layer) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // What has been drawn, for tests of the page.
  function report() {
    const items = Array.from({ length: viewer.world.getItemCount() }, (_, k) => viewer.world.getItemAt(k));
    const seen = items.filter((item) => item.getOpacity() > 0);
    root.dataset.tiles = seen.reduce((sum, item) => sum + item.getTilesToDraw().length, 0);
    root.dataset.failed = failed;
    root.dataset.ready = seen.every((item) => item.getFullyLoaded());
  }

  function start() {
    collectLayers();
    buildPanel();
    recall();
    layers.forEach(apply);
    viewer.addHandler("update-viewport", redraw);
    viewer.addHandler("animation-finish", remember);
    viewer.addHandler("update-viewport", report);
    viewer.addHandler("resize", () => whole && viewer.viewport.goHome(true));
    for (let k = 0; k < viewer.world.getItemCount(); k++) viewer.world.getItemAt(k).addHandler("fully-loaded-change", report);
    redraw();
  }

  byId("title").textContent = view.title;
  const size = `${grouped(view.height)} × ${grouped(view.width)} px`;
  byId("facts").textContent = view.mpp ? `${size} · ${+view.mpp.toPrecision(4)} µm/px` : size;
  const buttons = { "zoom-in": "+", "zoom-out": "-", home: 0, natural: 1, "hide-panel": "l", "show-panel": "l" };
  for (const [id, key] of Object.entries(buttons)) byId(id).addEventListener("click", actions[key]);
  window.addEventListener("keydown", onKey);
  byId("stage").addEventListener("pointermove", point);
  byId("stage").addEventListener("pointerleave", () => (byId("place").textContent = ""));
  setPanel(window.innerWidth > 760);
  viewer.addHandler("tile-load-failed", () => {
    failed++;
    byId("notice").textContent = `${failed} tiles could not be read: is the folder complete?`;
    byId("notice").hidden = false;
  });
  viewer.addOnceHandler("open", start);
})();
