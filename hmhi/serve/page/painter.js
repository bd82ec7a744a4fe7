// Paints the objects of one frame: brush, eraser, and boxes that the server turns into masks; by pointer or by keys.

const STEP = 8; // pixels of the canvas that an arrow key moves, with Shift one
const OPAQUE = 0xff000000;
const SHEER = 0xa0000000;

export class Painter {
  // `palette`: colour of each id, [red, green, blue]; `cut`: async ({x, y, width, height}) -> ImageBitmap of a mask.
  constructor(canvas, palette, cut) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.colours = palette.map(([r, g, b]) => (b << 16) | (g << 8) | r); // as a pixel has them, little-endian
    this.cut = cut;
    this.tool = "brush"; // or "erase", "box"
    this.size = 16; // diameter of the brush, pixels of the canvas
    this.object = 1;
    this.cursor = null; // of the keys
    this.corner = null; // first one of a box
    this.last = null; // where the pointer was, while it paints
    this.labels = new Uint8Array(0);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => this.abandon());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.abandon());
  }

  open(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.clear();
  }

  clear() {
    this.labels = new Uint8Array(this.canvas.width * this.canvas.height);
    this.corner = this.last = this.cursor = null;
    this.draw();
  }

  choose(tool) {
    this.tool = tool;
    this.abandon();
  }

  abandon() {
    this.corner = this.last = this.cursor = null;
    this.draw();
  }

  get empty() {
    return !this.labels.some((label) => label > 0);
  }

  // The mask as a PNG of palette colours, at the size of the frame.
  async png(width, height) {
    const whole = new ImageData(width, height);
    const pixels = new Uint32Array(whole.data.buffer);
    for (let y = 0; y < height; y++) {
      const row = Math.floor((y * this.canvas.height) / height) * this.canvas.width;
      for (let x = 0; x < width; x++) {
        const label = this.labels[row + Math.floor((x * this.canvas.width) / width)];
        pixels[y * width + x] = OPAQUE | this.colours[label];
      }
    }
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(whole, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  // --- pointer --------------------------------------------------------------------------------------------------

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.canvas;
    const scale = Math.min(box.width / width, box.height / height); // the picture is centred in its box
    return {
      x: (event.clientX - box.left - (box.width - width * scale) / 2) / scale,
      y: (event.clientY - box.top - (box.height - height * scale) / 2) / scale,
    };
  }

  press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    const place = this.place(event);
    if (this.tool === "box") this.corner = place;
    else this.stroke((this.last = place), place);
  }

  move(event) {
    const place = this.place(event);
    if (this.last !== null) this.stroke(this.last, (this.last = place));
    else if (this.corner !== null && this.cursor === null) this.draw(place);
  }

  release(event) {
    this.last = null;
    if (this.corner !== null && this.cursor === null) this.close(this.place(event));
  }

  // --- keys -----------------------------------------------------------------------------------------------------

  key(event) {
    const by = event.shiftKey ? 1 : STEP;
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    const { width, height } = this.canvas;
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      const { x, y } = this.cursor ?? { x: width / 2, y: height / 2 };
      this.cursor = { x: Math.min(Math.max(x + dx, 0), width), y: Math.min(Math.max(y + dy, 0), height) };
    } else if (event.key === " " || event.key === "Enter") {
      this.cursor ??= { x: width / 2, y: height / 2 };
      if (this.tool !== "box") this.stroke(this.cursor, this.cursor);
      else if (this.corner === null) this.corner = this.cursor;
      else this.close(this.cursor);
    } else if (event.key === "Escape") {
      this.abandon();
    } else return;
    event.preventDefault();
    this.draw(this.cursor);
  }

  // --- labels ---------------------------------------------------------------------------------------------------

  stroke(from, to) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, this.size / 4)));
    for (let step = 0; step <= steps; step++) {
      const part = step / steps;
      this.stamp(from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part);
    }
    this.draw();
  }

  stamp(x, y) {
    const { width, height } = this.canvas;
    const radius = this.size / 2;
    const label = this.tool === "erase" ? 0 : this.object;
    for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(height, y + radius); row++) {
      for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(width, x + radius); column++) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) this.labels[row * width + column] = label;
      }
    }
  }

  async close(end) {
    const start = this.corner;
    this.corner = null;
    this.draw(this.cursor);
    const { width, height } = this.canvas;
    const object = this.object, labels = this.labels;
    const mask = await this.cut({
      x: Math.min(start.x, end.x) / width, y: Math.min(start.y, end.y) / height,
      width: Math.abs(start.x - end.x) / width, height: Math.abs(start.y - end.y) / height,
    });
    if (mask === null || labels !== this.labels) return; // refused, or cleared meanwhile
    const small = new OffscreenCanvas(width, height).getContext("2d");
    small.drawImage(mask, 0, 0, width, height);
    const levels = small.getImageData(0, 0, width, height).data;
    for (let place = 0; place < labels.length; place++) {
      if (levels[4 * place] > 127) labels[place] = object;
    }
    this.draw(this.cursor);
  }

  draw(at = null) {
    const { width, height } = this.canvas;
    if (width === 0 || height === 0) return;
    const picture = this.context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let place = 0; place < this.labels.length; place++) {
      if (this.labels[place]) pixels[place] = SHEER | this.colours[this.labels[place]];
    }
    this.context.putImageData(picture, 0, 0);
    for (const [colour, dashes] of [["black", []], ["white", [4, 4]]]) {
      this.context.strokeStyle = colour;
      this.context.setLineDash(dashes);
      this.context.beginPath();
      if (at !== null && this.corner !== null) {
        this.context.rect(this.corner.x, this.corner.y, at.x - this.corner.x, at.y - this.corner.y);
      }
      if (this.cursor !== null) {
        const radius = this.tool === "box" ? 3 : this.size / 2;
        this.context.moveTo(this.cursor.x + radius, this.cursor.y);
        this.context.arc(this.cursor.x, this.cursor.y, radius, 0, 2 * Math.PI);
      }
      this.context.stroke();
    }
  }
}
