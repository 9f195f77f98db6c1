// A live board: what is drawn goes to the server while the pen moves, and the answer is shown beside it.
//
// live.js stands before this file. The file of the paper follows it: sketchpad.js (ink) or facade.js (class colours).
// A paper has
//   canvas, tools (names), keys (key -> tool), sizes ([largest, usual])
//   begin(point) -> a new operation   extend(operation, points)   end(operation) -> whether it has changed anything
//   repaint(operations)   read(image) -> a "picture" operation   picture() -> the data: URL that is sent
//   cursor(tool, size) -> width of the tool as a share of the paper, or 0   firstExample: to start with, if any
//
// props.chooser: where a picture can be uploaded. props.judged: whether the model brings a discriminator, for the realism map.
//
// The drawing is a list of operations; undo takes the last one away and paints the rest again.

class Board {
  constructor(paper) {
    this.paper = paper;
    this.face = element.querySelector(".pad-face");
    this.heat = element.querySelector(".pad-heat");
    this.compared = element.querySelector(".pad-compared");
    this.split = element.querySelector(".pad-split");
    this.size = element.querySelector(".pad-size");
    this.cursor = element.querySelector(".pad-cursor");
    this.operations = []; // what the paper made, and {kind: "clear"}
    this.undone = [];
    this.live = null; // the operation under the pen
    this.waiting = []; // when the pointer moved, for each move that no picture has answered yet
    this.follow = new Live(() => this.refresh());
    button("realism").hidden = !props.judged;
    this.setTool(paper.tools[0]);
    this.paint();
    this.listen();
  }

  // --- The drawing ---

  paint() {
    const start = this.operations.findLastIndex((o) => o.kind === "picture" || o.kind === "clear");
    this.paper.repaint(this.operations.slice(Math.max(start, 0)).filter((o) => o.kind !== "clear"));
    const last = this.operations.at(-1);
    element.classList.toggle("pad-empty", !last || last.kind === "clear");
    enable("undo", this.operations.length > 0);
    enable("redo", this.undone.length > 0);
  }

  do(operation) {
    this.operations.push(operation);
    this.undone = [];
    this.paint();
    this.commit();
  }

  undo() {
    if (this.live || !this.operations.length) return;
    this.undone.push(this.operations.pop());
    this.paint();
    this.commit();
  }

  redo() {
    if (this.live || !this.undone.length) return;
    this.operations.push(this.undone.pop());
    this.paint();
    this.commit();
  }

  clear() {
    const last = this.operations.at(-1);
    if (!this.live && last && last.kind !== "clear") this.do({ kind: "clear" });
  }

  // reference: a photo to compare the result with, if the drawing came with one.
  async load(url, reference = null) {
    const image = new Image();
    image.src = url;
    await image.decode();
    // The same photo with other lines: one step back leads to what was there before the photo.
    if (reference && this.operations.at(-1)?.reference === reference) this.operations.pop();
    this.do({ ...this.paper.read(image), reference });
  }

  // --- Sending and showing ---

  // A change is complete: Python's other handlers get to know it, and it survives a reload of the page.
  commit() {
    const url = this.paper.picture();
    props.value = url;
    element.querySelector(".pad-variants").replaceChildren(); // they belong to the drawing before
    const last = this.operations.at(-1);
    remember(last && last.kind !== "clear" ? this.paper.canvas.toDataURL("image/png") : "");
    this.changed();
  }

  changed() {
    this.showCompared();
    this.follow.changed();
  }

  async refresh() {
    const moves = this.waiting;
    this.waiting = [];
    const realism = element.classList.contains("pad-realism");
    await this.show(await ask("redraw", { drawing: this.paper.picture(), realism }), moves);
  }

  async show(answer, moves) {
    this.face.src = answer.picture;
    await this.face.decode();
    if (answer.realism) this.heat.src = answer.realism;
    element.classList.add("pad-alive");
    say("");
    // For benchmarks and tests: how long each pointer move waited for its picture.
    const now = performance.now();
    element.dispatchEvent(new CustomEvent("picture", { detail: { delays: moves.map((moved) => now - moved) } }));
  }

  showCompared() {
    if (!element.classList.contains("pad-compare")) return;
    const picture = this.operations.findLast((o) => o.kind === "picture" || o.kind === "clear");
    this.compared.src = picture?.reference ?? this.paper.picture();
  }

  // --- Input ---

  point(event) {
    const canvas = this.paper.canvas;
    const box = canvas.getBoundingClientRect();
    // A mouse reports a pressure of 0.5: the middle of what a pen can do.
    const pressure = event.pointerType === "pen" ? 0.35 + 1.3 * event.pressure : 1;
    const x = ((event.clientX - box.left) * canvas.width) / box.width;
    const y = ((event.clientY - box.top) * canvas.height) / box.height;
    return { x, y, pressure };
  }

