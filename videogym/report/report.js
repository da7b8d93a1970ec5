"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const form = $("filters");
  const list = $("episodes");
  const json = (id) => $(id) && JSON.parse($(id).textContent);
  const book = json("book"); // where the episodes are, when they are not in the page
  const pictures = json("pictures");
  const PAGE = 50; // episodes or pairs that are shown at once, of a book
  const KEPT = 2 * PAGE; // parts of a book that are kept, each with the markup of some episodes

  // --- a row of metrics for every episode --------------------------------------------------------

  // The episodes of the page itself, each with its element.
  function rowOf(article) {
    const { task, run, recipe, verdict, ending, number, reward, turns, frames, refused, fault, tiou } = article.dataset;
    const counts = { number: Number(number), turns: Number(turns), frames: Number(frames) };
    const rest = { refused: Number(refused), fault: Number(fault), tiou: tiou === "" ? null : Number(tiou) };
    return { task, run, recipe, verdict, ending, reward: Number(reward), ...counts, ...rest, article };
  }

  // Of a book, a row of its index; see `parts.py`.
  function rowIn(entry, place) {
    const [task, verdict, run, recipe, ending, reward, turns, frames, refused, fault, tiou] = entry;
    const names = { run: book.run[run], recipe: book.recipe[recipe], ending: book.ending[ending] };
    const counts = { turns, frames, refused, fault, tiou: tiou === "" ? null : tiou };
    return { number: place + 1, task, verdict, ...names, reward: Number(reward), ...counts, article: null };
  }

  let rows = book ? [] : [...list.querySelectorAll(".episode")].map(rowOf);

  // --- the files of a book -----------------------------------------------------------------------

  const arrived = new Map(); // what the files brought, by kind and number, the latest last
  const asked = new Map(); // promises of the same
  window.videogymReport = (kind, number, value) => arrived.set(`${kind} ${number}`, value);

  // A page that is opened from a disk may read scripts and nothing else.
  function fetched(kind, number) {
    const key = `${kind} ${number}`;
    if (!asked.has(key)) asked.set(key, new Promise((done, failed) => {
      const script = document.createElement("script");
      const name = kind === "index" || kind === "texts" ? kind : `${kind}-${number}`;
      script.src = `${book.folder.split("/").map(encodeURIComponent).join("/")}/${name}.js`;
      script.onload = () => {
        script.remove();
        if (arrived.has(key)) done(arrived.get(key));
        else script.onerror();
      };
      script.onerror = () => {
        asked.delete(key);
        failed(new Error(`${book.folder}/${name}.js cannot be read. Keep the folder beside this page; without it there are no episodes.`));
      };
      document.head.append(script);
    }));
    return asked.get(key);
  }

  function complain(error) {
    $("trouble").textContent = error.message;
    $("trouble").hidden = false;
  }

  function forget() {
    const parts = [...arrived.keys()].filter((key) => /^(part|pictures) /.test(key));
    for (const key of parts.slice(0, Math.max(0, parts.length - KEPT))) {
      arrived.delete(key);
      asked.delete(key);
    }
  }

  // The part in which an episode is: the last one that begins with it or before it.
  function partOf(number) {
    let [low, high] = [0, book.starts.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (book.starts[middle] <= number) low = middle;
      else high = middle;
    }
    return low;
  }

  function articleOf(row, markup) {
    const template = document.createElement("template");
    template.innerHTML = markup[row.number - book.starts[partOf(row.number)]];
    return template.content.firstElementChild;
  }

  // --- filters ---------------------------------------------------------------------------------

  const wanted = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
  const texts = new Map(); // filled by the first search: 1,000 episodes are read in a moment, but not for nothing

  function text(row) {
    if (book) return arrived.get("texts 0")[row.number - 1];
    if (!texts.has(row)) texts.set(row, row.article.textContent.toLowerCase());
    return texts.get(row);
  }

  function fits(row, want) {
    const numbered = /^#\d+$/.test(want.text);
    return (
      (!want.run || row.run === want.run) &&
      (!want.verdict || row.verdict === want.verdict) &&
      (!want.recipe || row.recipe === want.recipe) &&
      (!want.ending || row.ending === want.ending) &&
      (want.turns !== "refused" || row.refused > 0) &&
      (want.turns !== "executed" || row.refused === 0) &&
      (want.turns !== "fault" || row.fault > 0) &&
      (!want.low || row.reward >= Number(want.low)) &&
      (!want.high || row.reward <= Number(want.high)) &&
      (!want.text || (numbered ? row.number === Number(want.text.slice(1)) : text(row).includes(want.text.toLowerCase())))
    );
  }

  const { compare: alphabet } = new Intl.Collator("en", { numeric: true });

  function compare(want) {
    const [name, sign] = want.sort.startsWith("-") ? [want.sort.slice(1), 1] : [want.sort, -1];
    // What is unknown comes last, whichever way the others go.
    const value = (row) => (row[name] === null ? sign * Infinity : row[name]);
    return (one, other) => {
      const stored = one.number - other.number;
      if (!name) return stored;
      if (name === "task") return alphabet(one.task, other.task) || stored;
      return sign * (value(one) - value(other)) || stored;
    };
  }

  // --- side by side ----------------------------------------------------------------------------

  // The k-th episode of a task in one run stands beside the k-th of that task in the other.
  function paired(left, right, order) {
    const found = new Map();
    for (const [side, run] of [[0, left], [1, right]]) {
      const counts = new Map();
      for (const row of rows.filter((one) => one.run === run)) {
        const count = (counts.get(row.task) || 0) + 1;
        counts.set(row.task, count);
        const key = `${count} ${row.task}`;
        if (!found.has(key)) found.set(key, [null, null]);
        found.get(key)[side] = row;
      }
    }
    return [...found.values()].sort((one, other) => order(one[0] || one[1], other[0] || other[1]));
  }

  function outcome(pair) {
    if (!pair[0] || !pair[1] || pair.some((row) => row.verdict === "unjudged")) return "open";
    const [left, right] = pair.map((row) => row.verdict === "right");
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

  function beside(pair) {
    const place = document.createElement("div");
    place.className = "pair";
    for (const row of pair) {
      const nobody = document.createElement("p");
      nobody.className = "nobody";
      nobody.textContent = "this run did not play the task";
      place.append(row ? row.article : nobody);
    }
    return place;
  }

  // --- what is shown ---------------------------------------------------------------------------

  let showing = 0; // counts what was asked to be shown: what comes too late is not shown any more

  function show() {
    const [want, turn] = [wanted(), ++showing];
    $("trouble").hidden = true;
    const needed = [];
    if (book) needed.push(fetched("index", 0));
    if (book && want.text && !/^#\d+$/.test(want.text)) needed.push(fetched("texts", 0));
    // The page itself is shown at once.
    if (!book) return draw(groups(want), want);
    list.setAttribute("aria-busy", "true");
    Promise.all(needed)
      .then(([index]) => {
        if (!rows.length) rows = index.map(rowIn);
        if (turn === showing) return turnTo(groups(want), want, turn);
      })
      .catch((error) => turn === showing && complain(error))
      .finally(() => turn === showing && list.removeAttribute("aria-busy"));
  }

  // What is to be shown, in order: episodes, or pairs of them.
  function groups(want) {
    const side = Boolean(want.left && want.right && want.left !== want.right);
    const order = compare(want);
    $("contest").hidden = !side;
    if (!side) return rows.filter((row) => fits(row, want)).sort(order).map((row) => [row]);
    const pairs = paired(want.left, want.right, order);
    $("contest").textContent = contest(pairs, want);
    return pairs.filter((pair) => {
      const is = outcome(pair);
      const fitting = !want.pairs || is === want.pairs || (want.pairs === "unlike" && (is === "left" || is === "right"));
      return fitting && pair.some((row) => row && fits(row, { ...want, run: "" }));
    });
  }

  // One page of a book: its episodes may lie in as many parts.
  function turnTo(found, want, turn) {
    const last = Math.max(1, Math.ceil(found.length / PAGE));
    const page = Math.min(Math.max(Math.trunc(Number(want.page)) || 1, 1), last);
    const chosen = found.slice(PAGE * (page - 1), PAGE * page);
    const members = chosen.flat().filter(Boolean);
    const parts = [...new Set(members.map((row) => partOf(row.number)))];
    $("pages").textContent = `of ${last}`;
    [$("before").value, $("after").value] = [page - 1, page + 1];
    [$("before").disabled, $("after").disabled] = [page === 1, page === last];
    return Promise.all(parts.map((part) => fetched("part", part))).then((markup) => {
      if (turn !== showing) return;
      const by = new Map(parts.map((part, i) => [part, markup[i]]));
      const open = new Set([...list.querySelectorAll("details[open]")].map((one) => one.closest(".episode").dataset.number));
      for (const row of rows) row.article = null;
      for (const row of members) row.article = articleOf(row, by.get(partOf(row.number)));
      draw(chosen, want, found);
      for (const row of members) if (open.has(String(row.number))) row.article.querySelector("details").open = true;
      forget();
    });
  }

  function draw(chosen, want, found = chosen) {
    const side = !$("contest").hidden;
    list.replaceChildren(...chosen.map((group) => (side ? beside(group) : group[0].article)));
    const all = found.flat().filter(Boolean);
    $("nothing").hidden = all.length > 0;
    const right = all.filter((row) => row.verdict === "right").length;
    $("count").textContent = `${all.length} of ${rows.length} shown, ${right} right`;
  }

  // --- pictures, opened episodes, the time under the pointer -----------------------------------

  function load(episode) {
    const images = [...episode.querySelectorAll("img[data-picture]")];
    const put = (all) => {
      for (const image of images) {
        image.src = "data:image/jpeg;base64," + all[image.dataset.picture];
        image.removeAttribute("data-picture");
      }
    };
    if (!images.length) return;
    if (book) fetched("pictures", partOf(Number(episode.dataset.number))).then(put, complain);
    else put(pictures);
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

  // --- a frame, enlarged -------------------------------------------------------------------------

  let frames = []; // of the episode whose frame is enlarged
  let at = 0;
  const large = document.createElement("img");

  function enlarge(place) {
    at = Math.min(Math.max(place, 0), frames.length - 1);
    const image = frames[at];
    [large.src, large.alt] = [image.src, image.alt];
    $("where").before(large);
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    large.style.setProperty("--aspect", width && height ? width / height : 1);
    $("where").textContent = `${image.alt} · ${at + 1} of ${frames.length}`;
    [$("earlier").disabled, $("later").disabled] = [at === 0, at === frames.length - 1];
  }

  list.addEventListener("click", (event) => {
    const picture = event.target.closest(".picture");
    if (!picture) return;
    frames = [...picture.closest(".episode").querySelectorAll(".picture img")];
    enlarge(frames.indexOf(picture.querySelector("img")));
    $("large").showModal();
  });
  $("earlier").addEventListener("click", () => enlarge(at - 1));
  $("later").addEventListener("click", () => enlarge(at + 1));
  $("large").addEventListener("click", (event) => event.target === $("large") && $("large").close());
  $("large").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    enlarge(at + step);
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

  form.addEventListener("input", (event) => {
    // What is found begins on its first page.
    if (book && event.target.name !== "page") form.elements.page.value = "";
    keep();
  });
  for (const button of book ? [$("before"), $("after")] : []) {
    button.addEventListener("click", () => {
      form.elements.page.value = button.value;
      keep();
    });
  }
  if (matchMedia("(max-width: 720px)").matches) document.querySelector(".legend").open = false;
  $("fold").addEventListener("click", () => {
    const unfolded = $("more-filters").classList.toggle("unfolded");
    $("fold").setAttribute("aria-expanded", unfolded);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(keep));
  window.addEventListener("hashchange", read);
  for (const [id, open] of [["open", true], ["shut", false]]) {
    $(id).addEventListener("click", () => {
      for (const details of list.querySelectorAll("details")) details.open = open;
    });
  }
  read();
  if (rows.length === 1) rows[0].article.querySelector("details").open = true;
})();
