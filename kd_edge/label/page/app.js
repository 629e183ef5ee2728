// The page: pictures by time stamps, a timeline, keys; every change is asked of the server, which saves it.

const KEYS = [..."1234567890abcdefghjklmpqrstuvwxyz"]; // of classes; I, N and O have meanings of their own
const COLOURS = 12;
const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const LAST_FRAME_S = 0.001; // so that a piece that ends with the recording holds its last frame
const SHORTEST_VIEW_S = 1;
const token = location.hash.slice(1);
const $ = (id) => document.getElementById(id);

let state = { revision: 0, classes: [], recordings: [] };
let lengths = {};
let recording = null; // the one that is shown
let panels = [];
let now = 0; // s: of the frame that the first panel shows
let view = [0, 1]; // s: what the timeline shows
let begin = null, end = null; // s: marks of a new piece
let chosen = null; // id of a piece
let playing = null; // {wall, from}: where playing began
let changes = Promise.resolve(); // one after the other, each with the newest revision
let opened = 0; // counts recordings that were asked for: a late answer is not shown

// --- asking the server

async function ask(path, body) {
  const request = { headers: { "X-Token": token } };
  if (body !== undefined) {
    request.method = "POST";
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw { sentence: "kd-edge label has ended or does not answer: start it again, all changes so far are saved" };
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw { sentence: told.error || `the server answered ${answer.status}`, conflict: told.conflict };
  }
  return answer;
}

const json = async (path, body) => (await ask(path, body)).json();

function say(sentence, { alarm = false, conflict = "" } = {}) {
  $("said").textContent = sentence;
  $("said").title = sentence;
  $("message").classList.toggle("alarm", alarm);
  $("newest").hidden = !conflict;
  $("newest").dataset.conflict = conflict || "";
}

function fail(error) {
  say(error.sentence || String(error), { alarm: true, conflict: error.conflict });
}

function change(path, body) {
  const done = changes.then(async () => {
    const answer = await json(path, { revision: state.revision, ...body });
    take(answer);
    if (answer.recording !== null && answer.recording !== recording?.number) await open(answer.recording); // of an undo
    else await refresh();
    say(answer.said);
    return answer;
  });
  changes = done.catch(() => {});
  return done;
}

const edit = (what) => change("/api/edit", { edit: what });

// --- what is known

function take(answer) {
  state = answer;
  $("folder").textContent = state.folder;
  $("folder").title = state.folder;
  document.title = `Labels: ${state.folder}`;
  $("saved").textContent = `saved in ${state.file}, revision ${state.revision}`;
  $("undo").disabled = !state.undo;
  $("undo").title = state.undo ? `Undo: ${state.undo} (Ctrl+Z)` : "Nothing to undo (Ctrl+Z)";
  $("redo").disabled = !state.redo;
  $("redo").title = state.redo ? `Redo: ${state.redo} (Ctrl+Shift+Z)` : "Nothing to redo (Ctrl+Shift+Z)";
  drawClasses();
  drawRecordings();
}

async function refresh() {
  if (!recording) return;
  const found = await json(`/api/recordings/${recording.number}`);
  recording.pieces = found.pieces;
  recording.subject = found.subject;
  lengths[recording.number] = { seconds: found.seconds, labelled_s: found.labelled_s };
  if (!piece()) chosen = null;
  draw();
  drawRecordings();
}

async function learnLengths() {
  for (let from = 0; from !== null;) {
    const found = await json(`/api/lengths?from=${from}`);
    Object.assign(lengths, found.lengths);
    drawRecordings();
    from = found.next;
  }
}

async function open(number) {
  pause();
  const mine = ++opened;
  const found = await json(`/api/recordings/${number}`);
  if (mine !== opened) return;
  recording = found;
  lengths[number] = { seconds: found.seconds, labelled_s: found.labelled_s };
  begin = end = chosen = null;
  now = 0;
  view = [0, Math.min(length(), 120)];
  makePanels();
  draw();
  drawRecordings();
  say(`${found.name}: ${found.tracks.map((t) => t.modality).join(" and ") || "no pictures"}`);
  seek(0);
}

