// The decisions page: what htmx does not do by itself. Rows are rendered, and escaped, by the server.
"use strict";

const KEEP = 200;
const live = document.querySelector("#live");
const panel = document.querySelector("#why");
let opener = null;
let paused = false;

document.documentElement.classList.add("scripted");
live.hidden = false;

function say(state, text) {
  live.dataset.state = state;
  live.querySelector(".say").textContent = text;
}

const links = () => [...document.querySelectorAll("#rows .why-link")];

function trim() {
  const rows = document.querySelector("#rows").children;
  while (rows.length > KEEP) rows[rows.length - 1].remove();
}

function mark(link) {
  document.querySelectorAll("#rows tr[aria-selected]").forEach((row) => row.removeAttribute("aria-selected"));
  link?.closest("tr").setAttribute("aria-selected", "true");
}

function close() {
  if (!panel.childElementCount) return;
  panel.replaceChildren();
  mark(null);
  if (opener?.isConnected) opener.focus();
}

document.addEventListener("htmx:sse:after:connection", (event) => {
  const status = event.detail?.connection?.status;
  if (status === 401) location.assign("/sign-in");
  else if (!paused) say("on", "Live");
});
document.addEventListener("htmx:sse:error", () => say("lost", "Reconnecting"));
document.addEventListener("htmx:sse:close", () => { if (live.dataset.state !== "on") say("lost", "Reconnecting"); });
document.addEventListener("htmx:sse:before:message", (event) => { if (paused) event.preventDefault(); });
document.addEventListener("htmx:sse:after:message", trim);
document.addEventListener("signed-out", () => location.assign("/sign-in"));

document.addEventListener("click", (event) => {
  const link = event.target.closest(".why-link");
  if (link) opener = link;
  if (event.target.closest("#why .close")) {
    event.preventDefault();
    close();
  }
});

document.addEventListener("htmx:after:swap", () => {
  const heading = panel.querySelector("h2");
  if (heading && opener && !panel.contains(document.activeElement)) {
    mark(opener);
    heading.focus({ preventScroll: true });
    panel.scrollTop = 0;
  }
});

document.querySelector("#pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  event.target.textContent = paused ? "Resume" : "Pause";
  say(paused ? "paused" : "on", paused ? "Paused" : "Live");
  if (!paused) document.querySelector("#filters").requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return close();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("#principal").focus();
  } else if (step && !panel.contains(event.target)) {
    const all = links();
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + step))];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
});
