// Keeps the page up to date: fetches it again and copies what differs into the document, so that focus, selection and
// scroll position stay where they are. The server renders; this script does not know what the page is about.

const INTERVAL = 2000;
const home = new URL("../../", import.meta.url);
const live = new URL("-/live", home);

/** Make `old` equal to `fresh`. An element whose data-version is the same is left alone, with all its content. */
function copy(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.dataset.version !== undefined && old.dataset.version === fresh.dataset.version) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  after.forEach((node, i) => (before[i] ? copy(before[i], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

async function load(url) {
  const reply = await fetch(url, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(INTERVAL * 4) });
  return new DOMParser().parseFromString(await reply.text(), "text/html");
}

const versions = (page) => [...page.querySelectorAll("[data-version]")].map((part) => part.dataset.version).join();

async function refresh() {
  let fresh = await load(live);
  if (versions(fresh) !== versions(document)) fresh = await load(home); // another configuration: fetch all of it
  document.title = fresh.title;
  copy(document.body, fresh.body);
}

// ---------------------------------------------------------------------------------------------------------- updating

const offline = document.getElementById("offline");
const pause = document.getElementById("pause");
let paused = false;
let failures = 0;
let timer;

async function tick() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  try {
    await refresh();
    failures = 0;
    offline.hidden = true;
  } catch {
    // The first failure may be a reload, which replaces the admin process.
    failures += 1;
    if (failures === 2) {
      offline.textContent = `No reply since ${new Date().toLocaleTimeString()}: the figures are old. Still trying.`;
      offline.hidden = false;
    }
  }
  clearTimeout(timer);
  timer = setTimeout(tick, INTERVAL);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Resume updates" : "Pause updates";
  tick();
});
document.addEventListener("visibilitychange", tick);
timer = setTimeout(tick, INTERVAL);

// ---------------------------------------------------------------------------------------------------------- decisions

// The form is replaced when the configuration changes, so the document listens.
document.addEventListener("submit", async (event) => {
  if (event.target.id !== "decide") return;
  event.preventDefault();
  const url = new URL(event.target.action);
  url.hash = "";
  url.search = new URLSearchParams(new FormData(event.target));
  const decision = document.getElementById("decision");
  try {
    decision.replaceChildren(...(await load(url)).getElementById("decision").childNodes);
  } catch {
    decision.textContent = "No reply: is the server still running?";
  }
});
