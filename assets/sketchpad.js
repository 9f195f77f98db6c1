// Ink on white paper. See board.js.

const SIDE = 512; // pixels of the paper; the network sees it at half this size
const SENT = 256;

class InkPaper {
  tools = ["pen", "eraser"];
  keys = { p: "pen", b: "pen", e: "eraser" };
  sizes = [12, 3];

  constructor() {
    this.canvas = element.querySelector(".pad-paper");
    this.canvas.width = this.canvas.height = SIDE;
    this.canvas.ariaLabel = "Drawing paper. Draw a face with mouse, pen or finger; without them, choose an example below.";
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.small = document.createElement("canvas");
    this.small.width = this.small.height = SENT;
    this.smallContext = this.small.getContext("2d", { willReadFrequently: true });
  }

  // Operations: {kind: "stroke", eraser, size, points} and {kind: "picture", image}.
  repaint(operations) {
    this.context.fillStyle = "white";
    this.context.fillRect(0, 0, SIDE, SIDE);
    for (const operation of operations) {
      if (operation.kind === "picture") this.context.drawImage(operation.image, 0, 0, SIDE, SIDE);
      else operation.points.forEach((_, i) => this.paintSegment(operation, i));
    }
  }

  // From the middle before point i to the middle after it, bent towards the point itself.
  paintSegment(stroke, i) {
    const points = stroke.points, point = points[i], before = points[Math.max(i - 1, 0)], start = points[Math.max(i - 2, 0)];
    const context = this.context;
    context.strokeStyle = stroke.eraser ? "white" : "black";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = stroke.size * point.pressure;
    context.beginPath();
    context.moveTo((start.x + before.x) / 2, (start.y + before.y) / 2);
    context.quadraticCurveTo(before.x, before.y, (before.x + point.x) / 2, (before.y + point.y) / 2);
    context.stroke();
  }

  begin(point, tool, size) {
    const stroke = { kind: "stroke", eraser: tool === "eraser", size: this.cursor(tool, size) * SIDE, points: [point] };
    this.paintSegment(stroke, 0);
    return stroke;
  }

  extend(stroke, points) {
    for (const point of points) {
      stroke.points.push(point);
      this.paintSegment(stroke, stroke.points.length - 1);
    }
  }

  end(stroke) {
    stroke.points.push(stroke.points.at(-1)); // the segments end half way to the last point
    return true;
  }

  read(image) {
    return { kind: "picture", image };
  }

  picture() {
    this.smallContext.imageSmoothingQuality = "high";
    this.smallContext.drawImage(this.canvas, 0, 0, SENT, SENT);
    return this.small.toDataURL("image/png");
  }

  cursor(tool, size) {
    return (size * (tool === "eraser" ? 3 : 1)) / SENT;
  }
}

new Board(new InkPaper()).start();
