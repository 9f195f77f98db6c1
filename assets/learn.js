// Pictures of one place side by side, and a frame that the pointer moves over all of them at once. live.js stands before.
//
// props.value: what app.FrameView.postprocess gives, or null.
//   panels   [{picture, caption}], squares        cut    the panel that is shown enlarged
//   frame    {size, stride, start, side}: cell i begins at start + i * stride, of a picture of `side` pixels
//   notes    [[text]], a row for each row of cells

class Frames {
  constructor() {
    this.panels = element.querySelector(".learn-panels");
    this.canvas = element.querySelector(".learn-patch");
    for (const kind of ["pointermove", "pointerdown"]) this.panels.addEventListener(kind, (event) => this.point(event));
    this.panels.addEventListener("keydown", (event) => this.key(event));
    watch("value", () => this.load(props.value));
    this.load(props.value);
  }

  async load(value) {
    this.value = value;
    if (!value) return;
    const cut = Object.assign(new Image(), { src: value.panels[value.cut].picture });
    await cut.decode().catch(() => {});
    if (this.value !== value) return; // another one came in the meantime
    this.picture = cut;
    this.panels.replaceChildren(...value.panels.map(panel), element.querySelector(".learn-cut"));
    const [rows, columns] = [value.notes.length, value.notes[0].length];
    const inside = this.cell?.[0] < rows && this.cell?.[1] < columns;
    this.move(...(inside ? this.cell : [Math.floor(rows / 2), Math.floor(columns / 2)]));
  }

  point(event) {
    const square = event.target.closest(".pad-square");
    if (!square || !this.picture) return;
    const { size, stride, start, side } = this.value.frame;
    const box = square.getBoundingClientRect();
    const cell = (share) => Math.round((share * side - start - size / 2) / stride);
    this.move(cell((event.clientY - box.top) / box.height), cell((event.clientX - box.left) / box.width));
  }

  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !this.picture) return;
    event.preventDefault();
    this.move(this.cell[0] + step[0], this.cell[1] + step[1]);
  }

  move(row, column) {
    const { frame, notes } = this.value;
    this.cell = [clamp(row, notes.length), clamp(column, notes[0].length)];
    const [top, left] = this.cell.map((i) => frame.start + i * frame.stride);
    const percent = (pixels) => `${(100 * pixels) / frame.side}%`;
    const [width, height] = [percent(frame.size), percent(frame.size)];
    for (const mark of this.panels.querySelectorAll(".learn-frame")) {
      Object.assign(mark.style, { left: percent(left), top: percent(top), width, height });
    }
    const context = this.canvas.getContext("2d");
    const scale = this.picture.naturalWidth / frame.side;
    const [side, cut] = [this.canvas.width, frame.size * scale];
    context.clearRect(0, 0, side, side);
    context.drawImage(this.picture, left * scale, top * scale, cut, cut, 0, 0, side, side);
    say(notes[this.cell[0]][this.cell[1]]);
  }
}

function panel({ picture, caption }) {
  const figure = Object.assign(document.createElement("figure"), { className: "pad-board" });
  const square = Object.assign(document.createElement("div"), { className: "pad-square" });
  const mark = Object.assign(document.createElement("div"), { className: "learn-frame" });
  square.append(Object.assign(new Image(), { src: picture, alt: caption, draggable: false }), mark);
  figure.append(square, Object.assign(document.createElement("figcaption"), { textContent: caption }));
  return figure;
}

function clamp(i, count) {
  return Math.min(Math.max(i, 0), count - 1);
}

new Frames();
