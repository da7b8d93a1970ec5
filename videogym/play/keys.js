"use strict";
// Everything without a pointer: letters choose options, arrows the segment and the frames, Enter does it.
(() => {
  const $ = (id) => document.getElementById(id);
  const { now, choose, mean, zoom, show, decide } = window.playPage;
  const STEP = 0.01; // of the part of the video that the timeline shows
  const FIRST = 0.05; // of it, the first segment
  const GROWTH = 1.25;

  const isText = (target) => target.matches("textarea, input:not([type=radio])");

  // --- the segment -----------------------------------------------------------------------------

  function move(direction, end) {
    const { view, part, chosen } = now();
    const step = direction * STEP * (part[1] - part[0]);
    if (!chosen) return begin(view, part);
    const [start, stop] = chosen;
    if (end) return choose(start, Math.min(Math.max(stop + step, start + 0.01), view.duration_s));
    const shift = Math.min(Math.max(step, -start), view.duration_s - stop);
    choose(start + shift, stop + shift);
  }

  function begin(view, part) {
    const [middle, half] = [(part[0] + part[1]) / 2, (FIRST * (part[1] - part[0])) / 2];
    choose(middle - half, middle + half);
  }

  function stretch(factor) {
    const { view, part, chosen } = now();
    if (!chosen) return begin(view, part);
    const [middle, half] = [(chosen[0] + chosen[1]) / 2, Math.max((factor * (chosen[1] - chosen[0])) / 2, 0.005)];
    choose(Math.max(middle - half, 0), Math.min(middle + half, view.duration_s));
  }

  // Keep the segment in sight.
  function follow() {
    const { part, chosen } = now();
    const length = part[1] - part[0];
    if (chosen && (chosen[0] < part[0] || chosen[1] > part[1])) {
      const middle = (chosen[0] + chosen[1]) / 2;
      const half = Math.max(length, chosen[1] - chosen[0]) / 2;
      zoom(middle - half, middle + half);
    }
  }

  // --- among frames ----------------------------------------------------------------------------

  // The frame in a direction: in a line of pictures, or nearest in the line above or below.
  function neighbour(button, key) {
    const buttons = [...button.parentElement.children];
    const at = buttons.indexOf(button);
    if (key === "Home" || key === "End") return key === "Home" ? buttons[0] : buttons.at(-1);
    if (key === "ArrowLeft" || key === "ArrowRight") return buttons[at + (key === "ArrowLeft" ? -1 : 1)];
    const down = key === "ArrowDown";
    const beyond = buttons.filter((one) => (down ? one.offsetTop > button.offsetTop : one.offsetTop < button.offsetTop));
    const line = (down ? beyond[0] : beyond.at(-1))?.offsetTop;
    const away = (one) => Math.abs(one.offsetLeft - button.offsetLeft);
    return beyond.filter((one) => one.offsetTop === line).sort((one, other) => away(one) - away(other))[0];
  }

  $("strips").addEventListener("keydown", (event) => {
    const button = event.target.closest(".frames button");
    if (!button || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const next = neighbour(button, event.key);
    if (!next) return;
    show(...next.dataset.place.split(" ").map(Number));
    next.focus();
  });

  // --- anywhere --------------------------------------------------------------------------------

  function letter(key) {
    const { view } = now();
    const input = [...document.querySelectorAll("#options input")].find((one) => one.value.toLowerCase() === key.toLowerCase());
    if (!input || view.over || input.disabled) return false;
    input.checked = true;
    mean("answer");
    return true;
  }

  // Enter where nothing else takes it: a button and a link do what they say, a field sends its own form.
  function enter(event) {
    const own = event.target.closest("button:not(.frames button), summary, a");
    const sends = event.ctrlKey || event.metaKey;
    if (own || (isText(event.target) && !sends)) return false;
    mean()?.click();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    const { view } = now();
    if (!view || event.defaultPrevented || event.altKey || event.isComposing) return;
    if (event.key === "Enter") {
      if (enter(event)) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || isText(event.target)) return;
    if (view.review && /^[yn]$/i.test(event.key)) {
      event.preventDefault();
      return decide(event.key.toLowerCase() === "y");
    }
    if (event.key.length === 1 && letter(event.key)) return event.preventDefault();
    if (view.over || event.target.matches("input[type=radio]")) return; // whose arrows go among the options
    const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // Up and down scroll the page everywhere else.
    const upright = event.target === $("lanes") ? { ArrowUp: GROWTH, ArrowDown: 1 / GROWTH }[event.key] : undefined;
    if (!sideways && !upright) return;
    event.preventDefault();
    if (sideways) move(sideways, event.shiftKey);
    else stretch(upright);
    follow();
  });
})();
