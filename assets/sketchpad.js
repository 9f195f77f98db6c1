// A live drawing board: what is drawn goes to the server while the pen moves, and the answer is shown beside it.
//
// Gradio runs this once for each board, with
//   element  the board's own DOM        server  the Python functions of the board
//   props    its value, a data: URL     watch   tells when Python has set the value
//
// The drawing is a list of operations; undo takes the last one away and paints the rest again.
// A request is sent only when the answer to the last one is there, and always with the newest drawing.

const SIDE = 512; // pixels of the paper; the network sees it at half this size
const SENT = 256;

class Board {
  constructor() {
    this.paper = element.querySelector(".pad-paper");
    this.face = element.querySelector(".pad-face");
    this.heat = element.querySelector(".pad-heat");
    this.status = element.querySelector(".pad-status");
    this.size = element.querySelector(".pad-size");
    this.cursor = element.querySelector(".pad-cursor");
    this.context = this.paper.getContext("2d", { willReadFrequently: true });
    this.small = document.createElement("canvas");
    this.small.width = this.small.height = SENT;
    this.smallContext = this.small.getContext("2d", { willReadFrequently: true });
    this.operations = []; // {kind: "stroke", eraser, size, points} | {kind: "picture", image} | {kind: "clear"}
    this.undone = [];
    this.eraser = false;
    this.stroke = null;
    this.waiting = []; // when the pointer moved, for each move that no picture has answered yet
    this.busy = this.dirty = false;
    this.failures = 0;
    this.paint();
    this.listen();
  }

  // --- Painting ---

  paint() {
    const start = this.operations.findLastIndex((o) => o.kind !== "stroke");
    this.context.fillStyle = "white";
    this.context.fillRect(0, 0, SIDE, SIDE);
    for (const operation of this.operations.slice(Math.max(start, 0))) {
      if (operation.kind === "picture") this.context.drawImage(operation.image, 0, 0, SIDE, SIDE);
      if (operation.kind === "stroke") operation.points.forEach((_, i) => this.paintSegment(operation, i));
    }
    const last = this.operations.at(-1);
    element.classList.toggle("pad-empty", !last || last.kind === "clear");
    this.button("undo").disabled = !this.operations.length;
    this.button("redo").disabled = !this.undone.length;
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

  do(operation) {
    this.operations.push(operation);
    this.undone = [];
    this.paint();
    this.commit();
  }

  undo() {
    if (this.stroke || !this.operations.length) return;
    this.undone.push(this.operations.pop());
    this.paint();
    this.commit();
  }

  redo() {
    if (this.stroke || !this.undone.length) return;
    this.operations.push(this.undone.pop());
    this.paint();
    this.commit();
  }

  clear() {
    const last = this.operations.at(-1);
    if (last && last.kind !== "clear") this.do({ kind: "clear" });
  }

  async load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    this.do({ kind: "picture", image });
  }

  // --- Sending and showing ---

  drawing() {
    this.smallContext.imageSmoothingQuality = "high";
    this.smallContext.drawImage(this.paper, 0, 0, SENT, SENT);
    return this.small.toDataURL("image/png");
  }

  // A change is complete: Python's other handlers get to know it, and it survives a reload of the page.
  commit() {
    const url = this.drawing();
    props.value = url;
    element.querySelector(".pad-variants").replaceChildren(); // they belong to the drawing before
    try {
      sessionStorage.setItem(props.storage, this.operations.length ? url : "");
    } catch {
      // A browser that forbids storage only loses the comfort.
    }
    this.changed();
  }

  changed() {
    this.dirty = true;
    if (!this.busy) this.send();
  }

  // Calls a Python function of the board. Throws what the server has to say, or that it says nothing.
  async ask(name, request = null) {
    let answer;
    try {
      answer = await server[name](request);
    } catch {
      // Told below, as is the missing answer that Gradio gives in place of some errors.
    }
    if (!answer) throw new Error("No answer from the server. Your drawing is safe here; trying again …");
    if (answer.error) throw new Error(answer.error);
    return answer;
  }

