"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const TONES = 6;
  const LANE = 18; // pixels
  let view = null; // what the server tells of the episode
  let part = [0, 1]; // seconds that the timeline shows
  let chosen = null; // selected seconds
  let region = null; // selected part of the picture, fractions of the whole frame
  let staged = null; // the frame shown large: {clip, frame}
  let meant = ""; // what was chosen last, and Enter will do: "look", "find" or "answer"
  let busy = false;

  // --- texts and elements ----------------------------------------------------------------------

  // Every text goes through here: control characters get a shape, and nothing is ever read as markup.
  function visible(text) {
    return String(text)
      .replace(/[\u0000-\u0008\u000b-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
      .replace(/[\u007f-\u009f]/g, "\ufffd");
  }

  function el(tag, classes, text = "", ...children) {
    const element = document.createElement(tag);
    element.className = classes;
    element.textContent = visible(text);
    element.append(...children);
    return element;
  }

  function clock(time, digits = 0) {
    const factor = 10 ** digits;
    const cut = Math.floor(time * factor + 1e-6) / factor;
    const two = (number, places) => number.toFixed(places).padStart(places ? 3 + places : 2, "0");
    const [hours, minutes] = [Math.floor(cut / 3600), Math.floor(cut / 60) % 60];
    const rest = two(cut - 60 * Math.floor(cut / 60), digits);
    return hours ? `${hours}:${two(minutes, 0)}:${rest}` : `${minutes}:${rest}`;
  }

  const seconds = (time) => `${Number(time.toFixed(2))} s`;
  const range = (start, end) => `${Number(start.toFixed(2))} to ${seconds(end)}`;
  const tone = (turn) => `tone${turn ? 1 + ((turn - 1) % TONES) : 0}`;
  const rounded = (value) => (value && Math.abs(value) < 0.0005 ? value.toExponential(0) : Number(value.toFixed(3)));
  const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : "") + rounded(value));
  // To a hundredth, which is what is read and written, and never past the end.
  const tidy = (time) => Math.min(Math.max(Math.round(100 * time) / 100, 0), view.duration_s);

  // --- talking to the server -------------------------------------------------------------------

  function complain(text) {
    $("problem").textContent = visible(text);
    $("problem").hidden = !text;
  }

  async function ask(path, body) {
    const options = body ? { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {};
    const reply = await fetch(path, options).catch(() => null);
    if (!reply) throw new Error("The server does not answer: was it ended?");
    const told = await reply.json();
    if (reply.status === 409) return { ...(await ask("episode")), note: `${told.error}, perhaps in another window.` };
    if (!reply.ok) throw new Error(told.error);
    return told;
  }

  async function play(path, body) {
    if (busy) return;
    busy = true;
    document.body.setAttribute("aria-busy", "true");
    able();
    try {
      take(await ask(path, body));
    } catch (error) {
      complain(error.message);
    }
    busy = false;
    document.body.removeAttribute("aria-busy");
    able();
  }

  function act(action) {
    play("act", { episode: view.episode, turn: view.turns.length, thought: $("thought").value, ...action });
  }

  // --- what the server told --------------------------------------------------------------------

  function take(told) {
    const fresh = !view || told.episode !== view.episode;
    view = told;
    complain(told.note || view.skipped.map((why) => `Skipped: ${why}`).join("\n"));
    if (fresh) {
      [part, chosen, region] = [[0, view.duration_s], null, null];
      $("thought").value = $("text").value = "";
    } else if (!told.note) {
      region = null;
      $("thought").value = "";
    }
    const newest = view.clips.findLastIndex((clip) => clip.pictures);
    if (fresh || newest !== staged.clip) staged = { clip: newest, frame: 0 };
    if (view.over) {
      [part, chosen, region] = [[0, view.duration_s], null, null];
      staged = witness() || staged;
    }
    meant = "";
    for (const draw of [facts, options, form, strips, turns, outcome, timeline, stage, selection, able]) draw();
  }

  function facts() {
    $("recipe").textContent = visible(view.recipe);
    $("position").textContent = `question ${view.position[0]} of ${view.position[1]}`;
    $("question").textContent = visible(view.question);
    const left = view.frames_left === null ? "" : `, ${view.frames_left} left`;
    const turn = Math.min(view.turns.length + 1, view.max_turns);
    const words = view.over ? "over" : view.turns_left === 1 ? "last turn" : `turn ${turn} of ${view.max_turns}`;
    $("limits").textContent = `${words} · ${view.frames_shown} frames seen${left}`;
  }

  function options() {
    const kept = document.querySelector("#options :checked")?.value;
    const given = view.over ? view.outcome.given : null;
    $("options").replaceChildren(
      ...view.options.map((option) => {
        const input = el("input", "");
        Object.assign(input, { type: "radio", name: "option", value: option.letter, checked: option.letter === kept && !view.over });
        input.addEventListener("change", () => mean("answer"));
        const right = view.over && option.letter === view.outcome.right;
        const mine = option.letter === given;
        const marks = [right ? "right" : "", mine ? "your answer" : ""].filter(Boolean).join(", ");
        const text = el("span", "", `${option.letter}. ${option.text}`);
        text.dir = "auto";
        return el("label", `option${right ? " right" : mine ? " wrong" : ""}`, "", input, text, el("em", "", marks));
      }),
    );
  }

  function form() {
    $("free").hidden = view.kind === "choice";
    $("form").textContent = view.kind === "numeric" ? "a number" : "in a few words";
    $("answer").hidden = view.over && view.kind !== "choice";
    for (const part of document.querySelectorAll("#answer .thought, #give")) part.hidden = view.over;
    $("kinds").replaceChildren(
      ...view.looks.map((kind) => Object.assign(el("button", "", kind), { type: "submit", value: kind, formNoValidate: kind === "find" })),
    );
    $("how").textContent = view.looks.includes("select")
      ? `select shows up to ${view.clip_frames} of the candidate frames in a segment, the fine lines on the timeline`
      : `crop shows up to ${view.clip_frames} new frames of a segment, ${view.crop_fps} a second` +
        (view.regions ? "; drag on the picture to enlarge a part of it" : "") +
        (view.searches ? "; find searches the whole video for what you write" : "");
    $("search").hidden = !view.searches;
    if (!$("arguments").children.length) $("arguments").replaceChildren(...view.arguments.map(argument));
    const last = view.turns.at(-1);
    const refusal = last && (last.fault || last.results.map((result) => result.error?.reason).find(Boolean));
    $("refusal").textContent = visible(refusal ? `Refused. ${refusal}` : "");
    $("look").hidden = view.over;
    $("view").classList.toggle("over", view.over);
    $("stage").classList.toggle("regions", view.regions && !view.over);
  }

  // A number that a crop may have beside its times; empty: left out.
  function argument({ name, whole, hint }) {
    const input = Object.assign(el("input", ""), { type: "number", name, min: 0, step: whole ? "1" : "any", title: hint });
    input.addEventListener("input", () => able());
    return el("label", "", `${name} `, input);
  }

  const asked = (name) => $("arguments").querySelector(`[name=${name}]`)?.valueAsNumber;

  function able() {
    const over = !view || view.over;
    const late = view && view.turns_left === 1 && !view.last_turn_look;
    for (const button of $("kinds").children) {
      button.disabled = busy || over || late || !(button.value === "find" ? $("query").value.trim() : chosen);
    }
    $("give").disabled = busy || over;
    $("next").disabled = busy;
    for (const input of document.querySelectorAll("#answer input, #answer textarea, #look input")) input.disabled = over;
    if (view) mean();
    if (view) $("brings").textContent = late ? "This is the last turn: only an answer counts." : brings();
  }

  // What Enter would do, on its button and in words.
  function mean(what) {
    if (what) meant = what;
    const answer = answered();
    const look = [...$("kinds").children].find((one) => !one.disabled && (one.value === "find") === (meant === "find"));
    // When an option is kept from the turn before, Enter alone does not give it.
    const due = !view || busy ? null : view.over ? $("next") : ["look", "find"].includes(meant) ? look : meant === "answer" && answer ? $("give") : null;
    for (const button of [...$("kinds").children, $("give"), $("next")]) button.classList.toggle("due", button === due);
    const words = due === $("next") ? "next question" : due === $("give") ? `answer ${visible(answer)}` : due?.value === "find" ? `find ${visible($("query").value)}` : due ? `${due.value} ${range(...chosen)}` : "nothing yet";
    $("due-action").textContent = words;
    return due;
  }

  const answered = () => (view?.kind === "choice" ? document.querySelector("#options :checked")?.value : $("text").value);

  function brings() {
    if (!chosen) return "Select a segment on the timeline, or a frame below.";
    const [start, end] = chosen;
    let count = Math.floor(Math.max((end - start) * (asked("fps") || view.crop_fps), 2) / 2) * 2;
    count = asked("frames") || count;
    if (view.looks.includes("select")) count = view.pool_s.filter((time) => start <= time && time < end).length;
    const most = Math.min(view.clip_frames, view.frames_left === null ? Infinity : view.frames_left);
    return `${seconds(end - start)}, about ${Math.min(count, most)} frames` + (region ? " of a part of the picture" : "");
  }

  // --- frames ----------------------------------------------------------------------------------

  const isEvidence = (time) => view.outcome.evidence.some(([start, end]) => start <= time && time < end);

  // The frame in which the answer was to be seen, as it was shown last.
  function witness() {
    const clip = view.clips.findLastIndex((one) => one.times_s.slice(0, one.pictures).some(isEvidence));
    return clip < 0 ? null : { clip, frame: view.clips[clip].times_s.findIndex(isEvidence) };
  }

  const picture = (clip, frame) => `frames/${view.episode}/${clip}/${frame}.jpg`;

  function strips() {
    const list = view.clips.map((clip, number) => {
      const times = clip.times_s.slice(0, clip.pictures);
      const buttons = times.map((time, frame) => {
        const image = Object.assign(el("img", ""), { src: picture(number, frame), alt: "", loading: "lazy", draggable: false });
        const button = el("button", "", "", image, clock(time, 1));
        Object.assign(button, { type: "button", tabIndex: -1, title: `${seconds(time)}: show, and select around it` });
        button.dataset.place = `${number} ${frame}`;
        button.addEventListener("click", () => show(number, frame));
        return button;
      });
      const what = clip.turn ? `turn ${clip.turn}` : "first frames";
      const whole = clip.pictures ? "" : ", which nobody saw: the episode was over";
      const words = ` ${clip.times_s.length} frames${clip.region ? " of a part of the picture" : ""}${whole}`;
      const frames = el("div", "frames", "", ...buttons);
      frames.setAttribute("role", "group");
      frames.setAttribute("aria-label", `${what}: arrow keys go from frame to frame`);
      return el("div", `strip ${tone(clip.turn)}`, "", el("h3", "", what, el("span", "", words)), frames);
    });
    $("strips").replaceChildren(...list.reverse());
  }

  // Show a frame large, and select around it.
  function show(clip, frame) {
    staged = { clip, frame };
    if (!view.over) around(view.clips[clip].times_s.slice(0, view.clips[clip].pictures), frame);
    stage();
  }

  // From the frame before to the frame after: what is between them was not seen yet.
  function around(times, frame) {
    const before = times.findLast((time) => time < times[frame]);
    const after = times.find((time) => time > times[frame]);
    choose(before === undefined ? 0 : before, after === undefined ? view.duration_s : after);
  }

  function stage() {
    const clip = view.clips[staged.clip];
    $("stage").hidden = !clip;
    if (!clip) {
      $("caption").textContent = "No frame was shown yet.";
      return marks();
    }
    const time = clip.times_s[staged.frame];
    $("shown").src = picture(staged.clip, staged.frame);
    $("shown").alt = `frame at ${seconds(time)}`;
    $("stage").style.setProperty("--aspect", clip.size[0] / clip.size[1]);
    $("caption").textContent = `${clock(time, 2)} · ${seconds(time)}` + (clip.region ? " · enlarged" : "");
    $("place").textContent = region ? `part ${region.map((side) => side.toFixed(2)).join(", ")}` : "";
    $("whole").hidden = !region;
    outline($("box"), region);
    outline($("due"), view.over && isEvidence(time) ? view.outcome.evidence_region : null);
    for (const button of document.querySelectorAll(".frames button")) {
      button.classList.toggle("now", button.dataset.place === `${staged.clip} ${staged.frame}`);
    }
    // A strip is one stop of the tab key: the frame shown large, or its first.
    for (const frames of document.querySelectorAll(".frames")) {
      const stop = frames.querySelector(".now") || frames.firstElementChild;
      for (const button of frames.children) button.tabIndex = button === stop ? 0 : -1;
    }
    marks();
  }

  const shownPart = () => view.clips[staged.clip]?.region || [0, 0, 1, 1];

  function outline(box, sides) {
    box.hidden = !sides;
    if (!sides) return;
    const [x0, y0, x1, y1] = shownPart();
    const left = (sides[0] - x0) / (x1 - x0);
    const top = (sides[1] - y0) / (y1 - y0);
    const right = (sides[2] - x0) / (x1 - x0);
    const bottom = (sides[3] - y0) / (y1 - y0);
    box.hidden = right <= 0 || bottom <= 0 || left >= 1 || top >= 1;
    Object.assign(box.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  }

  function point(event) {
    const frame = $("stage").getBoundingClientRect();
    const share = (value, start, length) => Math.min(Math.max((value - start) / length, 0), 1);
    const [x0, y0, x1, y1] = shownPart();
    const x = x0 + (x1 - x0) * share(event.clientX, frame.left, frame.width);
    const y = y0 + (y1 - y0) * share(event.clientY, frame.top, frame.height);
    return [x, y].map((side) => Math.round(1000 * side) / 1000);
  }

  $("stage").addEventListener("pointerdown", (event) => {
    if (!view.regions || view.over || event.button) return;
    const from = point(event);
    $("stage").setPointerCapture(event.pointerId);
    const drag = (move) => {
      const to = point(move);
      const sides = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
      // A click, or a slip of the hand, takes the part back.
      region = sides[2] - sides[0] > 0.01 && sides[3] - sides[1] > 0.01 ? sides : null;
      stage();
      able();
    };
    const end = () => $("stage").removeEventListener("pointermove", drag);
    $("stage").addEventListener("pointermove", drag);
    $("stage").addEventListener("lostpointercapture", end, { once: true });
    drag(event);
  });
  $("whole").addEventListener("click", () => {
    region = null;
    stage();
    able();
  });

  // --- the timeline ----------------------------------------------------------------------------

  const share = (time) => (100 * (time - part[0])) / (part[1] - part[0]);

  function timeline() {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200];
    const length = part[1] - part[0];
    const step = steps.find((one) => length / one <= 9) || length / 9;
    const labels = [];
    for (let time = Math.ceil(part[0] / step - 1e-9) * step; time <= part[1] + 1e-9; time += step) {
      const label = el("i", share(time) < 3 ? "early" : share(time) > 97 ? "late" : "", clock(time, step < 1 ? 1 : 0));
      label.style.left = `${share(time)}%`;
      labels.push(label);
    }
    $("axis").replaceChildren(...labels);
    $("lanes").style.height = `${12 + LANE * (1 + view.turns.length)}px`;
    $("closer").disabled = !chosen;
    $("all").disabled = length >= view.duration_s;
    marks();
    selection();
  }

  function marks() {
    const list = [];
    const mark = (classes, start, end, top, height) => {
      const element = el("i", classes);
      const width = end === null ? {} : { width: `${share(end) - share(start)}%` };
      Object.assign(element.style, { left: `${share(start)}%`, top: `${top}px`, height: `${height}px`, ...width });
      list.push(element);
    };
    const bottom = 12 + LANE * (1 + view.turns.length);
    for (const [start, end] of view.over ? view.outcome.evidence : []) mark("band", start, end, 0, bottom);
    for (const time of view.pool_s) mark("pool", time, null, 0, 5);
    view.turns.forEach((turn, i) => {
      for (const result of turn.results.filter((one) => one.segment)) {
        mark(`block ${tone(i + 1)}${result.error || turn.fault ? " refused" : ""}`, ...result.segment, 8 + LANE * (i + 1), 14);
      }
    });
    view.clips.forEach((clip, number) => {
      for (const [frame, time] of clip.times_s.entries()) {
        const now = number === staged.clip && frame === staged.frame;
        const height = now ? 14 : clip.turn ? 5 : 9;
        mark(`tick ${tone(clip.turn)}${clip.turn ? " inside" : ""}${now ? " now" : ""}`, time, null, 8 + LANE * clip.turn, height);
      }
    });
    $("marks").replaceChildren(...list);
  }

  function selection() {
    $("selection").hidden = !chosen;
    if (!chosen) return;
    $("selection").style.left = `${share(chosen[0])}%`;
    $("selection").style.width = `${share(chosen[1]) - share(chosen[0])}%`;
  }

  function choose(start, end, typed = false) {
    chosen = typed ? [start, end] : [tidy(start), tidy(end)]; // what is typed, the rules judge as it is
    if (!typed) [$("from").value, $("to").value] = chosen;
    $("closer").disabled = false;
    meant = "look";
    selection();
    able();
  }

  function moment(event) {
    const box = $("lanes").getBoundingClientRect();
    const at = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return part[0] + at * (part[1] - part[0]);
  }

  $("lanes").addEventListener("pointermove", (event) => {
    const time = moment(event);
    $("cursor").hidden = false;
    $("cursor").style.left = `${share(time)}%`;
    $("cursor").classList.toggle("late", share(time) > 80);
    $("cursor").firstChild.textContent = `${clock(time)} · ${seconds(time)}`;
  });
  $("lanes").addEventListener("pointerleave", () => ($("cursor").hidden = true));

  $("lanes").addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const edge = event.target.classList.contains("edge");
    // An edge is dragged against the other one.
    const fixed = !edge ? moment(event) : chosen[event.target.classList.contains("start") ? 1 : 0];
    const first = event.clientX;
    let moved = false;
    $("lanes").setPointerCapture(event.pointerId);
    const drag = (move) => {
      moved = moved || Math.abs(move.clientX - first) > 3;
      const time = moment(move);
      if (moved && !view.over && tidy(time) !== tidy(fixed)) choose(Math.min(fixed, time), Math.max(fixed, time));
    };
    const end = (last) => {
      $("lanes").removeEventListener("pointermove", drag);
      if (!moved && last.type === "lostpointercapture") nearest(fixed);
    };
    $("lanes").addEventListener("pointermove", drag);
    $("lanes").addEventListener("lostpointercapture", end, { once: true });
  });

  function nearest(time) {
    let best = staged;
    const distance = (place) => Math.abs(view.clips[place.clip].times_s[place.frame] - time);
    view.clips.forEach((clip, number) => {
      for (let frame = 0; frame < clip.pictures; frame++) {
        if (distance({ clip: number, frame }) < distance(best)) best = { clip: number, frame };
      }
    });
    staged = best;
    stage();
  }

  function zoom(start, end) {
    const length = Math.min(Math.max(end - start, 1), view.duration_s);
    const from = Math.min(Math.max((start + end - length) / 2, 0), view.duration_s - length);
    part = [from, from + length];
    timeline();
  }

  $("lanes").addEventListener("wheel", (event) => {
    event.preventDefault();
    const time = moment(event);
    const factor = Math.exp(Math.sign(event.deltaY) * 0.25);
    const [before, after] = [time - part[0], part[1] - time];
    zoom(Math.max(time - factor * before, 0), Math.min(time + factor * after, view.duration_s));
  }, { passive: false });
  $("closer").addEventListener("click", () => {
    const margin = (chosen[1] - chosen[0]) / 2;
    zoom(chosen[0] - margin, chosen[1] + margin);
  });
  $("all").addEventListener("click", () => zoom(0, view.duration_s));

  // --- what was played, and what it came to ----------------------------------------------------

  function turns() {
    $("played").hidden = !view.turns.length;
    $("turns").replaceChildren(
      ...view.turns.map((turn, i) => {
        const line = el("li", tone(i + 1), "", el("b", "", i + 1));
        for (const result of turn.results) {
          const frames = result.frames ? `, ${result.frames} frames` : "";
          line.append(el("span", "", `${result.kind} ${result.label}${frames}`));
          if (result.reply !== null) line.append(el("span", "", `told: ${visible(result.reply)}`));
          if (result.error) line.append(el("span", "refusal", `refused: ${result.error.reason}`));
        }
        if (turn.fault) line.append(el("span", "refusal", `no frames: ${turn.fault}`));
        return line;
      }),
    );
  }

  function outcome() {
    $("outcome").hidden = !view.over;
    if (!view.over) return $("outcome").replaceChildren();
    if (view.review) return review();
    const told = view.outcome;
    const [verdict, kind] = { true: ["right", "right"], false: ["wrong", "wrong"], null: ["not judged", "open"] }[told.correct];
    const list = el("dl", "");
    const fact = (name, value) => list.append(el("dt", "", name), el("dd", "", value));
    fact("right answer", told.right || "–");
    fact("your answer", told.given === null ? `none (${told.ending})` : told.given);
    fact("evidence", told.annotated ? told.evidence.map(([start, end]) => range(start, end)).join("; ") || "none" : "not annotated");
    fact("task", told.task_id);
    fact("video", told.video);
    const texts = el("details", "", "", el("summary", "", "the episode's text, as a model would have written it"));
    for (const text of told.texts) texts.append(el("pre", "", text === null ? "(no words for this action)" : text));
    $("outcome").replaceChildren(el("p", `verdict ${kind}`, verdict), list, payments(told), texts);
  }

  // Of a review: the truth, and what a person says of it.
  function review() {
    const [told, said] = [view.outcome, view.review];
    const list = el("dl", "");
    const fact = (name, value) => list.append(el("dt", "", name), el("dd", "", value));
    const options = Object.fromEntries(view.options.map((option) => [option.letter, option.text]));
    fact("answer", told.right in options ? `${told.right}. ${options[told.right]}` : told.right);
    fact("evidence", told.annotated ? told.evidence.map(([start, end]) => range(start, end)).join("; ") || "none" : "not annotated");
    fact("task", told.task_id);
    fact("video", told.video);
    const button = (text, key, accepted) => {
      const one = el("button", "", `${text} (${key})`);
      one.type = "button";
      one.id = text;
      one.addEventListener("click", () => decide(accepted));
      return one;
    };
    const [words, kind] = { true: ["accepted", "right"], false: ["rejected", "wrong"], null: ["no verdict yet", "open"] }[said.verdict];
    const counts = el("p", "hint", `${said.accepted} accepted, ${said.rejected} rejected, ${said.left} left`);
    const buttons = el("p", "", "", button("accept", "y", true), " ", button("reject", "n", false));
    $("outcome").replaceChildren(el("p", `verdict ${kind}`, words), list, buttons, counts);
  }

  function decide(accepted) {
    play("verdict", { episode: view.episode, accepted });
  }

  function payments(told) {
    const names = [...new Set(told.paid.flatMap((turn) => Object.keys(turn.terms)))];
    const row = (cell, values) => el("tr", "", "", ...values.map((value) => el(cell, "", value)));
    const rows = told.paid.map((turn, i) => row("td", [i + 1, ...names.map((name) => signed(turn.terms[name] ?? null)), signed(turn.reward)]));
    const sum = row("td", ["", ...names.map(() => ""), signed(told.reward)]);
    return el("table", "", "", el("thead", "", "", row("th", ["turn", ...names, "reward"])), el("tbody", "", "", ...rows, sum));
  }

  // --- forms -----------------------------------------------------------------------------------

  for (const id of ["from", "to"]) {
    $(id).addEventListener("input", () => {
      const [start, end] = [$("from").valueAsNumber, $("to").valueAsNumber];
      if (Number.isFinite(start) && Number.isFinite(end)) choose(start, end, true);
    });
  }
  $("look").addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = event.submitter?.value || view.looks[0];
    if (kind === "find") return act({ kind, query: $("query").value });
    if (!chosen) return;
    const asked = [...$("arguments").querySelectorAll("input")].filter((input) => Number.isFinite(input.valueAsNumber));
    const more = Object.fromEntries(asked.map((input) => [input.name, input.valueAsNumber]));
    act({ kind, start_s: chosen[0], end_s: chosen[1], ...(kind === "crop" ? { region, ...more } : {}) });
  });
  $("answer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = answered();
    if (text) act({ kind: "answer", text });
    else complain(view.kind === "choice" ? "Choose an option first." : "Write an answer first.");
  });
  $("next").addEventListener("click", () => {
    const open = !view.over && view.turns.length;
    if (!open || window.confirm("Leave this question without an answer?")) play("next", { episode: view.episode });
  });

  $("text").addEventListener("input", () => mean("answer"));
  $("query").addEventListener("input", () => {
    meant = "find";
    able();
  });

  // What `keys.js` does by keys.
  window.playPage = { now: () => ({ view, part, chosen }), choose, mean, zoom, show, decide };
  play("episode");
})();
