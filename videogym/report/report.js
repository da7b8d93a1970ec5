"use strict";
(() => {
  const form = document.getElementById("filters");
  const list = document.getElementById("episodes");
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const episodes = [...list.querySelectorAll(".episode")];
  const texts = new Map(); // filled by the first search: 1,000 episodes are read in a moment, but not for nothing

  // --- filters ---------------------------------------------------------------------------------

  const wanted = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));

  function text(episode) {
    if (!texts.has(episode)) texts.set(episode, episode.textContent.toLowerCase());
    return texts.get(episode);
  }

  function fits(episode, want) {
    const data = episode.dataset;
    const reward = Number(data.reward);
    return (
      (!want.run || data.run === want.run) &&
      (!want.verdict || data.verdict === want.verdict) &&
      (!want.recipe || data.recipe === want.recipe) &&
      (!want.ending || data.ending === want.ending) &&
      (want.turns !== "refused" || data.refused !== "0") &&
      (want.turns !== "executed" || data.refused === "0") &&
      (want.turns !== "fault" || data.fault !== "0") &&
      (!want.low || reward >= Number(want.low)) &&
      (!want.high || reward <= Number(want.high)) &&
      (!want.text || text(episode).includes(want.text.toLowerCase()))
    );
  }

  function compare(want) {
    const [name, sign] = want.sort.startsWith("-") ? [want.sort.slice(1), 1] : [want.sort, -1];
    // What is unknown comes last, whichever way the others go.
    const value = (episode) => (episode.dataset[name] === "" ? sign * Infinity : Number(episode.dataset[name]));
    return (one, other) => {
      const stored = one.dataset.number - other.dataset.number;
      if (!name) return stored;
      if (name === "task") return one.dataset.task.localeCompare(other.dataset.task, "en", { numeric: true }) || stored;
      return sign * (value(one) - value(other)) || stored;
    };
  }

  // --- side by side ----------------------------------------------------------------------------

  // The k-th episode of a task in one run stands beside the k-th of that task in the other.
  function paired(left, right, order) {
    const rows = new Map();
    for (const [side, run] of [[0, left], [1, right]]) {
      const counts = new Map();
      for (const episode of episodes.filter((one) => one.dataset.run === run)) {
        const task = episode.dataset.task;
        const count = (counts.get(task) || 0) + 1;
        counts.set(task, count);
        const key = `${count} ${task}`;
        if (!rows.has(key)) rows.set(key, [null, null]);
        rows.get(key)[side] = episode;
      }
    }
    return [...rows.values()].sort((one, other) => order(one[0] || one[1], other[0] || other[1]));
  }

  function outcome(pair) {
    if (!pair[0] || !pair[1] || pair.some((episode) => episode.dataset.verdict === "unjudged")) return "open";
    const [left, right] = pair.map((episode) => episode.dataset.verdict === "right");
    if (left && right) return "both";
    return left ? "left" : right ? "right" : "neither";
  }

  // Two-sided sign test on the tasks that only one run got right.
  function signTest(left, right) {
    let term = Math.pow(0.5, left + right);
    let tail = 0;
    if (term === 0 || term === 1) return NaN; // no such task, or more than a thousand
    for (let k = 0; k <= Math.min(left, right); k++) {
      tail += term;
      term *= (left + right - k) / (k + 1);
    }
    return Math.min(1, 2 * tail);
  }

  function contest(pairs, want) {
    const counts = { both: 0, left: 0, right: 0, neither: 0, open: 0 };
    for (const pair of pairs) counts[outcome(pair)]++;
    const p = signTest(counts.left, counts.right);
    const words = [`right in both ${counts.both}`, `in ${want.left} only ${counts.left}`];
    words.push(`in ${want.right} only ${counts.right}`, `in neither ${counts.neither}`);
    if (counts.open) words.push(`played by one only, or not judged ${counts.open}`);
    if (!Number.isNaN(p)) words.push(`sign test p = ${p.toFixed(3)}`);
    return words.join(" · ");
  }

  function row(pair) {
    const place = document.createElement("div");
    place.className = "pair";
    for (const episode of pair) {
      if (episode) episode.hidden = false;
      const nobody = document.createElement("p");
      nobody.className = "nobody";
      nobody.textContent = "this run did not play the task";
      place.append(episode || nobody);
    }
    return place;
  }

  // --- what is shown ---------------------------------------------------------------------------

  function show() {
    const want = wanted();
    const side = Boolean(want.left && want.right && want.left !== want.right);
    const order = compare(want);
    let shown = [];
    if (side) {
      const pairs = paired(want.left, want.right, order);
      document.getElementById("contest").textContent = contest(pairs, want);
      const passed = pairs.filter((pair) => {
        const is = outcome(pair);
        const asked = !want.pairs || is === want.pairs || (want.pairs === "unlike" && (is === "left" || is === "right"));
        return asked && pair.some((episode) => episode && fits(episode, { ...want, run: "" }));
      });
      list.replaceChildren(...passed.map(row));
      shown = passed.flat().filter(Boolean);
    } else {
      shown = episodes.filter((episode) => fits(episode, want)).sort(order);
      shown.forEach((episode) => (episode.hidden = false));
      list.replaceChildren(...shown);
    }
    document.getElementById("contest").hidden = !side;
    document.getElementById("nothing").hidden = shown.length > 0;
    const right = shown.filter((episode) => episode.dataset.verdict === "right").length;
    document.getElementById("count").textContent = `${shown.length} of ${episodes.length} shown, ${right} right`;
  }

  // --- pictures, opened episodes, the time under the pointer -----------------------------------

  function load(episode) {
    for (const image of episode.querySelectorAll("img[data-picture]")) {
      image.src = "data:image/jpeg;base64," + pictures[image.dataset.picture];
      image.removeAttribute("data-picture");
    }
  }

  list.addEventListener("toggle", (event) => {
    const episode = event.target.closest(".episode");
    if (event.target.open) load(episode);
    // What stands side by side is read side by side.
    const pair = episode.closest(".pair");
    for (const details of pair ? pair.querySelectorAll("details") : []) details.open = event.target.open;
  }, true);

  function clock(time) {
    const whole = Math.floor(time);
    const two = (number) => String(number).padStart(2, "0");
    const [hours, minutes, seconds] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, two(whole % 60)];
    return hours ? `${hours}:${two(minutes)}:${seconds}` : `${minutes}:${seconds}`;
  }

  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.append(document.createElement("b"));
  list.addEventListener("pointermove", (event) => {
    const timeline = event.target.closest(".timeline");
    const lanes = timeline && timeline.querySelector(".lanes");
    const box = lanes && lanes.getBoundingClientRect();
    const share = box ? (event.clientX - box.left) / box.width : -1;
    if (share < 0 || share > 1) return cursor.remove();
    const time = share * Number(lanes.dataset.duration);
    cursor.style.left = `${100 * share}%`;
    cursor.classList.toggle("late", share > 0.7);
    cursor.firstChild.textContent = `${clock(time)} · ${time.toFixed(1)} s`;
    lanes.append(cursor);
  });

  // --- the address keeps the filters -----------------------------------------------------------

  function read() {
    form.reset();
    const kept = new URLSearchParams(location.hash.slice(1));
    for (const option of form.querySelectorAll("[data-first]")) if (!location.hash) option.selected = true;
    for (const control of form.elements) {
      if (!control.name || !kept.has(control.name)) continue;
      control.value = kept.get(control.name);
      // A choice that this page does not have: none.
      if (control.selectedIndex === -1) control.selectedIndex = 0;
    }
    show();
  }

  function keep() {
    const set = Object.entries(wanted()).filter(([, value]) => value);
    // "all" says that nothing is chosen, where the page itself would begin with two runs side by side.
    history.replaceState(null, "", "#" + (set.length ? new URLSearchParams(set) : "all"));
    show();
  }

  form.addEventListener("input", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(keep));
  window.addEventListener("hashchange", read);
  for (const [id, open] of [["open", true], ["shut", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      for (const details of list.querySelectorAll("details")) details.open = open;
    });
  }
  read();
  if (episodes.length === 1) episodes[0].querySelector("details").open = true;
})();
