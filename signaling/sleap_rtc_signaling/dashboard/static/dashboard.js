/* What a page does by itself beyond htmx: says whether it is live, and copies.
   Without this file every page still works; it only shows less. */
"use strict";

(() => {
  const WORDS = {
    live: ["Live", "disc"],
    lost: ["No connection; trying again", "ring"],
    over: ["No longer live; load the page again", "cross"],
    paused: ["Paused while nobody looked", "dash"],
  };

  function say(root, state) {
    const [word, shape] = WORDS[state];
    const line = root.querySelector(".link");
    if (line === null || line.dataset.state === state) return;
    line.dataset.state = state;
    line.querySelector("use").setAttribute("href", `#s-${shape}`);
    line.querySelector("span").textContent = word;
  }

  for (const [event, state] of [
    ["htmx:sseOpen", "live"],
    ["htmx:sseError", "lost"],
    ["htmx:sseClose", "over"],
  ]) {
    document.addEventListener(event, (told) => {
      const root = told.target.closest?.("[data-live]");
      if (root) say(root, state);
    });
  }

  /* A browser holds few connections to one server, so a page that is out of sight for a
     while lets go of its own; it is loaded anew when it is looked at again. */
  const HIDDEN_MS = 60000;
  const sources = new Set();
  let isPaused = false;
  let pausing = 0;

  htmx.createEventSource = (url) => {
    const source = new EventSource(url);
    sources.add(source);
    return source;
  };

  document.addEventListener("visibilitychange", () => {
    clearTimeout(pausing);
    if (document.visibilityState === "visible") {
      if (isPaused) location.reload();
      return;
    }
    pausing = setTimeout(() => {
      for (const source of sources) source.close();
      for (const root of document.querySelectorAll("[data-live]")) {
        say(root, "paused");
        isPaused = true;
      }
    }, HIDDEN_MS);
  });

  /* An update may come while somebody has text marked in it: it waits until the mark is
     gone, and the newest wins. */
  const waiting = new Map();

  function isMarked(part) {
    const marked = document.getSelection();
    return Boolean(marked && !marked.isCollapsed && part.contains(marked.anchorNode));
  }

  document.addEventListener("htmx:sseBeforeMessage", (told) => {
    waiting.delete(told.target);
    if (isMarked(told.target)) {
      told.preventDefault();
      waiting.set(told.target, told.detail.data);
    }
  });

  document.addEventListener("selectionchange", () => {
    for (const [part, html] of waiting) {
      if (isMarked(part)) continue;
      waiting.delete(part);
      htmx.swap(part, html, { swapStyle: "innerHTML" });
    }
  });

  async function copy(button) {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      /* Without https there is no clipboard; what is marked can be copied by hand. */
      if (!document.execCommand("copy")) return;
    }
    const word = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = word; }, 2000);
  }

  document.addEventListener("click", (pressed) => {
    const button = pressed.target.closest("[data-copy]");
    if (button) copy(button);
  });

  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
})();
