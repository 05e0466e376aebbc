// Shows what comes as it comes, and copies. All of the page works without it but for that.
// It makes nodes and text, never HTML.
"use strict";

const MOST_EVENTS = 100; // in the list
const ANNOUNCE_EVERY = 10_000; // milliseconds: who listens is not talked over
const ARRIVING = 15 * 60; // seconds, as in view.py
const FUTURE = 60; // seconds that the last one may be ahead, as clocks do not all agree
const AGAIN = 5_000; // milliseconds after which a stream that was refused is asked for again

const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

// Copying

function select(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    // Without TLS, or without leave: the old way, or at least selected.
    node.closest("details")?.setAttribute("open", "");
    select(node);
    return document.execCommand("copy");
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const says = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = await copy(byId(button.dataset.copy));
    button.textContent = done ? "Copied" : "Selected: copy it by hand";
    announce(button.textContent);
    setTimeout(() => (button.textContent = says), 2_000);
  });
}

// The collector may not know under which address the browser has it: a proxy stands between them.
for (const node of document.querySelectorAll("[data-base]")) {
  node.textContent = node.textContent.replaceAll(node.dataset.base, location.origin);
}
const behindTLS = location.protocol === "https:" && byId("url-warning")?.dataset.base;
if (behindTLS) byId("url-warning").hidden = true;

byId("done")?.focus();
if (byId("done")) history.replaceState(null, "", "/");

function announce(text) {
  const announcer = byId("announcer");
  if (announcer) announcer.textContent = text;
}

// Ages

