// A map of classes, painted in flat colours without soft edges. See board.js.
//
// props.palette: [{name, color: [r, g, b]}], the class number is the place in it; class 0 is the background.

const SIDE = 256; // pixels of the map, here and for the network

class LabelPaper {
  tools = ["rectangle", "brush", "fill", "eraser"];
  keys = { m: "rectangle", b: "brush", g: "fill", e: "eraser" };
  sizes = [40, 10];
  firstExample = 2;

  constructor() {
    this.canvas = element.querySelector(".pad-paper");
    this.canvas.width = this.canvas.height = SIDE;
    this.canvas.style.imageRendering = "pixelated";
    this.canvas.ariaLabel = "Map of the facade. Drag rectangles with mouse, pen or finger; without them, choose an example below.";
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.pixels = this.context.createImageData(SIDE, SIDE);
    this.words = new Uint32Array(this.pixels.data.buffer);
    this.colors = props.palette.map(({ color: [r, g, b] }) => new Uint32Array(new Uint8Array([r, g, b, 255]).buffer)[0]);
    this.labels = new Uint8Array(SIDE * SIDE);
    this.before = this.labels.slice(); // as it was when the operation under the pen began
    this.showPalette();
    this.choose(props.palette.findIndex(({ name }) => name === "window"));
  }

  // --- The palette ---

  showPalette() {
    const palette = element.querySelector(".pad-palette");
    this.swatches = props.palette.map(({ name, color }, label) => {
      const swatch = document.createElement("button");
      swatch.type = "button";
      swatch.role = "radio";
      swatch.textContent = name;
      swatch.title = `Paint ${name} (${KEYS[label]})`;
      swatch.style.setProperty("--swatch", `rgb(${color.join()})`);
      swatch.addEventListener("click", () => this.choose(label));
      palette.append(swatch);
      return swatch;
    });
    roam(this.swatches, 1, (label) => this.choose(label));
  }

  // Who chooses a class means to paint with it.
  choose(label) {
    this.label = label;
    if (button("eraser").getAttribute("aria-pressed") === "true") button("brush").click();
    this.swatches.forEach((swatch, i) => (swatch.ariaChecked = String(i === label)));
    this.swatches.forEach((swatch, i) => (swatch.tabIndex = i === label ? 0 : -1));
    const palette = this.swatches[label].parentElement; // on a phone it scrolls; the page itself must not
    palette.scrollLeft = this.swatches[label].offsetLeft - palette.offsetLeft - 40;
  }

  key(key) {
    const label = KEYS.indexOf(key);
    if (label < 0) return false;
    this.choose(label);
    return true;
  }

  // --- Painting ---

  // Operations: {kind: "rectangle", label, from, to}, {kind: "brush", label, size, points}, {kind: "fill", label, at}
  // and {kind: "picture", labels}.
  repaint(operations) {
    this.labels.fill(0);
    for (const operation of operations) this.apply(operation);
    this.before.set(this.labels);
    this.show();
  }

  apply(operation) {
    if (operation.kind === "picture") this.labels.set(operation.labels);
    else if (operation.kind === "rectangle") this.rectangle(operation);
    else if (operation.kind === "fill") this.fill(operation);
    else operation.points.forEach((_, i) => this.brush(operation, i));
  }

  rectangle({ label, from, to }) {
    const [left, right] = [from.x, to.x].sort((a, b) => a - b).map((x) => Math.min(Math.max(Math.round(x), 0), SIDE));
    const [top, bottom] = [from.y, to.y].sort((a, b) => a - b).map((y) => Math.min(Math.max(Math.round(y), 0), SIDE));
    for (let y = top; y < bottom; y++) this.labels.fill(label, y * SIDE + left, y * SIDE + right);
  }

  // Discs from point i - 1 to point i.
  brush({ label, size, points }, i) {
    const to = points[i], from = points[Math.max(i - 1, 0)];
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y)));
    for (let step = 0; step <= steps; step++) {
      const x = from.x + ((to.x - from.x) * step) / steps, y = from.y + ((to.y - from.y) * step) / steps;
      const top = Math.max(Math.ceil(y - size / 2 - 0.5), 0), bottom = Math.min(Math.floor(y + size / 2 - 0.5), SIDE - 1);
      for (let row = top; row <= bottom; row++) {
        const half = Math.sqrt(Math.max((size / 2) ** 2 - (row + 0.5 - y) ** 2, 0));
        const left = Math.max(Math.round(x - half), 0), right = Math.min(Math.round(x + half), SIDE);
        if (right > left) this.labels.fill(label, row * SIDE + left, row * SIDE + right);
      }
    }
  }

  // All that is joined to a point and of the same class.
  fill({ label, at }) {
    const start = Math.min(Math.floor(at.y), SIDE - 1) * SIDE + Math.min(Math.floor(at.x), SIDE - 1);
    const old = this.labels[start];
    if (old === undefined || old === label) return;
    const todo = [start];
    while (todo.length) {
      const i = todo.pop();
      if (this.labels[i] !== old) continue;
      this.labels[i] = label;
      if (i % SIDE) todo.push(i - 1);
      if ((i + 1) % SIDE) todo.push(i + 1);
      todo.push(i - SIDE, i + SIDE); // undefined outside of the map
    }
  }

  show() {
    for (let i = 0; i < this.labels.length; i++) this.words[i] = this.colors[this.labels[i]];
    this.context.putImageData(this.pixels, 0, 0);
  }

  // --- What the board asks for ---

  begin(point, tool, size) {
    this.before.set(this.labels);
    const label = tool === "eraser" ? 0 : this.label;
    let operation = { kind: "brush", label, size, points: [point] };
    if (tool === "rectangle") operation = { kind: "rectangle", label, from: point, to: point };
    if (tool === "fill") operation = { kind: "fill", label, at: point };
    this.apply(operation);
    this.show();
    return operation;
  }

  extend(operation, points) {
    if (operation.kind === "rectangle") {
      operation.to = points.at(-1);
      this.labels.set(this.before);
      this.rectangle(operation);
    }
    if (operation.kind === "brush") {
      for (const point of points) {
        operation.points.push(point);
        this.brush(operation, operation.points.length - 1);
      }
    }
    this.show();
  }

  end() {
    return this.labels.some((label, i) => label !== this.before[i]);
  }

  // The picture's colours are class colours already: Python has seen to it.
  read(image) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, SIDE, SIDE);
    const words = new Uint32Array(context.getImageData(0, 0, SIDE, SIDE).data.buffer);
    return { kind: "picture", labels: Uint8Array.from(words, (word) => Math.max(this.colors.indexOf(word), 0)) };
  }

  picture() {
    return this.canvas.toDataURL("image/png");
  }

  cursor(tool, size) {
    return tool === "brush" || tool === "eraser" ? size / SIDE : 0;
  }
}

const KEYS = "1234567890-=";

new Board(new LabelPaper()).start();