  moved(event) {
    this.showCursor(event);
    if (!this.live || event.pointerId !== this.live.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.paper.extend(this.live, (events.length ? events : [event]).map((step) => this.point(step)));
    this.waiting.push(event.timeStamp);
    this.changed();
  }

  pressed(event) {
    const pen = event.pointerType === "pen";
    if (this.live && pen && !this.live.pen) this.cancelled({ pointerId: this.live.pointer }); // the hand that rests
    if (this.live || (event.pointerType === "mouse" && event.button !== 0)) return;
    event.preventDefault();
    this.paper.canvas.focus({ preventScroll: true, focusVisible: false });
    this.paper.canvas.setPointerCapture(event.pointerId);
    const turned = pen && event.buttons & 32; // the back of the pen erases
    this.live = this.paper.begin(this.point(event), turned ? "eraser" : this.tool, Number(this.size.value));
    Object.assign(this.live, { pointer: event.pointerId, pen });
    element.classList.remove("pad-empty");
    this.waiting.push(event.timeStamp);
    this.changed();
  }

  released(event) {
    if (!this.live || event.pointerId !== this.live.pointer) return;
    const operation = this.live;
    this.live = null;
    if (this.paper.end(operation)) return this.do(operation);
    this.paint();
    this.changed();
  }

  // The browser took the pointer away, to scroll or to zoom: what it had begun was not meant.
  cancelled(event) {
    if (!this.live || event.pointerId !== this.live.pointer) return;
    this.live = null;
    this.paint();
    this.changed();
  }

  showCursor(event) {
    const box = this.paper.canvas.getBoundingClientRect();
    const width = this.paper.cursor(this.tool, Number(this.size.value)) * box.width;
    this.cursor.style.width = this.cursor.style.height = `${width}px`;
    this.cursor.style.transform = `translate(${event.clientX - box.left - width / 2}px, ${event.clientY - box.top - width / 2}px)`;
    this.cursor.style.opacity = event.pointerType === "touch" || !width ? 0 : 1;
  }

  setTool(name) {
    this.tool = name;
    for (const tool of this.paper.tools) button(tool).setAttribute("aria-pressed", String(tool === name));
    const [largest, usual] = this.paper.sizes;
    if (Number(this.size.max) !== largest) {
      this.size.max = largest;
      this.size.value = usual;
    }
    this.showSize();
  }

  showSize() {
    element.querySelector(".pad-size-value").textContent = this.size.value;
  }

  resize(step) {
    this.size.value = Number(this.size.value) + step;
    this.showSize();
  }

  toggle(name) {
    const on = element.classList.toggle(`pad-${name}`);
    button(name).setAttribute("aria-pressed", String(on));
    if (name === "compare") this.showCompared();
    else if (on) this.changed(); // the map of what is seen is not there yet
  }

  act(action) {
    if (this.paper.tools.includes(action)) return this.setTool(action);
    const actions = {
      undo: () => this.undo(),
      redo: () => this.redo(),
      clear: () => this.clear(),
      variants: () => this.showVariants(),
      realism: () => props.judged && this.toggle("realism"),
      compare: () => this.toggle("compare"),
      "save-result": () => this.face.src && save(this.face.src, `${props.result}.jpg`),
      "save-source": () => save(this.paper.canvas.toDataURL("image/png"), `${props.source}.png`),
    };
    actions[action]();
  }

  key(key, command, shift) {
    const keys = { ...this.paper.keys, r: "realism", v: "variants", c: "compare", delete: "clear" };
    const action = (command ? HISTORY_KEYS(shift) : keys)[key];
    if (action) this.act(action);
    else if (command) return false;
    else if (key === "[") this.resize(-1);
    else if (key === "]") this.resize(1);
    else return this.paper.key?.(key);
    return true;
  }

  listen() {
    const canvas = this.paper.canvas;
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", (event) => this.cancelled(event));
    canvas.addEventListener("pointerleave", () => (this.cursor.style.opacity = 0));
    canvas.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    element.querySelectorAll("[data-action]").forEach((button) =>
      button.addEventListener("click", () => this.act(button.dataset.action))
    );
    this.size.addEventListener("input", () => this.showSize());
    this.split.addEventListener("input", () => element.style.setProperty("--split", `${this.split.value}%`));
    listenToKeys((...pressed) => this.key(...pressed));
    listenToFiles(hand);
    watch("value", () => {
      const value = props.value;
      if (value?.drawing) this.load(value.drawing, value.reference);
    });
  }

  async showVariants() {
    if (!isEnabled("variants")) return;
    enable("variants", false);
    try {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const drawing = this.paper.picture();
      const answer = await ask("variants", { drawing, seed });
      if (drawing !== this.paper.picture()) return; // who has drawn on wants others
      element.querySelector(".pad-variants").replaceChildren();
      answer.pictures.forEach((picture, i) =>
        thumbnail(".pad-variants", picture, `Show variant ${i + 1}`, () => {
          this.face.src = picture;
          if (element.classList.contains("pad-realism")) this.toggle("realism"); // its map is of the live picture
        })
      );
      say("Choose a variant to see it large; draw on to go back to the live picture.");
    } catch (error) {
      say(remedy(error), true);
    } finally {
      enable("variants", true);
    }
  }

  async showExamples() {
    const examples = await insist("examples");
    for (const { name, drawing } of examples) {
      thumbnail(".pad-examples", drawing, `Start from: ${name}`, () => this.load(drawing));
    }
    return examples;
  }

  // What was on the paper before a reload; else, if the paper wants one, an example.
  async start() {
    const url = remembered();
    if (url) this.load(url);
    else if (this.paper.firstExample === undefined) this.changed();
    const example = (await this.showExamples())[this.paper.firstExample];
    if (!url && example && !this.operations.length && !this.live) this.load(example.drawing);
  }
}