const piece = () => recording?.pieces.find((p) => p.id === chosen);
const length = () => Math.max(recording?.seconds || 0, SHORTEST_VIEW_S);
const endOf = (p) => (p.end_s === null ? length() : p.end_s);
const colour = (label) => (label ? `c${state.classes.indexOf(label) % COLOURS}` : "none");

function clock(seconds, digits = 3) {
  const whole = Math.max(0, seconds);
  const text = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  const [h, m] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return h ? `${h}:${String(m).padStart(2, "0")}:${text}` : `${m}:${text}`;
}

// --- pictures

class Panel {
  constructor(track) {
    this.track = track;
    this.shown = null; // {at, next}: s of the recording
    this.busy = false;
    this.wanted = null;
    const figure = element("figure");
    const frame = element("div", "frame");
    this.canvas = element("canvas");
    this.fault = element("div", "fault");
    this.fault.hidden = true;
    frame.append(this.canvas, this.fault);
    const caption = element("figcaption");
    this.stamp = element("span", "stamp");
    caption.append(element("b", "", track.modality), this.stamp, this.sliders());
    figure.append(frame, caption);
    figure.dataset.modality = track.modality;
    $("pictures").append(figure);
    if (track.error) this.tell(track.error);
  }

  sliders() {
    const box = element("div", "contrast");
    if (!this.track.contrast) return box;
    const usual = this.track.contrast;
    const most = this.track.dtype === "uint16" ? 65535 : 255;
    const span = usual[1] - usual[0];
    const bounds = [Math.max(0, usual[0] - span), Math.min(most, usual[1] + span)];
    const [low, high] = ["low", "high"].map((name, k) => {
      const input = element("input");
      Object.assign(input, { type: "range", min: bounds[0], max: bounds[1], step: "any", value: usual[k] });
      input.setAttribute("aria-label", `${name} end of the contrast of ${this.track.modality}`);
      input.title = name === "low" ? "Shown as black" : "Shown as white";
      input.addEventListener("input", () => {
        const [a, b] = [Number(low.value), Number(high.value)];
        this.contrast = a < b ? [a, b] : [b, a + 1e-3];
        this.show(now, true);
      });
      return input;
    });
    const usually = element("button", "small", "Auto");
    usually.title = "The usual contrast";
    usually.addEventListener("click", () => {
      this.contrast = null;
      [low.value, high.value] = usual;
      this.show(now, true);
    });
    box.append("Contrast", low, high, usually);
    return box;
  }

  // Shows the frame at a moment; of moments asked for while one is fetched only the last one counts.
  async show(seconds, again = false) {
    if (this.track.error) return;
    this.wanted = seconds;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wanted !== null) {
        const at = this.wanted;
        this.wanted = null;
        await this.fetch(at, again);
      }
    } finally {
      this.busy = false;
    }
  }

  async fetch(at, again) {
    const isFirst = this === panels[0];
    const query = new URLSearchParams({ modality: this.track.modality, t: at.toFixed(6) });
    if (!isFirst) query.set("nearest", "1");
    const [low, high] = this.contrast || this.track.contrast;
    query.set("low", low);
    query.set("high", high);
    try {
      const answer = await ask(`/api/recordings/${recording.number}/frame?${query}`);
      const picture = await createImageBitmap(await answer.blob());
      if (!panels.includes(this)) return;
      const next = answer.headers.get("x-next-s");
      this.shown = { at: Number(answer.headers.get("x-frame-s")), next: next ? Number(next) : null };
      if (this.canvas.width !== picture.width) this.canvas.width = picture.width;
      if (this.canvas.height !== picture.height) this.canvas.height = picture.height;
      this.canvas.getContext("2d").drawImage(picture, 0, 0);
      this.canvas.dataset.at = this.shown.at;
      this.fault.hidden = true;
      picture.close();
    } catch (error) {
      if (panels.includes(this)) this.tell(error.sentence || String(error));
      return;
    }
    if (isFirst) arrived(this.shown.at, again);
    const late = Math.round((this.shown.at - now) * 1000);
    this.stamp.textContent = isFirst ? clock(this.shown.at) : `${late < 0 ? "−" : "+"}${Math.abs(late)} ms`;
  }

  tell(sentence) {
    this.fault.textContent = sentence;
    this.fault.hidden = false;
    if (playing) pause();
  }
}

