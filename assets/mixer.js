// Faces with a weight each, and the face between them, which follows while a slider moves. live.js stands before this.
//
// props.gallery: seeds of the faces to choose from; a mix starts with the first three. props.directions: names.
// props.limits: most faces, largest seed and shift; frames of a film.
//
// What is mixed is one object that is never changed, only replaced; undo goes back to the one before:
//   faces       [{seed}, or {latent, original} for a picture of one's own: what the server made of it, and itself]
//   weights     from 0 to 1, one for each face; only their proportions count
//   shifts      standard deviations along the first directions
//   truncation  from 0, the average face, to 1

const { limits } = props;
const FEWEST = 2; // faces
const SENT = 288, LONGEST = 3; // of an own picture: its shorter side, at most; times its longer side may have
const SEED_HINT = `A seed is a whole number from 0 to ${limits.seed}.`;

const key = (face) => face.latent ?? face.seed;
const random = (below) => Math.floor(Math.random() * below);
const randomFace = () => ({ seed: random(100000) });
const find = (selector) => element.querySelector(selector);

class Mixer {
  constructor() {
    this.face = find(".pad-face");
    this.slots = Array.from({ length: limits.faces }, (_, i) => this.makeSlot(i));
    find(".mix-slots").append(...this.slots);
    this.directions = props.directions.map((name, i) => this.makeDirection(name, i));
    this.truncation = this.makeTruncation();
    this.pictures = new Map(); // key of a face -> its thumbnail
    this.showGallery();
    this.selected = 0;
    this.successors = new WeakMap(); // face -> the picture of one's own that took its place
    this.waiting = []; // when a slider moved, for each move that no picture has answered yet
    this.forget();
    this.steps = [];
    this.follow = new Live(() => this.refresh());
    this.listen();
  }

  // What there is to say stays until the next change, though pictures come in between.
  tell(message, warning = false) {
    this.told = [message, warning];
    say(message, warning);
  }

  forget() {
    this.told = [""];
  }

  // --- What is mixed ---

  fresh() {
    const faces = props.gallery.slice(0, 3).map((seed) => ({ seed }));
    return { faces, weights: faces.map(() => 0.5), shifts: props.directions.map(() => 0), truncation: 1 };
  }

  // A slider moves: the blend follows.
  slide(change, event) {
    this.state = { ...this.state, ...change };
    this.forget();
    this.waiting.push(event.timeStamp);
    this.show();
    this.follow.changed();
  }

  // A change is complete: it becomes a step of undo, and survives a reload of the page.
  commit(change, hint = "") {
    this.state = { ...this.state, ...change };
    this.told = [hint];
    this.steps = [...this.steps.slice(0, this.at + 1), this.state].slice(-200);
    this.go(this.steps.length - 1);
  }

  go(at) {
    if (!this.steps[at]) return;
    this.at = at;
    this.state = this.steps[at];
    remember(JSON.stringify(this.state));
    find(".mix-cells [aria-pressed=true]")?.removeAttribute("aria-pressed"); // that was another mix
    this.selected = Math.min(this.selected, this.state.faces.length - 1);
    if (this.state.faces !== this.sheetFaces) this.close("sheet"); // it shows blends of other faces
    this.show();
    this.follow.changed();
  }

  undo() {
    this.forget();
    this.go(this.at - 1);
  }

  redo() {
    this.forget();
    this.go(this.at + 1);
  }

  setFace(i, face, hint) {
    this.commit({ faces: this.state.faces.with(i, face) }, hint);
  }

  addFace() {
    const { faces, weights } = this.state;
    this.selected = faces.length;
    this.commit({ faces: [...faces, randomFace()], weights: [...weights, Math.max(...weights) || 0.5] });
  }

  removeFace(i) {
    const { faces, weights } = this.state;
    if (faces.length <= FEWEST) return;
    if (i < this.selected) this.selected -= 1; // the chosen face stays chosen
    this.commit({ faces: faces.toSpliced(i, 1), weights: weights.toSpliced(i, 1) });
    // The button may be gone with its place: the focus stays near it.
    this.slots[Math.min(i, faces.length - 2)].querySelector(".mix-choose").focus({ preventScroll: true });
  }

