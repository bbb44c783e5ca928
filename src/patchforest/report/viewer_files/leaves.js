// The leaves of a forest as frames one device pixel wide, written into the pixels of a canvas: quick at 100,000 leaves.
"use strict";

window.patchforestForest = function (table) {
  const SMALL = 3; // device pixels: leaves below this side are filled, faintly, in place of framed

  function numbers(base64, Type) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new Type(bytes.buffer);
  }

  const cellRows = numbers(table.rows, Uint32Array);
  const cellColumns = numbers(table.columns, Uint32Array);
  const levels = numbers(table.levels, Uint8Array);
  const depth = table.colours.length - 1;

  // Sorted by level, roots first, so that the frames of finer leaves lie on top; starts[k] is the first of level k.
  const starts = new Uint32Array(depth + 2);
  for (const level of levels) starts[level + 1]++;
  for (let k = 0; k <= depth; k++) starts[k + 1] += starts[k];
  const next = starts.slice();
  const top = new Float64Array(levels.length);
  const left = new Float64Array(levels.length);
  for (let i = 0; i < levels.length; i++) {
    const place = next[levels[i]]++;
    top[place] = cellRows[i] * table.cell;
    left[place] = cellColumns[i] * table.cell;
  }
  const sides = Array.from({ length: depth + 1 }, (_, k) => table.root / 2 ** k);
  const sidesUsed = sides.filter((_, k) => starts[k + 1] > starts[k]);

  function colour(level, strength) {
    const [red, green, blue] = table.colours[level];
    return ((Math.round(255 * strength) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }

  // Draws what lies in view and returns how many leaves that are. Image pixel (row, column) is at device pixel
  // (y + scale * row, x + scale * column).
  function draw(context, x, y, scale, height, width) {
    const { width: screenWidth, height: screenHeight } = context.canvas;
    const image = context.createImageData(screenWidth, screenHeight);
    const pixels = new Uint32Array(image.data.buffer);
    const endX = Math.min(Math.round(x + scale * width), screenWidth);
    const endY = Math.min(Math.round(y + scale * height), screenHeight);
    let drawn = 0;
    for (let level = 0; level <= depth; level++) {
      const side = sides[level] * scale;
      const filled = side < SMALL;
      const value = colour(level, filled ? 0.4 : Math.min(Math.max(side / 10, 0.3), 1) * 0.9);
      for (let i = starts[level]; i < starts[level + 1]; i++) {
        const fromY = Math.round(y + scale * top[i]);
        if (fromY >= endY) continue;
        const fromX = Math.round(x + scale * left[i]);
        if (fromX >= endX) continue;
        const toY = Math.min(Math.round(y + scale * (top[i] + sides[level])), endY);
        const toX = Math.min(Math.round(x + scale * (left[i] + sides[level])), endX);
        if (toY <= 0 || toX <= 0) continue;
        drawn++;
        const x0 = Math.max(fromX, 0);
        const y0 = Math.max(fromY, 0);
        if (filled) {
          for (let row = y0; row < Math.max(toY, y0 + 1); row++) {
            pixels.fill(value, row * screenWidth + x0, row * screenWidth + Math.max(toX, x0 + 1));
          }
          continue;
        }
        if (fromY >= 0) pixels.fill(value, fromY * screenWidth + x0, fromY * screenWidth + toX);
        if (fromX >= 0) for (let row = y0; row < toY; row++) pixels[row * screenWidth + fromX] = value;
      }
    }
    context.putImageData(image, 0, 0);
    return drawn;
  }

  // Side in image pixels of the leaf that holds an image pixel, or null.
  function sideAt(row, column) {
    for (let level = 0; level <= depth; level++) {
      const side = sides[level];
      for (let i = starts[level]; i < starts[level + 1]; i++) {
        if (top[i] <= row && row < top[i] + side && left[i] <= column && column < left[i] + side) return side;
      }
    }
    return null;
  }

  return { count: levels.length, sides: sidesUsed, colours: table.colours, draw, sideAt };
};