function makePanels() {
  $("pictures").replaceChildren();
  panels = [];
  for (const track of recording.tracks) panels.push(new Panel(track));
  if (!panels.length) $("pictures").append(element("figure", "", "No pictures: signals and skeletons are not shown."));
}

function arrived(at, again) {
  now = at;
  if (!again) for (const panel of panels.slice(1)) panel.show(at);
  follow();
  drawTime();
}

function seek(seconds) {
  const wanted = Math.min(Math.max(0, seconds), length() + 1);
  if (playing) playing = { wall: performance.now(), from: wanted };
  panels[0]?.show(wanted);
}

function step(way) {
  const panel = panels[0];
  if (!panel?.shown || panel.busy) return;
  pause();
  if (way < 0) seek(panel.shown.at - 0.001);
  else if (panel.shown.next !== null) seek(panel.shown.next);
}

function play() {
  if (!panels[0]?.shown) return;
  const from = panels[0].shown.next === null ? 0 : now;
  playing = { wall: performance.now(), from };
  $("play").textContent = "Pause";
  requestAnimationFrame(tick);
}

function pause() {
  playing = null;
  $("play").textContent = "Play";
}

function tick() {
  if (!playing) return;
  const panel = panels[0];
  const due = playing.from + ((performance.now() - playing.wall) / 1000) * Number($("speed").value);
  if (panel.shown.next === null && due > panel.shown.at + 0.2 && !panel.busy) return pause();
  if (!panel.busy && (panel.shown.next === null || due >= panel.shown.next || due < panel.shown.at)) panel.show(due);
  requestAnimationFrame(tick);
}

function setSpeed(way) {
  const at = SPEEDS.indexOf(Number($("speed").value)) + way;
  if (at < 0 || at >= SPEEDS.length) return;
  $("speed").value = String(SPEEDS[at]);
  if (playing) playing = { wall: performance.now(), from: now };
}

// --- marking

// Where a piece ends that is to hold all frames before the one that is shown; with the last one it holds that, too.
const endHere = () => (panels[0]?.shown?.next === null ? now + LAST_FRAME_S : now);

function mark(which) {
  if (!recording) return;
  const at = which === "begin" ? now : endHere();
  const its = piece();
  if (its) {
    edit({ kind: "change", recording: recording.number, id: its.id, [which === "begin" ? "start_s" : "end_s"]: at }).catch(fail);
    return;
  }
  if (which === "begin") begin = at;
  else end = at;
  if (begin !== null && end !== null && end <= begin) {
    if (which === "begin") end = null;
    else begin = null;
  }
  say(begin === null ? "now press I where it begins" : `begins at ${clock(begin)}${end === null ? "" : `, ends at ${clock(end)}`}: press the key of its class${end === null ? " where it ends" : ""}`);
  draw();
}

async function give(label) {
  if (!recording) return;
  const its = piece();
  try {
    if (its && begin === null) {
      await edit({ kind: "change", recording: recording.number, id: its.id, label });
      return;
    }
    if (begin === null) return say("press I where the piece begins, then the key of its class where it ends", { alarm: true });
    const [from, until] = [begin, end === null ? endHere() : end];
    if (until <= from) return say(`the piece begins at ${clock(from)}: go to where it ends, then press the key of its class`, { alarm: true });
    await edit({ kind: "add", recording: recording.number, start_s: from, end_s: until, label });
    begin = end = null;
    draw();
  } catch (error) {
    fail(error);
  }
}

function remove() {
  const its = piece();
  if (!its) return say("choose a piece first: click it, or press the up or down key", { alarm: true });
  edit({ kind: "delete", recording: recording.number, id: its.id }).catch(fail);
}

function choose(id, { go = false } = {}) {
  chosen = id;
  begin = end = null;
  const its = piece();
  if (its && go) {
    pause();
    seek(its.start_s);
    reveal(its.start_s, endOf(its));
  }
  draw();
}

