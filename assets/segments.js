// A photo under the classes that were found in it. live.js stands before this.
//
// props.value: what app.SegmentView.postprocess gives, or null. props.chooser: where a photo can be uploaded.
// props.examples: names of the photos to start with. server.first: the value to open with.
//
// The browser decodes the class map once; colours, outlines, names under the pointer and classes that are switched off
// are then its own business, and need no answer from the server.

class Segments {
  constructor() {
    this.find = (name) => element.querySelector(`.seg-${name}`);
    this.stage = this.find("stage");
    this.hidden = new Set();
    this.labels = null; // class number of each pixel, at the size of the photo as it is shown
    this.listen();
    this.open();
  }

  // A tab that is new opens with the first of the examples.
  async open() {
    if (props.value) return this.load(props.value);
    say("Looking at the photo …");
    const first = await insist("first");
    if (this.value !== undefined) return; // a visitor was quicker
    props.value = first; // so that Gradio sees a change when the photo is taken away
    this.load(first);
  }

  async load(value) {
    this.value = value;
    this.labels = null;
    this.find("legend").replaceChildren();
    this.leave();
    say("");
    const pictures = value && (await Promise.all([value.photo, value.map].map(decode)).catch(() => null));
    if (this.value !== value) return; // another photo came in the meantime
    element.classList.toggle("seg-loaded", Boolean(pictures));
    if (!pictures) return value && say("This browser cannot show a photo of this size. Scale it down and try again.", true);
    const [photo, map] = pictures;
    this.find("photo").src = value.photo;
    this.find("photo").alt = describe(value.classes);
    this.find("painted").src = value.painted;
    [this.width, this.height] = [photo.naturalWidth, photo.naturalHeight];
    this.stage.style.aspectRatio = `${this.width} / ${this.height}`;
    this.stage.style.setProperty("--ratio", this.width / this.height);
    this.labels = readLabels(map, this.width, this.height, value.classes);
    this.hidden = new Set([value.background]); // what is no class keeps its own colours, until it is switched on
    this.showLegend();
    this.paint();
    say(describe(value.classes));
  }

  // --- The picture ---

