// Shows what comes as it comes, and copies. The pages work without it, except for that.
// It makes nodes and text, never HTML.
"use strict";

const MOST_EVENTS = 100; // in the list
const ANNOUNCE_EVERY = 10_000; // milliseconds: who listens is not talked over
const ARRIVING = 15 * 60; // seconds, as in view.py
const FUTURE = 60; // seconds that the last one may be ahead, as clocks do not all agree
const AGAIN = 5_000; // milliseconds after which a stream that was refused is asked for again
const CHART_EVERY = 60_000; // milliseconds

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
byId("progress")?.focus();
if (byId("done")) history.replaceState(null, "", location.pathname);

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
let writable = !state?.classList.contains("unwritable");
let refused = null; // what was refused last and should not be; null: as the server has it
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
  const is = trouble || (!writable ? "unwritable" : !last ? "nothing" : since < -FUTURE ? "ahead" : since < ARRIVING ? "arriving" : "quiet");
  if (last) put(byId("state-age"), age(secondsSince(last)));
  if (!state.classList.contains(is)) {
    state.classList.remove("nothing", "arriving", "quiet", "ahead", "lost", "unreadable", "unwritable");
    state.classList.add(is);
  }
  if (refused) byId("refusing").hidden = secondsSince(refused.at) >= ARRIVING;
}

// What comes

function showRefused(all) {
  refused = all.find(({ alarms }) => alarms) ?? { at: 0, reason: "" };
  put(byId("refusing-reason"), refused.reason);
  byId("refused").hidden = all.length === 0;
  byId("refusals").replaceChildren(
    ...all.map(({ reason, status, requests, at }) => {
      const row = byId("refusal-row").content.cloneNode(true);
      const time = row.querySelector("time");
      time.dateTime = new Date(at).toISOString();
      time.textContent = time.dateTime.slice(0, 19).replace("T", " ");
      row.querySelector(".reason").textContent = status ? `${reason} (${status})` : reason;
      row.querySelector(".requests").textContent = count(requests);
      return row;
    }),
  );
}

function showCounts(told) {
  const { now, rows } = told;
  ahead = Date.now() - now;
  writable = told.writable;
  showRefused(told.refused);
  let events = 0;
  let hour = 0;
  let more = 0;
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
    put(row.querySelector(".day"), count(of.day));
    if (row.closest("details")) more += of.events;
    row.classList.toggle("none", of.events === 0);
    row.dataset.last = of.last ?? "";
    const spark = row.querySelector(".spark");
    spark.setAttribute("aria-label", of.words);
    spark.querySelector(".bars").setAttribute("d", of.bars);
  }
  put(byId("figure-events"), count(events));
  put(byId("figure-hour"), count(hour));
  put(byId("more-events"), count(more));
  state.dataset.last = last || "";
  showAges();
}

// The chart

async function showChart() {
  if (document.hidden) return;
  const query = new URLSearchParams({
    range: byId("chart").dataset.range,
    collection: byId("latest").dataset.collection,
  });
  try {
    const response = await fetch(`/chart?${query}`);
    if (!response.ok) return;
    const { paths, most, words, ticks } = await response.json();
    for (const bars of byId("chart").querySelectorAll("[data-stream]")) {
      bars.setAttribute("d", paths[bars.dataset.stream]);
    }
    byId("chart").querySelector("svg").setAttribute("aria-label", words);
    put(byId("chart-most"), most ? `${count(most)} in ${byId("chart").dataset.each}` : "");
    [...byId("chart-ticks").children].forEach((tick, place) => put(tick, ticks[place]));
  } catch {
    // The headline says that it is not connected.
  }
}

// The list, which stands still while somebody reads it

const list = byId("events");
const pause = byId("pause");
const fresh = byId("fresh");
let paused = false;
let held = []; // what came while the list stood still
let heldCount = 0; // with those that there is no room for
let missed = 0;
let unsaid = 0;

const isRead = () =>
  paused ||
  (matchMedia("(hover: hover)").matches && list.matches(":hover")) ||
  list.contains(document.activeElement) ||
  list.querySelector("[open]") !== null;

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
  heldCount += message.missed + message.events.length;
  unsaid += message.missed + message.events.length;
  held = [...message.events, ...held];
  missed += Math.max(0, held.length - MOST_EVENTS);
  held.length = Math.min(held.length, MOST_EVENTS);
  letGo();
}

function letGo() {
  fresh.hidden = heldCount === 0 || !isRead();
  put(fresh, `${count(heldCount)} new`);
  if (heldCount && !isRead()) showHeld();
}

function showHeld() {
  byId("no-events").hidden = true;
  byId("missed").hidden = missed === 0;
  put(byId("missed"), `Since the page was loaded, ${count(missed)} more came than the list had room for.`);
  list.prepend(...held.map(eventRow));
  held = [];
  heldCount = 0;
  fresh.hidden = true;
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
  row.querySelector("a").setAttribute("aria-label", `Show dead letter ${number}`);
  row.querySelector("[name=number]").value = number;
  row.querySelector("button").setAttribute("aria-label", `Replay dead letter ${number}`);
  return row;
}

function showLetters({ count: all, letters }) {
  const figure = byId("figure-letters");
  put(figure, count(all));
  if (all) figure.href = "/dead-letters";
  else figure.removeAttribute("href");
  const section = byId("dead-letters");
  const shown = [...section.querySelectorAll("[name=number]")].map((field) => Number(field.value));
  if (shown.join() !== letters.map(({ number }) => number).join()) {
    byId("letters").replaceChildren(...letters.map(letterRow));
  }
  section.hidden = letters.length === 0;
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
  list.addEventListener("toggle", (toggled) => showCall(toggled.target).then(letGo), true);
  for (const left of ["pointerleave", "focusout"]) {
    list.addEventListener(left, () => setTimeout(letGo)); // when the focus is where it goes
  }
  fresh.addEventListener("click", () => {
    showHeld();
    byId("latest-title").focus(); // the button is gone
  });
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    letGo();
  });
  setInterval(showChart, CHART_EVERY);
  listen(byId("latest").dataset.since);
  // A page that is left open in the background's cache would go on listening.
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (shown) => {
    if (shown.persisted) location.reload();
  });
}