function neighbour(way) {
  if (!recording?.pieces.length) return;
  const at = recording.pieces.findIndex((p) => p.id === chosen);
  const behind = recording.pieces.findIndex((p) => p.start_s > now + 1e-6);
  const start = behind < 0 ? recording.pieces.length : behind;
  const next = at >= 0 ? at + way : way > 0 ? start : start - 1;
  choose(recording.pieces[Math.min(Math.max(0, next), recording.pieces.length - 1)].id, { go: true });
}

const undo = () => change("/api/undo", {}).catch(fail);
const redo = () => change("/api/redo", {}).catch(fail);

// --- the timeline

const share = (seconds) => (seconds - view[0]) / (view[1] - view[0]);

function follow() {
  if (now >= view[0] && now <= view[1]) return;
  const span = view[1] - view[0];
  const from = Math.min(Math.max(0, now - span * 0.1), Math.max(0, length() - span));
  view = [from, from + span];
  draw();
}

function reveal(from, until) {
  const span = Math.min(length(), Math.max(view[1] - view[0], (until - from) * 1.2));
  if (from >= view[0] && until <= view[1]) return;
  const left = Math.min(Math.max(0, (from + until - span) / 2), Math.max(0, length() - span));
  view = [left, left + span];
}

function zoom(factor, about = now) {
  const span = Math.min(length(), Math.max(SHORTEST_VIEW_S, (view[1] - view[0]) * factor));
  const from = Math.min(Math.max(0, about - (about - view[0]) * (span / (view[1] - view[0]))), length() - span);
  view = [from, from + span];
  draw();
}

function draw() {
  if (!recording) return;
  drawRuler();
  $("pieces").replaceChildren(...recording.pieces.filter((p) => endOf(p) >= view[0] && p.start_s <= view[1]).map(drawnPiece));
  $("all").replaceChildren(...recording.pieces.map((p) => {
    const bar = element("div", `segment ${colour(p.label)}`);
    place(bar, p.start_s / length(), endOf(p) / length());
    return bar;
  }));
  place($("window"), view[0] / length(), view[1] / length());
  drawFields();
  drawTime();
}

function drawRuler() {
  const span = view[1] - view[0];
  const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((s) => span / s <= 12) || 3600;
  const ticks = [];
  for (let k = Math.ceil(view[0] / every); k * every <= view[1]; k++) {
    const tick = element("i", "", clock(k * every, every < 1 ? 1 : 0));
    tick.style.left = `${share(k * every) * 100}%`;
    ticks.push(tick);
  }
  $("ruler").replaceChildren(...ticks);
}

function drawnPiece(p) {
  const bar = element("div", `segment ${colour(p.label)}${p.id === chosen ? " chosen" : ""}`);
  bar.append(p.label || "unlabelled", element("span", "", `${(endOf(p) - p.start_s).toFixed(2)} s${p.subject ? ` · ${p.subject}` : ""}`));
  bar.title = `${p.label || "unlabelled"}, ${clock(p.start_s)} to ${p.end_s === null ? "the end" : clock(p.end_s)}`;
  bar.dataset.id = p.id;
  place(bar, share(p.start_s), share(endOf(p)));
  for (const side of ["start", "end"]) bar.append(edge(p, side));
  return bar;
}

function edge(p, side) {
  const handle = element("div", `edge ${side}`);
  handle.dataset.side = side;
  return handle;
}

function place(bar, from, until) {
  bar.style.left = `${from * 100}%`;
  bar.style.width = `${Math.max(0, until - from) * 100}%`;
}

function drawTime() {
  $("clock").textContent = clock(now);
  $("length").textContent = `/ ${clock(recording?.seconds || 0, 0)}`;
  $("playhead").style.left = `${share(now) * 100}%`;
  $("here").style.left = `${(now / length()) * 100}%`;
  const marked = begin !== null || end !== null;
  $("mark").hidden = !marked;
  if (marked) {
    const from = begin === null ? end : begin;
    place($("mark"), share(from), share(end === null ? Math.max(now, from) : end));
  }
}