  async send() {
    this.busy = true;
    while (this.dirty) {
      this.dirty = false;
      const moves = this.waiting;
      this.waiting = [];
      try {
        const realism = element.classList.contains("pad-realism");
        await this.show(await this.ask("redraw", { drawing: this.drawing(), realism }), moves);
        this.failures = 0;
      } catch (error) {
        this.say(error.message, true);
        this.failures += 1;
        await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** this.failures, 8000)));
        this.dirty = this.failures < 8; // then it waits for the next stroke
        if (!this.dirty) this.say("The server has gone. Your drawing is safe here: save it, or draw on to try again.", true);
        this.failures %= 8;
      }
    }
    this.busy = false;
  }

  async show(answer, moves) {
    this.face.src = answer.picture;
    await this.face.decode();
    if (answer.realism) this.heat.src = answer.realism;
    element.classList.add("pad-alive");
    this.say("");
    // For benchmarks and tests: how long each pointer move waited for its picture.
    const now = performance.now();
    element.dispatchEvent(new CustomEvent("picture", { detail: { delays: moves.map((moved) => now - moved) } }));
  }

  say(message, warning = false) {
    this.status.textContent = message;
    this.status.classList.toggle("pad-warning", warning);
  }

  // --- Input ---

  button(name) {
    return element.querySelector(`[data-action="${name}"]`);
  }

  point(event) {
    const box = this.paper.getBoundingClientRect();
    // A mouse reports a pressure of 0.5: the middle of what a pen can do.
    const pressure = event.pointerType === "pen" ? 0.35 + 1.3 * event.pressure : 1;
    return { x: ((event.clientX - box.left) * SIDE) / box.width, y: ((event.clientY - box.top) * SIDE) / box.height, pressure };
  }

  moved(event) {
    this.showCursor(event);
    if (!this.stroke || event.pointerId !== this.stroke.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const step of events.length ? events : [event]) {
      this.stroke.points.push(this.point(step));
      this.paintSegment(this.stroke, this.stroke.points.length - 1);
    }
    this.waiting.push(event.timeStamp);
    this.changed();
  }

  pressed(event) {
    if (this.stroke || (event.pointerType === "mouse" && event.button !== 0)) return;
    event.preventDefault();
    this.paper.setPointerCapture(event.pointerId);
    const tip = event.pointerType === "pen" && event.buttons & 32; // the back of the pen erases
    const size = Number(this.size.value) * (SIDE / SENT);
    this.stroke = { kind: "stroke", pointer: event.pointerId, eraser: this.eraser || Boolean(tip), size, points: [this.point(event)] };
    if (this.stroke.eraser) this.stroke.size *= 3;
    this.paintSegment(this.stroke, 0);
    element.classList.remove("pad-empty");
    this.changed();
  }

  released(event) {
    if (!this.stroke || event.pointerId !== this.stroke.pointer) return;
    const stroke = this.stroke;
    stroke.points.push(stroke.points.at(-1)); // the segments end half way to the last point
    this.stroke = null;
    this.do(stroke);
  }

  showCursor(event) {
    const box = this.paper.getBoundingClientRect();
    const width = (Number(this.size.value) * (this.eraser ? 3 : 1) * box.width) / SENT;
    this.cursor.style.width = this.cursor.style.height = `${width}px`;
    this.cursor.style.transform = `translate(${event.clientX - box.left - width / 2}px, ${event.clientY - box.top - width / 2}px)`;
    this.cursor.style.opacity = event.pointerType === "touch" ? 0 : 1;
  }

  setEraser(on) {
    this.eraser = on;
    this.button("pen").setAttribute("aria-pressed", String(!on));
    this.button("eraser").setAttribute("aria-pressed", String(on));
  }

  setRealism(on) {
    element.classList.toggle("pad-realism", on);
    this.button("realism").setAttribute("aria-pressed", String(on));
    this.changed();
  }

  resizePen(step) {
    this.size.value = Number(this.size.value) + step;
    this.size.dispatchEvent(new Event("input"));
  }

  save(url, name) {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
  }

  act(action) {
    const actions = {
      pen: () => this.setEraser(false),
      eraser: () => this.setEraser(true),
      undo: () => this.undo(),
      redo: () => this.redo(),
      clear: () => this.clear(),
      variants: () => this.showVariants(),
      realism: () => this.setRealism(!element.classList.contains("pad-realism")),
      "save-face": () => this.face.src && this.save(this.face.src, "face.jpg"),
      "save-drawing": () => this.save(this.paper.toDataURL("image/png"), "drawing.png"),
    };
    actions[action]();
  }

  key(event) {
    const typing = event.target.closest("input:not([type=range]), textarea, select, [contenteditable]");
    if (typing || !element.offsetParent || event.altKey) return;
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    let action = null;
    if (command) action = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[key];
    else action = { p: "pen", b: "pen", e: "eraser", r: "realism", v: "variants", delete: "clear" }[key];
    if (action) this.act(action);
    else if (!command && key === "[") this.resizePen(-1);
    else if (!command && key === "]") this.resizePen(1);
    else return;
    event.preventDefault();
  }

  listen() {
    this.paper.addEventListener("pointerdown", (event) => this.pressed(event));
    this.paper.addEventListener("pointermove", (event) => this.moved(event));
    this.paper.addEventListener("pointerup", (event) => this.released(event));
    this.paper.addEventListener("pointercancel", (event) => this.released(event));
    this.paper.addEventListener("pointerleave", () => (this.cursor.style.opacity = 0));
    this.paper.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    this.paper.addEventListener("contextmenu", (event) => event.preventDefault());
    element.querySelectorAll("[data-action]").forEach((button) =>
      button.addEventListener("click", () => this.act(button.dataset.action))
    );
    this.size.addEventListener("input", () => {
      element.querySelector(".pad-size-value").textContent = this.size.value;
    });
    const onKey = (event) => {
      if (element.isConnected) this.key(event);
      else document.removeEventListener("keydown", onKey);
    };
    document.addEventListener("keydown", onKey);
    watch("value", () => {
      if (props.value && props.value !== this.drawing()) this.load(props.value);
    });
  }

  thumbnail(strip, picture, label, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = button.ariaLabel = label;
    button.append(Object.assign(new Image(96, 96), { src: picture, alt: "" }));
    button.addEventListener("click", action);
    element.querySelector(strip).append(button);
  }

  async showVariants() {
    const button = this.button("variants");
    button.disabled = true;
    try {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const answer = await this.ask("variants", { drawing: this.drawing(), seed });
      element.querySelector(".pad-variants").replaceChildren();
      answer.pictures.forEach((picture, i) =>
        this.thumbnail(".pad-variants", picture, `Show variant ${i + 1}`, () => (this.face.src = picture))
      );
      this.say("Click a variant to see it large; draw on to go back to the live picture.");
    } catch (error) {
      this.say(error.message, true);
    }
    button.disabled = false;
  }

  async showExamples() {
    for (const { name, drawing } of await this.ask("examples")) {
      this.thumbnail(".pad-examples", drawing, `Start from: ${name}`, () => this.load(drawing));
    }
  }

  restore() {
    let url = null;
    try {
      url = sessionStorage.getItem(props.storage);
    } catch {
      // See commit.
    }
    if (url) this.load(url);
    else this.changed();
  }
}

const board = new Board();
board.restore();
board.showExamples();