function age(seconds) {
  for (const [size, unit] of [[86_400, "d"], [3_600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return seconds < -FUTURE ? "?" : `${Math.max(0, seconds)} s`;
}

const state = byId("state");
let trouble = ""; // why the page knows nothing of the present: "lost" or "unreadable"
let ahead = state ? Date.now() - Number(state.dataset.now) : 0; // of the collector's clock
const secondsSince = (last) => Math.floor((Date.now() - ahead - Number(last)) / 1000);

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showAges() {
  for (const row of document.querySelectorAll("tr[data-last]")) {
    if (row.dataset.last) put(row.querySelector(".age"), age(secondsSince(row.dataset.last)));
  }
  const last = state.dataset.last;
  const since = secondsSince(last);
  const is = trouble || (!last ? "nothing" : since < -FUTURE ? "ahead" : since < ARRIVING ? "arriving" : "quiet");
  if (last) put(byId("state-age"), age(secondsSince(last)));
  if (!state.classList.contains(is)) {
    state.classList.remove("nothing", "arriving", "quiet", "ahead", "lost", "unreadable");
    state.classList.add(is);
  }
}

// What comes

function showCounts({ now, rows }) {
  ahead = Date.now() - now;
  let events = 0;
  let hour = 0;
  let last = 0;
  for (const of of rows) {
    events += of.events;
    hour += of.hour;
    last = Math.max(last, of.last ?? 0);
    const row = document.querySelector(`tr[data-collection="${of.collection}"]`);
    if (!row) continue;
    const total = row.querySelector(".total");
    if (total.textContent !== count(of.events)) {
      total.textContent = count(of.events);
      row.classList.remove("changed");
      void row.offsetWidth; // so that the animation begins anew
      row.classList.add("changed");
    }
    put(row.querySelector(".hour"), count(of.hour));
    row.classList.toggle("none", of.events === 0);
    row.dataset.last = of.last ?? "";
    const spark = row.querySelector(".spark");
    spark.setAttribute("aria-label", of.words);
    spark.querySelector(".bars").setAttribute("d", of.bars);
  }
  put(byId("figure-events"), count(events));
  put(byId("figure-hour"), count(hour));
  state.dataset.last = last || "";
  showAges();
}

const list = byId("events");
const pause = byId("pause");
let paused = false;
let held = []; // what came while the list was paused
let missed = 0;
let unsaid = 0;

function eventRow({ at, event, collection, who, what }) {
  const row = byId("event-row").content.cloneNode(true);
  const time = row.querySelector("time");
  row.querySelector("details").dataset.at = at;
  time.dateTime = at;
  time.textContent = at.slice(11, 19);
  row.querySelector(".kind").textContent = event;
  row.querySelector(".kind").classList.add(collection);
  row.querySelector(".who").textContent = who;
  row.querySelector(".what").textContent = what;
  row.querySelector("a").href = `/event/${at}`;
  row.querySelector("li").classList.add("fresh");
  return row;
}

function showEvents(message) {
  missed += message.missed;
  unsaid += message.missed + message.events.length;
  held = [...message.events, ...held].slice(0, MOST_EVENTS);
  if (paused) pause.textContent = `Resume (${count(held.length)} more)`;
  else showHeld();
}

function showHeld() {
  byId("no-events").hidden = true;
  byId("missed").hidden = missed === 0;
  put(byId("missed"), `Since the page was loaded, ${count(missed)} more came than the list had room for.`);
  list.prepend(...held.map(eventRow));
  held = [];
  // What somebody reads or stands on stays.
  for (const row of [...list.children].slice(MOST_EVENTS)) {
    if (!row.querySelector("[open]") && !row.contains(document.activeElement)) row.remove();
  }
}

function announceEvents() {
  if (!unsaid) return;
  announce(unsaid === 1 ? "One more event" : `${count(unsaid)} more events`);
  unsaid = 0;
}

function letterRow({ number, at, input, bytes, reason }) {
  const row = byId("letter-row").content.cloneNode(true);
  row.querySelector(".reason").textContent = reason;
  row.querySelector("time").dateTime = at;
  row.querySelector("time").textContent = `${at.slice(0, 10)} ${at.slice(11, 19)}`;
  row.querySelector(".input").textContent = input;
  row.querySelector(".bytes").textContent = count(bytes);
  row.querySelector("a").href = `/dead-letter/${number}`;
  row.querySelector("a").setAttribute("aria-label", `Show body ${number}`);
  row.querySelector("[name=number]").value = number;
  row.querySelector("button").setAttribute("aria-label", `Replay body ${number}`);
  return row;
}

function showLetters({ count: all, letters }) {
  const figure = byId("figure-letters");
  put(figure, count(all));
  if (all) figure.href = "#dead-letters";
  else figure.removeAttribute("href");
  const section = byId("dead-letters");
  const shown = [...section.querySelectorAll("[name=number]")].map((field) => Number(field.value));
  if (shown.join() !== letters.map(({ number }) => number).join()) {
    byId("letters").replaceChildren(...letters.map(letterRow));
  }
  section.hidden = letters.length === 0;
  byId("more-letters").hidden = all <= letters.length;
  put(byId("letters-count"), count(all));
}

// The stream

function say(text, broken) {
  trouble = broken;
  showAges();
  const live = byId("live");
  live.hidden = false;
  if (broken && live.textContent !== text) announce(text);
  put(live, text);
  live.classList.toggle("broken", broken !== "");
}

let stream;

function listen(since) {
  const latest = byId("latest").dataset;
  const query = new URLSearchParams({ collection: latest.collection, since });
  stream = new EventSource(`/live?${query}`);
  const on = (name, show) =>
    stream.addEventListener(name, (message) => {
      if (message.lastEventId) since = message.lastEventId;
      say("live", "");
      show(JSON.parse(message.data));
    });
  on("counts", showCounts);
  on("letters", showLetters);
  on("events", showEvents);
  on("seen", () => {});
  stream.addEventListener("trouble", () => say("the store cannot be read at present", "unreadable"));
  stream.addEventListener("error", async () => {
    say("not connected, trying again", "lost");
    if (stream.readyState !== EventSource.CLOSED) return; // it comes again by itself
    if (await loggedOut()) say("logged out: reload the page", "lost");
    else setTimeout(listen, AGAIN, since);
  });
}

async function loggedOut() {
  try {
    return (await fetch("/live", { method: "HEAD" })).status === 401;
  } catch {
    return false;
  }
}

async function showCall(details) {
  if (!details.open || details.querySelector("pre")) return;
  const text = document.createElement("pre");
  text.className = "json";
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "The track call as JSON");
  text.textContent = "…";
  details.querySelector(".call").prepend(text);
  try {
    const answer = await fetch(`/event/${details.dataset.at}`, {
      headers: { Accept: "application/json" },
    });
    text.textContent = answer.ok ? await answer.text() : "It cannot be read at present.";
  } catch {
    text.textContent = "It cannot be read at present.";
  }
}

if (state) {
  showAges();
  setInterval(showAges, 1_000);
  setInterval(announceEvents, ANNOUNCE_EVERY);
  // A details element's toggle does not bubble.
  list.addEventListener("toggle", (toggled) => showCall(toggled.target), true);
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    if (!paused) showHeld();
  });
  listen(byId("latest").dataset.since);
  // A page that is left open in the background's cache would go on listening.
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (shown) => {
    if (shown.persisted) location.reload();
  });
}