// Dragging: an edge of a piece moves it to frames, all else scrubs.
function dragging(event) {
  const bar = event.target.closest(".segment");
  const handle = event.target.closest(".edge");
  const at = (e) => {
    const box = $("timeline").getBoundingClientRect();
    return view[0] + Math.min(Math.max(0, (e.clientX - box.left) / box.width), 1) * (view[1] - view[0]);
  };
  pause();
  const moved = { far: false };
  if (bar && bar.dataset.id !== chosen) choose(bar.dataset.id);
  else if (!bar && chosen !== null) choose(null);
  if (!bar) seek(at(event));
  $("timeline").setPointerCapture(event.pointerId);
  const move = (e) => {
    if (!moved.far && Math.abs(e.clientX - event.clientX) < 4) return;
    moved.far = true;
    seek(at(e));
  };
  const stop = async () => {
    $("timeline").removeEventListener("pointermove", move);
    if (!moved.far || !handle) return;
    while (panels[0].busy) await new Promise(requestAnimationFrame);
    mark(handle.dataset.side === "start" ? "begin" : "end");
  };
  $("timeline").addEventListener("pointermove", move);
  $("timeline").addEventListener("pointerup", stop, { once: true });
}

// --- lists and fields

// Items stay; one is written anew where it has changed: a folder may have thousands.
function drawRecordings() {
  const list = $("recordings");
  if (list.children.length !== state.recordings.length) {
    list.replaceChildren(...state.recordings.map((_, number) => {
      const item = element("li");
      const button = element("button");
      button.append(element("b"), element("span"), element("progress"));
      button.lastChild.setAttribute("aria-label", "how much is labelled");
      button.addEventListener("click", () => open(number).catch(fail));
      item.append(button);
      return item;
    }));
  }
  state.recordings.forEach((one, number) => {
    const button = list.children[number].firstChild;
    const known = lengths[number];
    const much = known?.seconds ? Math.min(1, known.labelled_s / known.seconds) : 0;
    const time = known ? ` · ${clock(known.seconds, 0)} · ${Math.round(much * 100)} %` : "";
    const text = `${one.pieces} ${one.pieces === 1 ? "piece" : "pieces"}${time}`;
    const isOpen = number === recording?.number;
    const written = `${one.name}|${one.subject}|${text}|${isOpen}`;
    if (button.dataset.written === written) return;
    button.dataset.written = written;
    button.children[0].textContent = one.name;
    button.children[1].textContent = text;
    button.children[2].value = much;
    button.title = `${one.name}${one.subject ? `, ${one.subject}` : ""}`;
    button.setAttribute("aria-current", String(isOpen));
    if (isOpen) button.scrollIntoView({ block: "nearest" });
  });
}