  paint() {
    const size = { width: this.width, height: this.height };
    const fill = Object.assign(this.find("fill"), size).getContext("2d");
    const outline = Object.assign(this.find("outline"), size).getContext("2d");
    const [flat, lines] = [fill, outline].map((context) => context.createImageData(this.width, this.height));
    const [flatWords, lineWords] = [flat, lines].map((image) => new Uint32Array(image.data.buffer));
    const words = new Uint32Array(256); // of each class its colour; nothing, if it is hidden
    for (const { number, color } of this.value.classes) if (!this.hidden.has(number)) words[number] = word(color);
    const [labels, width, white] = [this.labels, this.width, word([255, 255, 255])];
    const thick = Math.max(1, Math.round(width / 600));
    for (let y = 0, i = 0; y < this.height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const label = labels[i];
        flatWords[i] = words[label];
        const beside = x + thick < width ? labels[i + thick] : label;
        const below = y + thick < this.height ? labels[i + thick * width] : label;
        // A line belongs to the classes on both sides of it: it stays while one of them is shown.
        if (beside !== label && (words[label] || words[beside])) lineWords[i] = white;
        if (below !== label && (words[label] || words[below])) lineWords[i] = white;
      }
    }
    fill.putImageData(flat, 0, 0);
    outline.putImageData(lines, 0, 0);
  }

  // --- The legend ---

  showLegend() {
    const legend = this.find("legend");
    for (const { number, name, color, share } of this.value.classes) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.number = number;
      button.style.setProperty("--swatch", `rgb(${color})`);
      button.title = `Show or hide: ${name}`;
      button.ariaPressed = String(!this.hidden.has(number));
      button.append(name, Object.assign(document.createElement("span"), { textContent: percent(share) }));
      button.addEventListener("click", () => this.toggleClass(number));
      legend.append(button);
    }
  }

  toggleClass(number) {
    if (!this.hidden.delete(number)) this.hidden.add(number);
    this.legendButton(number).ariaPressed = String(!this.hidden.has(number));
    this.paint();
  }

  legendButton(number) {
    return this.find("legend").querySelector(`[data-number="${number}"]`);
  }

  // --- Input ---

  point(event) {
    if (!this.labels) return;
    const box = this.stage.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (share.some((x) => x < 0 || x >= 1)) return this.leave();
    const x = Math.floor(share[0] * this.width);
    const label = this.labels[Math.floor(share[1] * this.height) * this.width + x];
    const name = this.find("name");
    name.textContent = this.value.classes.find((one) => one.number === label)?.name ?? "";
    name.style.left = `${share[0] * 100}%`;
    name.style.top = `${share[1] * 100}%`;
    name.classList.toggle("seg-left", share[0] > 0.6);
    for (const button of this.find("legend").children) {
      button.classList.toggle("seg-here", Number(button.dataset.number) === label);
    }
  }

  leave() {
    this.find("name").textContent = "";
    for (const button of this.find("legend").children) button.classList.remove("seg-here");
  }

  toggle(name) {
    const on = element.classList.toggle(`seg-with-${name}`);
    element.querySelector(`[data-action="${name}"]`).ariaPressed = String(on);
  }

  overlay() {
    const canvas = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    if (element.classList.contains("seg-with-painted")) {
      context.drawImage(this.find("painted"), 0, 0, this.width, this.height);
    } else {
      context.drawImage(this.find("photo"), 0, 0);
      context.globalAlpha = this.opacity();
      context.drawImage(this.find("fill"), 0, 0);
      context.globalAlpha = 1;
      if (element.classList.contains("seg-with-outline")) context.drawImage(this.find("outline"), 0, 0);
    }
    return canvas.toDataURL("image/png");
  }

  opacity() {
    return Number(element.querySelector(".pad-size").value) / 100;
  }

  act(action) {
    if (action === "outline" || action === "painted") return this.toggle(action);
    if (!this.labels) return say("Choose a photo first.");
    if (action === "save-mask") save(this.value.mask ?? this.value.map, `${this.value.name}_classes.png`);
    else save(this.overlay(), `${this.value.name}_overlay.png`);
  }

  listen() {
    this.stage.addEventListener("pointermove", (event) => this.point(event));
    this.stage.addEventListener("pointerdown", (event) => this.point(event));
    // A finger leaves as soon as it is lifted: what it has asked for stays to be read.
    this.stage.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.leave());
    element.querySelectorAll("[data-action]").forEach((button) =>
      button.addEventListener("click", () => this.act(button.dataset.action))
    );
    const strength = element.querySelector(".pad-size");
    const follow = () => element.style.setProperty("--opacity", this.opacity());
    strength.addEventListener("input", follow);
    follow();
    element.classList.add("seg-with-outline");
    nameExamples();
    const page = element.closest("[role=tabpanel]") ?? document.body;
    new MutationObserver(nameExamples).observe(page, { childList: true, subtree: true });
    watch("value", () => this.load(props.value));
    listenToFiles(hand);
  }
}

// Gradio shows them as buttons without a name, and makes them at times of its own.
function nameExamples() {
  const buttons = document.querySelectorAll("#segment-examples .gallery-item");
  buttons.forEach((button, i) => (button.ariaLabel = `Start with this photo: ${props.examples[i]}`));
}

async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

// The class number of each pixel of the map.
function readLabels(map, width, height, classes) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  const numbers = new Map(classes.map((one) => [word(one.color), one.number]));
  const words = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const labels = new Uint8Array(words.length);
  for (let i = 0, color, number; i < words.length; i++) {
    if (words[i] !== color) [color, number] = [words[i], numbers.get(words[i])]; // neighbours are mostly alike
    labels[i] = number;
  }
  return labels;
}

// A colour as the four bytes of a canvas.
function word([r, g, b]) {
  return new Uint32Array(new Uint8Array([r, g, b, 255]).buffer)[0];
}

function percent(share) {
  return share < 0.01 ? "< 1 %" : `${Math.round(share * 100)} %`;
}

function describe(classes) {
  const things = classes.filter(({ name }) => name !== "background");
  if (!things.length) return "Nothing was found. The model that ships with this app knows cats, dogs, sheep, horses, cows and people.";
  return `In this photo: ${things.map(({ name, share }) => `${name} ${percent(share)}`).join(", ")}.`;
}

new Segments();
