// Draws a job's frames. The server sends frame, probability and flow as one picture, one below the other; where
// painted objects are followed, the colour of the likeliest one takes the place of flow.

export const VIEWS = ["frame", "mask", "contour", "cut-out", "matte", "probability", "flow"];
const COLOUR = [230, 60, 40];
const KEPT = 96; // decoded pictures
const AHEAD = 12; // pictures fetched before they are due

export class Player {
  constructor(canvas, url) {
    this.canvas = canvas;
    this.url = url; // number of a frame -> address of its picture
    this.count = 0; // frames that are there
    this.position = 0;
    this.view = "mask";
    this.colours = null; // [red, green, blue] of the objects that may occur; null where there is one alone
    this.pictures = new Map(); // number -> promise of an ImageBitmap
    this.drawn = -1;
  }

  fetchPicture(number) {
    if (!this.pictures.has(number)) {
      const picture = fetch(this.url(number))
        .then((answer) => (answer.ok ? answer.blob() : Promise.reject(new Error("no such frame"))))
        .then(createImageBitmap);
      picture.catch(() => this.pictures.delete(number));
      this.pictures.set(number, picture);
      for (const old of this.pictures.keys()) {
        if (this.pictures.size <= KEPT) break;
        if (old !== number) this.pictures.delete(old);
      }
    }
    return this.pictures.get(number);
  }

  async show(number) {
    this.position = number;
    for (let next = number; next < Math.min(number + AHEAD, this.count); next++) this.fetchPicture(next);
    const picture = await this.fetchPicture(number).catch(() => null);
    if (picture === null || this.position !== number) return; // another frame was asked for meanwhile
    this.draw(picture);
    this.drawn = number;
  }

  draw(picture) {
    const width = picture.width, height = picture.height / 3;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    const row = { probability: 1, flow: 2 }[this.view] ?? 0;
    context.clearRect(0, 0, width, height);
    context.drawImage(picture, 0, row * height, width, height, 0, 0, width, height);
    if (!["mask", "contour", "cut-out", "matte"].includes(this.view)) return;
    const shown = context.getImageData(0, 0, width, height);
    context.drawImage(picture, 0, height, width, height, 0, 0, width, height);
    const levels = context.getImageData(0, 0, width, height).data;
    let colourAt = () => COLOUR;
    if (this.colours !== null) {
      context.drawImage(picture, 0, 2 * height, width, height, 0, 0, width, height);
      const drawn = context.getImageData(0, 0, width, height).data;
      colourAt = (at) => nearest(this.colours, drawn, at);
    }
    paint(shown.data, levels, width, height, this.view, colourAt);
    context.clearRect(0, 0, width, height);
    context.putImageData(shown, 0, 0);
  }
}

function nearest(colours, pixels, at) {
  const distance = (colour) => colour.reduce((sum, level, channel) => sum + Math.abs(level - pixels[at + channel]), 0);
  return colours.reduce((best, colour) => (distance(colour) < distance(best) ? colour : best));
}

function paint(pixels, levels, width, height, view, colourAt) {
  const inside = (place) => levels[4 * place] > 127;
  for (let place = 0; place < width * height; place++) {
    const at = 4 * place;
    if (view === "cut-out" && !inside(place)) pixels[at + 3] = 0;
    if (view === "matte") {
      const opacity = Math.min(1, Math.max(0, (levels[at] / 255 - 0.5) * 2 + 0.5));
      pixels[at] = pixels[at + 1] = pixels[at + 2] = 255 * opacity;
    }
    if ((view !== "mask" && view !== "contour") || !inside(place)) continue;
    const edge = isEdge(inside, place, width, height);
    if (view === "contour" && !edge) continue;
    const colour = colourAt(at);
    for (let channel = 0; channel < 3; channel++) {
      pixels[at + channel] = edge ? colour[channel] : (pixels[at + channel] + colour[channel]) / 2;
    }
  }
}

function isEdge(inside, place, width, height) {
  const x = place % width, y = (place - x) / width;
  for (let dy = -1; dy <= 1; dy++) {
    for (let dx = -1; dx <= 1; dx++) {
      const nx = x + dx, ny = y + dy;
      if (nx >= 0 && ny >= 0 && nx < width && ny < height && !inside(ny * width + nx)) return true;
    }
  }
  return false;
}