function drawClasses() {
  const its = piece()?.label;
  $("classes").replaceChildren(...state.classes.map((label, k) => {
    const button = element("button", label === its ? "chosen" : "");
    button.append(element("i", colour(label)), element("span", "", label));
    if (KEYS[k]) button.append(element("kbd", "", KEYS[k].toUpperCase()));
    button.title = label;
    button.addEventListener("click", () => give(label));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

function drawFields() {
  const its = piece();
  document.querySelector("aside").classList.toggle("has-piece", Boolean(its));
  $("chosen").textContent = its ? `Piece: ${its.label || "unlabelled"}` : "Recording";
  const values = its ? { ...its, end_s: its.end_s ?? "" } : { subject: recording?.subject || "" };
  for (const name of ["start_s", "end_s", "subject", "trial"]) {
    if (document.activeElement !== $(name)) $(name).value = values[name] ?? "";
  }
  drawClasses();
}

function entered(name) {
  const text = $(name).value.trim();
  const its = piece();
  if (!recording) return;
  if (!its) return edit({ kind: "describe", recording: recording.number, subject: text }).catch(fail);
  const isTime = name.endsWith("_s");
  const value = isTime ? Number(text.replace(",", ".")) : text;
  if (isTime && (text === "" || !Number.isFinite(value))) {
    drawFields();
    return say(`'${text}' is no number of seconds`, { alarm: true });
  }
  return edit({ kind: "change", recording: recording.number, id: its.id, [name]: value }).catch((error) => {
    $(name).value = its[name] ?? "";
    fail(error);
  });
}

function element(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

// --- keys

const COMMANDS = {
  " ": () => (playing ? pause() : play()),
  ArrowLeft: (e) => (e.shiftKey ? (pause(), seek(now - 1)) : step(-1)),
  ArrowRight: (e) => (e.shiftKey ? (pause(), seek(now + 1)) : step(1)),
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
  Home: () => seek(0),
  End: () => seek(length() + 1),
  PageUp: () => recording?.number > 0 && open(recording.number - 1).catch(fail),
  PageDown: () => recording?.number < state.recordings.length - 1 && open(recording.number + 1).catch(fail),
  Delete: remove,
  Backspace: remove,
  Escape: () => (choose(null), say("")),
  ",": () => setSpeed(-1),
  ".": () => setSpeed(1),
  "+": () => zoom(0.5),
  "=": () => zoom(0.5),
  "-": () => zoom(2),
  i: () => mark("begin"),
  o: () => mark("end"),
  n: () => naming(true),
};

function naming(shown) {
  $("naming").hidden = !shown;
  $("name").value = "";
  if (shown) $("name").focus();
  else $("name").blur();
}

function pressed(event) {
  const isTyping = event.target.matches("input:not([type=range]), select");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (isTyping) {
    if (key === "Escape") {
      naming(false);
      event.target.blur();
      drawFields();
    } else if (key === "Enter" && event.target.closest("#fields")) event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" || key === "y") {
      event.preventDefault();
      if (key === "y" || event.shiftKey) redo();
      else undo();
    }
    return;
  }
  if (event.altKey) return;
  const command = COMMANDS[key];
  const label = state.classes[KEYS.indexOf(key)];
  if (!command && !(KEYS.includes(key) && label !== undefined)) return;
  if (key === " " || key === "Enter") event.target.blur?.();
  event.preventDefault();
  if (command) command(event);
  else give(label);
}

async function newest() {
  try {
    if ($("newest").dataset.conflict === "disk") {
      take(await json("/api/reload", { revision: state.revision }));
      lengths = {};
    } else take(await json("/api/state"));
    if (recording && recording.number < state.recordings.length) await refresh();
    else await open(0);
    say("these are the newest labels: do your last change again");
  } catch (error) {
    fail(error);
  }
}

// --- beginning

function listen() {
  document.addEventListener("keydown", pressed);
  $("play").addEventListener("click", () => (playing ? pause() : play()));
  $("back").addEventListener("click", () => step(-1));
  $("on").addEventListener("click", () => step(1));
  $("begin").addEventListener("click", () => mark("begin"));
  $("end").addEventListener("click", () => mark("end"));
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("delete").addEventListener("click", remove);
  $("newest").addEventListener("click", newest);
  $("new").addEventListener("click", () => naming($("naming").hidden));
  $("naming").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = $("name").value.trim();
    if (label) edit({ kind: "class", label }).then(() => naming(false), fail);
  });
  $("speed").addEventListener("change", () => {
    if (playing) playing = { wall: performance.now(), from: now };
    $("speed").blur();
  });
  for (const name of ["start_s", "end_s", "subject", "trial"]) $(name).addEventListener("change", () => entered(name));
  $("timeline").addEventListener("pointerdown", dragging);
  $("timeline").addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = $("timeline").getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, view[0] + ((event.clientX - box.left) / box.width) * (view[1] - view[0]));
  }, { passive: false });
  $("overview").addEventListener("pointerdown", (event) => {
    const box = $("overview").getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * length());
  });
  $("theme").addEventListener("click", () => {
    const isDark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    setTheme(isDark ? "light" : "dark");
  });
  window.addEventListener("hashchange", () => location.reload());
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

async function begun() {
  if (localStorage.getItem("theme")) setTheme(localStorage.getItem("theme"));
  listen();
  take(await json("/api/state"));
  await open(0);
  await learnLengths();
}

begun().catch(fail);
