// The page in the language of its visitor, if assets/languages has it. Runs before Gradio builds the page.
//
// Boards and Python write English. What they write is replaced before the browser paints it, so none of them has to
// think of languages; a text without a translation stays English. Gradio keeps the translations, and says in the `lang`
// of the document which language is wanted: the browser's, or the one chosen in Gradio's settings.
// In a translation {1}, {2} ... stand for what differs from time to time: a number, a name.

{
  const ATTRIBUTES = ["title", "alt", "aria-label", "placeholder"];
  const OURS = "[lang=en], script, style, textarea"; // what is inside of these stays as it is
  const sources = new WeakMap(); // a text or element -> {"" or attribute: [its English, what stands there instead]}
  let texts = null; // English -> translation; null: the page is in English
  let patterns = []; // [expression, translation] of the texts with placeholders, the most exact first
  let originals = null; // translation, in any language -> English: Gradio translates some texts itself, and only once

  const choose = () => {
    const all = window.gradio_config?.i18n_translations ?? {};
    const language = document.documentElement.lang;
    const found = all[language] ?? all[language.split("-")[0]];
    texts = found ? new Map(Object.entries(found)) : null;
    const pairs = Object.values(all).flatMap((one) => Object.entries(one));
    originals = new Map(pairs.reverse().map(([english, translation]) => [translation, english])); // of several the first
    patterns = [...(texts ?? [])].filter(([english]) => english.includes("{1}")).map(toPattern);
    patterns.sort((a, b) => b[0].source.length - a[0].source.length);
    if (texts) document.body.removeAttribute("lang");
    else document.body.lang = "en"; // Gradio itself may speak another language
    observer.disconnect();
    visit(document.documentElement);
    if (!texts) return;
    const changes = { subtree: true, childList: true, characterData: true, attributeFilter: ATTRIBUTES };
    observer.observe(document.documentElement, changes);
  };

  const toPattern = ([english, translation]) => {
    const escaped = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{\d\}/g, "(.*?)");
    return [new RegExp(`^${escaped}$`, "s"), translation];
  };

  const translate = (text) => {
    const [, before, words, after] = text.match(/^(\s*)(.*?)(\s*)$/s);
    return before + translateWords(words) + after;
  };

  const translateWords = (english) => {
    if (!texts || !/[a-z]/i.test(english)) return english;
    if (texts.has(english)) return texts.get(english);
    for (const [pattern, translation] of patterns) {
      const found = english.match(pattern);
      if (found) return translation.replace(/\{(\d)\}/g, (_, i) => translatePart(found[i]));
    }
    return english;
  };

  // What stands for a placeholder: a sentence, or names among numbers.
  const translatePart = (part) => {
    if (/\.\w{2,5}\b/.test(part)) return part; // the name of a file
    const sentence = translate(part);
    return sentence === part ? part.replace(/[a-z][a-z ]*[a-z]/gi, (name) => texts.get(name) ?? name) : sentence;
  };

  const visit = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = root; node; node = walker.nextNode()) {
      if (node.nodeType === Node.TEXT_NODE) show(node, "");
      else if (node.nodeType === Node.ELEMENT_NODE) ATTRIBUTES.forEach((name) => show(node, name));
    }
  };

  // name: of an attribute, or "" for a text.
  const show = (node, name) => {
    const now = name ? node.getAttribute(name) : node.data;
    if (!now || (texts && (name ? node : node.parentElement)?.closest(OURS))) return;
    const known = sources.get(node) ?? {};
    const [source, shown] = known[name] ?? [];
    const english = now === shown ? source : (originals.get(now) ?? now);
    const translation = translate(english);
    if (translation === now) return;
    sources.set(node, { ...known, [name]: [english, translation] });
    if (name) node.setAttribute(name, translation);
    else node.data = translation;
  };

  const observer = new MutationObserver((changes) => {
    for (const { type, target, attributeName, addedNodes } of changes) {
      if (type === "childList") addedNodes.forEach(visit);
      else show(target, attributeName ?? "");
    }
  });

  window.translated = translate; // for what is not part of the page: the browser's own dialogues
  new MutationObserver(choose).observe(document.documentElement, { attributeFilter: ["lang"] });
  choose();
}
