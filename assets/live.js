// What all boards share: questions to the server, a picture that follows, keys, messages, files to keep.
//
// Gradio runs this with the file of the board behind it, once for each board, with
//   element  the board's own DOM        server  the Python functions of the board
//   props    its value and options      watch   tells when Python has set the value

function say(message, warning = false) {
  const status = element.querySelector(".pad-status");
  status.textContent = message;
  status.classList.toggle("pad-warning", warning);
}

// Calls a Python function of the board. Throws what the server has to say, or that it says nothing.
async function ask(name, request = null) {
  let answer;
  try {
    answer = await server[name](request);
  } catch {
    // Told below, as is the missing answer that Gradio gives in place of some errors.
  }
  if (!answer) throw Object.assign(new Error(`No answer from the server. Your ${props.source} is safe here.`), { lost: true });
  if (answer.error) throw Object.assign(new Error(answer.error), { told: true });
  return answer;
}

// What a tab opens with: nobody else would ask for it again.
async function insist(name) {
  for (let failed = false; ; failed = true) {
    try {
      const answer = await ask(name);
      if (failed) say("");
      return answer;
    } catch (error) {
      if (!element.isConnected) throw error;
      say(`${error.message} Trying again …`, true);
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}

// What to tell of an error after which nothing is tried again by itself.
function remedy(error) {
  return error.lost ? `${error.message} Try again in a few seconds.` : error.message;
}

// A request is sent only when the answer to the last one is there, and always with the newest state.
// refresh(): asks and shows. It may throw what there is to say, and is tried again then.
class Live {
  constructor(refresh) {
    this.refresh = refresh;
    this.busy = this.dirty = false;
    this.failures = 0;
  }

  changed() {
    this.dirty = true;
    if (!this.busy) this.run();
  }

  async run() {
    this.mark(true);
    while (this.dirty) {
      this.dirty = false;
      try {
        await this.refresh();
        this.failures = 0;
      } catch (error) {
        say(error.told ? error.message : `${error.message} Trying again …`, true);
        this.failures += 1;
        await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** this.failures, 8000)));
        this.dirty ||= this.failures < 8; // then it waits for the next change
        if (!this.dirty && !error.told) {
          say(`The server has gone. Your ${props.source} is safe here: save it, or change it to try again.`, true);
        }
        this.failures %= 8;
      }
    }
    this.mark(false);
  }

  // The class is for benchmarks and tests: while the board has it, what is seen is older than what was asked for.
  mark(busy) {
    this.busy = busy;
    element.classList.toggle("pad-busy", busy);
  }
}

// handler(key, command, shift) -> whether the key meant something. Only the board that is seen listens, and not to
// somebody who types.
function listenToKeys(handler) {
  const onKey = (event) => {
    if (!element.isConnected) return document.removeEventListener("keydown", onKey);
    const typing = event.target.closest("input:not([type=range]), textarea, select, [contenteditable]");
    const command = event.ctrlKey || event.metaKey;
    // A letter alone is for the board only if nothing else has the focus: there it may mean something else.
    const elsewhere = !command && event.target !== document.body && !element.contains(event.target);
    if (typing || elsewhere || !element.offsetParent || event.altKey) return;
    if (handler(event.key.toLowerCase(), command, event.shiftKey)) event.preventDefault();
  };
  document.addEventListener("keydown", onKey);
}

// take(file, target): a file that is dropped on a part of the board, or pasted while it is seen. Without a listener a browser
// would leave the page to open what is dropped.
function listenToFiles(take) {
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) take(file, event.target);
  });
  const onPaste = (event) => {
    if (!element.isConnected) return document.removeEventListener("paste", onPaste);
    const [file] = event.clipboardData.files;
    if (file && element.offsetParent) take(file);
  };
  document.addEventListener("paste", onPaste);
}

// Gives a file to the upload of Gradio that props.chooser finds, as if it had been chosen there.
function hand(file) {
  const input = document.querySelector(props.chooser);
  if (!input) return say("Wait until the last photo is there, or close the webcam, and try again.", true);
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

const HISTORY_KEYS = (shift) => ({ z: shift ? "redo" : "undo", y: "redo" }); // with Ctrl or Cmd

// A button that cannot be used now keeps the focus, which `disabled` would take away from those without a mouse.
function enable(name, on) {
  for (const one of element.querySelectorAll(`[data-action="${name}"]`)) one.ariaDisabled = String(!on);
}

function isEnabled(name) {
  return button(name).ariaDisabled !== "true";
}

// Of buttons in `columns` columns one is reached by Tab, the others from there by the arrow keys.
function roam(buttons, columns, act = () => {}) {
  const reach = (one) => buttons.forEach((other) => (other.tabIndex = other === one ? 0 : -1));
  reach(buttons[0]);
  buttons.forEach((button, i) => {
    button.addEventListener("focus", () => reach(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = buttons[i + step];
      next?.focus();
      if (next) act(i + step);
    });
  });
}

function button(name) {
  return element.querySelector(`[data-action="${name}"]`);
}

function thumbnail(strip, picture, label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = button.ariaLabel = label;
  button.append(Object.assign(new Image(96, 96), { src: picture, alt: "" }));
  button.addEventListener("click", action);
  element.querySelector(strip).append(button);
}

function save(url, name) {
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
}

// What survives a reload of the page. A browser that forbids it only loses the comfort.
function remember(text) {
  try {
    sessionStorage.setItem(props.storage, text);
  } catch {}
}

function remembered() {
  try {
    return sessionStorage.getItem(props.storage);
  } catch {
    return null;
  }
}