  surprise() {
    const { faces, weights } = this.state;
    this.commit({ faces: faces.map((face) => (face.latent ? face : randomFace())), weights: weights.map(() => Math.random()) });
  }

  shares() {
    const { weights } = this.state;
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => (sum ? weight / sum : 1 / weights.length));
  }

  // --- Asking and showing ---

  recipe() {
    const { faces, weights, shifts, truncation } = this.state;
    return { faces: faces.map(({ seed, latent }) => (latent ? { latent } : { seed })), weights, shifts, truncation };
  }

  async refresh() {
    const moves = this.waiting;
    this.waiting = [];
    const { picture } = await ask("blend", this.recipe());
    this.face.src = picture;
    await this.face.decode();
    element.classList.add("pad-alive");
    const none = this.state.weights.every((weight) => !weight);
    if (none) say("All weights are zero, so every face has the same share. Move a slider.");
    else say(...this.told);
    // For benchmarks and tests: how long each move of a slider waited for its picture.
    const now = performance.now();
    element.dispatchEvent(new CustomEvent("picture", { detail: { delays: moves.map((moved) => now - moved) } }));
    await this.fetchPictures();
  }

  async fetchPictures() {
    if (!this.filled) await this.fillGallery();
    const missing = this.recipe().faces.filter((face) => !this.pictures.has(key(face)));
    if (!missing.length) return this.show();
    const { pictures } = await ask("faces", { faces: missing });
    missing.forEach((face, i) => this.pictures.set(key(face), pictures[i]));
    this.show();
  }

  showGallery() {
    for (const seed of props.gallery) {
      thumbnail(".mix-gallery", "", `Seed ${seed}`, () => this.setFace(this.selected, { seed }));
    }
  }

  async fillGallery() {
    const { pictures } = await ask("choose");
    const images = element.querySelectorAll(".mix-gallery img");
    props.gallery.forEach((seed, i) => {
      this.pictures.set(seed, pictures[i]);
      images[i].src = pictures[i];
    });
    this.filled = true;
  }

  show() {
    const { faces, shifts, truncation } = this.state;
    const shares = this.shares();
    this.slots.forEach((slot, i) => {
      slot.hidden = i >= faces.length;
      if (!slot.hidden) this.showSlot(slot, faces[i], this.state.weights[i], shares[i], i === this.selected);
    });
    enable("add", faces.length < limits.faces);
    element.classList.toggle("mix-fewest", faces.length <= FEWEST);
    shifts.forEach((shift, i) => this.showSlider(this.directions[i], shift, shift.toFixed(1)));
    this.showSlider(this.truncation, truncation, `${Math.round(100 * truncation)} %`);
    enable("undo", this.at > 0);
    enable("redo", this.at < this.steps.length - 1);
  }

  showSlot(slot, face, weight, share, selected) {
    const [picture, original, seed] = [".mix-choose img", ".mix-original", ".mix-seed"].map((name) => slot.querySelector(name));
    if (this.pictures.has(key(face))) picture.src = this.pictures.get(key(face));
    slot.querySelector(".mix-choose").setAttribute("aria-pressed", String(selected));
    original.hidden = !face.original;
    if (face.original) original.src = face.original;
    if (document.activeElement !== seed) seed.value = face.seed ?? "";
    seed.placeholder = face.latent ? "own" : "";
    this.showSlider(slot, weight, `${Math.round(100 * share)} %`);
  }

  showSlider(parent, value, text) {
    const input = parent.querySelector("input[type=range]");
    if (Number(input.value) !== value) input.value = value;
    parent.querySelector("output").textContent = text;
  }

  // --- The parts of the page ---

  makeSlot(i) {
    const slot = find(".mix-slot-template").content.firstElementChild.cloneNode(true);
    const on = (selector, type, action) => slot.querySelector(selector).addEventListener(type, action);
    slot.ariaLabel = `Face ${i + 1}`;
    slot.querySelector(".mix-seed").max = limits.seed;
    slot.querySelector(".mix-choose").ariaLabel = `Choose the place of face ${i + 1}`;
    slot.querySelector(".mix-weight").ariaLabel = `Weight of face ${i + 1}`;
    on(".mix-weight", "input", (event) => this.slide({ weights: this.state.weights.with(i, Number(event.target.value)) }, event));
    on(".mix-weight", "change", () => this.commit());
    on(".mix-seed", "change", (event) => this.typeSeed(i, event.target.value));
    on(".mix-choose", "click", () => this.select(i));
    on(".mix-remove", "click", () => this.removeFace(i));
    on(".mix-dice", "click", () => this.setFace(i, randomFace()));
    on(".mix-own", "click", () => {
      this.select(i);
      find(".mix-file").click();
    });
    return slot;
  }

  makeDirection(name, i) {
    return this.makeSlider(name, (value) => ({ shifts: this.state.shifts.with(i, value) }));
  }

  makeTruncation() {
    const slider = this.makeSlider("Character", (truncation) => ({ truncation }));
    slider.title = "At 0 % it is the average face of all; at 100 % the blend as it is";
    Object.assign(slider.querySelector("input"), { min: 0, max: 1, step: 0.01 });
    return slider;
  }

  // change(value) -> what of the state follows when the slider moves to value.
  makeSlider(name, change) {
    const slider = find(".mix-direction-template").content.firstElementChild.cloneNode(true);
    const input = slider.querySelector("input");
    slider.querySelector("span").textContent = name;
    slider.title = name;
    Object.assign(input, { min: -limits.shift, max: limits.shift });
    input.addEventListener("input", (event) => this.slide(change(Number(input.value)), event));
    input.addEventListener("change", () => this.commit());
    find(".mix-directions").append(slider);
    return slider;
  }

  select(i) {
    this.selected = i;
    this.show();
  }

  typeSeed(i, text) {
    const seed = Number(text);
    if (text.trim() && Number.isInteger(seed) && seed >= 0 && seed <= limits.seed) return this.setFace(i, { seed });
    this.tell(SEED_HINT, true);
    this.show();
  }

  // --- A picture of one's own ---

  async takeOwn(file, i) {
    if (!file) return;
    say("Looking at your picture …");
    let replaced = this.state.faces[i];
    try {
      const [picture, original] = await this.readOwn(file);
      const { latent, picture: face, hint } = await ask("encode", { picture });
      this.pictures.set(latent, face);
      while (this.successors.has(replaced)) replaced = this.successors.get(replaced); // of two pictures the later counts
      const place = this.state.faces.indexOf(replaced); // it may have moved meanwhile
      if (place < 0) throw new Error("The face that your picture was meant for has gone. Choose the picture again for another one.");
      const own = { latent, original };
      this.successors.set(replaced, own);
      this.setFace(place, own, hint);
    } catch (error) {
      this.tell(remedy(error), true);
    }
  }

  // -> what is sent to the server, and a thumbnail of the square that it looks at.
  async readOwn(file) {
    let image;
    try {
      image = await createImageBitmap(file);
    } catch {
      throw new Error(`“${file.name}” is not a picture that can be read. Save it as PNG, JPEG or WebP and try again.`);
    }
    const { width, height } = image;
    const shorter = Math.min(width, height);
    // Only the square in the middle counts; of a panorama not much more is sent.
    const [wide, high] = [width, height].map((side) => Math.min(side, LONGEST * shorter));
    const scale = Math.min(1, SENT / shorter);
    const sent = draw(image, (width - wide) / 2, (height - high) / 2, wide, high, Math.round(wide * scale), Math.round(high * scale));
    const original = draw(image, (width - shorter) / 2, (height - shorter) / 2, shorter, shorter, 96, 96);
    return [sent.toDataURL("image/png"), original.toDataURL("image/jpeg", 0.85)];
  }

  // --- A hundred blends ---

  async showSheet() {
    const { faces, shifts, truncation } = this.state;
    enable("sheet", false);
    try {
      const { picture, weights } = await ask("sheet", { ...this.recipe(), seed: random(limits.seed) });
      const image = find(".mix-sheet img");
      image.src = picture;
      await image.decode();
      if (faces !== this.state.faces) throw new Error("The faces have changed meanwhile. Ask for the 100 blends again.");
      this.sheetFaces = faces;
      const cells = weights.map((row, i) => this.makeCell(i, () => this.commit({ weights: row, shifts, truncation })));
      find(".mix-cells").replaceChildren(...cells);
      roam(cells, Math.sqrt(cells.length));
      this.open(".mix-sheet");
    } catch (error) {
      this.tell(remedy(error), true);
    }
    enable("sheet", true);
  }

  makeCell(i, action) {
    const cell = Object.assign(document.createElement("button"), { type: "button", ariaLabel: `Take the weights of blend ${i + 1}` });
    cell.addEventListener("click", () => {
      action();
      cell.setAttribute("aria-pressed", "true");
    });
    return cell;
  }

  // --- The film ---

  async makeFilm() {
    const job = `${Date.now()}-${random(1e9)}`;
    const timer = setInterval(() => this.showProgress(job), 250);
    enable("film", false);
    element.classList.add("mix-filming");
    find(".mix-film progress").value = 0;
    find(".mix-film .mix-caption").textContent = `Making the film: ${limits.frames} pictures, from face to face …`;
    this.open(".mix-film");
    try {
      const { mp4, gif } = await ask("film", { ...this.recipe(), job });
      this.showFilm(toUrl(mp4, "video/mp4"), toUrl(gif, "image/gif"));
      this.open(".mix-film"); // it may have been closed meanwhile
    } catch (error) {
      this.close("film");
      this.tell(remedy(error), true);
    }
    clearInterval(timer);
    element.classList.remove("mix-filming");
    enable("film", true);
  }

  async showProgress(job) {
    const { done } = await ask("film_progress", { job }).catch(() => ({}));
    if (done) find(".mix-film progress").value = done;
  }

  showFilm(mp4, gif) {
    if (this.film) Object.values(this.film).forEach((url) => URL.revokeObjectURL(url));
    this.film = { mp4, gif };
    find(".mix-film .mix-caption").textContent = "From face to face and back to the first.";
    const video = find("video");
    video.src = mp4;
    if (!calm()) video.play().catch(() => {}); // a browser may want a click first
  }

  // The server's own file: it says that it was made by a network, which a canvas would forget.
  async saveBlend() {
    try {
      const { picture } = await ask("large", this.recipe());
      save(picture, "blend.png");
    } catch (error) {
      this.tell(remedy(error), true);
    }
  }

  open(panel) {
    const [section, wasHidden, at] = [find(panel), find(panel).hidden, document.activeElement];
    section.hidden = false;
    section.scrollIntoView({ block: "nearest", behavior: calm() ? "instant" : "smooth" });
    // The keyboard goes on from here, unless the visitor has gone elsewhere meanwhile.
    if (wasHidden && (at === document.body || at.matches(".mix-blend button"))) section.focus({ preventScroll: true });
  }

  // name: of the panel, and of the button that opens it, where the focus goes back to.
  close(name) {
    const section = find(`.mix-${name}`);
    if (section.contains(document.activeElement)) button(name).focus();
    section.querySelector("video")?.pause();
    section.hidden = true;
  }

  // --- Links ---

  async copyLink() {
    const { faces, weights, shifts, truncation } = this.state;
    const mix = faces.flatMap(({ seed }, i) => (seed === undefined ? [] : [`${seed}:${round(weights[i])}`]));
    if (mix.length < FEWEST) return this.tell("A link needs at least two faces from seeds: pictures of your own stay with you.", true);
    const moved = shifts.some(Boolean) ? `&shifts=${shifts.map(round).join(",")}` : "";
    const character = truncation < 1 ? `&character=${round(truncation)}` : "";
    const url = `${location.origin}${location.pathname}?mix=${mix.join(",")}${moved}${character}`;
    const left = mix.length < faces.length ? " Pictures of your own are not in it: they stay with you." : "";
    try {
      await navigator.clipboard.writeText(url);
      this.tell(`The link to this mix is copied.${left}`);
    } catch {
      window.prompt(translated(`Copy this link.${left}`), url); // the clipboard is only there on https and on one's own computer
    }
  }

  // What a link says; null if it says nothing. Throws if it is damaged.
  readLink() {
    const query = new URLSearchParams(location.search);
    const text = query.get("mix");
    if (text === null) return null;
    const faces = text.split(",").map((part) => part.split(":"));
    const shifts = query.get("shifts")?.split(",") ?? [];
    const state = {
      faces: faces.map(([seed]) => ({ seed: number(seed, 0, limits.seed) })),
      weights: faces.map(([, weight]) => number(weight, 0, 1)),
      shifts: props.directions.map((_, i) => number(shifts[i] ?? "0", -limits.shift, limits.shift)),
      truncation: number(query.get("character") ?? "1", 0, 1),
    };
    const whole = faces.every((part) => part.length === 2) && state.faces.every(({ seed }) => Number.isInteger(seed));
    if (!whole || faces.length < FEWEST || faces.length > limits.faces || shifts.length > props.directions.length) throw new Error("damaged");
    return state;
  }

  // --- Input ---

  act(action) {
    const actions = {
      undo: () => this.undo(),
      redo: () => this.redo(),
      surprise: () => this.surprise(),
      add: () => this.addFace(),
      equal: () => this.commit({ weights: this.state.weights.map(() => 0.5) }),
      straight: () => this.commit({ shifts: this.state.shifts.map(() => 0), truncation: 1 }),
      sheet: () => this.showSheet(),
      film: () => this.makeFilm(),
      link: () => this.copyLink(),
      save: () => this.saveBlend(),
      "save-sheet": () => save(find(".mix-sheet img").src, "blends.png"),
      "save-mp4": () => this.film && save(this.film.mp4, "faces.mp4"),
      "save-gif": () => this.film && save(this.film.gif, "faces.gif"),
      "close-sheet": () => this.close("sheet"),
      "close-film": () => this.close("film"),
    };
    if (isEnabled(action)) actions[action]();
  }

  listen() {
    element.querySelectorAll("[data-action]").forEach((button) =>
      button.addEventListener("click", () => this.act(button.dataset.action))
    );
    for (const name of ["sheet", "film"]) {
      find(`.mix-${name}`).addEventListener("keydown", (event) => event.key === "Escape" && this.close(name));
    }
    const file = find(".mix-file");
    file.addEventListener("change", () => {
      this.takeOwn(file.files[0], this.selected);
      file.value = ""; // so that the same file may be chosen again
    });
    listenToKeys((key, command, shift) => {
      const keys = { s: "surprise", e: "equal", h: "sheet", f: "film" };
      const action = (command ? HISTORY_KEYS(shift) : keys)[key];
      if (action) this.act(action);
      return action;
    });
    listenToFiles((file, target) => {
      const place = this.slots.indexOf(target?.closest(".mix-slot"));
      this.takeOwn(file, place < 0 ? this.selected : place);
    });
  }

  // As it was before a reload, if that fits this model.
  before() {
    try {
      const state = JSON.parse(remembered());
      return state.faces.length === state.weights.length && state.shifts.length === props.directions.length ? state : null;
    } catch {
      return null;
    }
  }

  // From a link, or as it was before a reload, or fresh.
  start() {
    let state = null;
    let hint = "";
    try {
      state = this.readLink();
      // The link has been followed: what is changed from now on shall survive a reload.
      if (state) forgetLink();
      else state = this.before();
    } catch {
      hint = "This link is damaged, so the mix starts afresh. Ask for the link once more.";
      forgetLink();
    }
    this.commit(state ?? this.fresh(), hint);
  }
}

function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

// Part of an image, scaled to width x height, on a canvas.
function draw(image, left, top, wide, high, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // under what is transparent, as on the server
  context.fillRect(0, 0, width, height);
  context.drawImage(image, left, top, wide, high, 0, 0, width, height);
  return canvas;
}

function toUrl(base64, type) {
  return URL.createObjectURL(new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type }));
}

function forgetLink() {
  const url = new URL(location);
  for (const name of ["mix", "shifts", "character"]) url.searchParams.delete(name);
  history.replaceState(null, "", url);
}

function round(value) {
  return Math.round(value * 1e4) / 1e4;
}

function number(text, smallest, largest) {
  const value = Number(text);
  if (!text?.trim() || !(value >= smallest && value <= largest)) throw new Error("damaged");
  return value;
}

new Mixer().start();
