// Keeps an open page up to date, and shows in red when the service has gone. Everything on it can be read without this
// script: the server renders the page. Here its live sections are fetched again and merged into the document, so that
// focus, selection and unfolded details stay.

const RENEW_MS = 2000;
const HIDDEN_RENEW_MS = 10000; // the title of a tab in the background must not stay green either
const ANSWER_WITHIN_MS = 6000; // a service that hangs has gone, too
const NOTICE_MS = 6000;
const LEAVING_MS = 10000; // after which a page that is still there was not left: what it had asked for is a file
const notice = document.getElementById("notice");
const main = document.getElementById("main");
const title = document.title;

// ── live sections ────────────────────────────────────────────────────────────────────────────────────────────────────

const source = main.dataset.renew; // undefined for a tab that is not renewed: it only asks whether there is an answer
const address = source === undefined ? "page/version" : source || location.href;
let goneSince = null;
let leftAt = -Infinity;

addEventListener("beforeunload", () => { leftAt = performance.now(); });

function isBeingLeft() {
  return performance.now() - leftAt < LEAVING_MS;
}

// Load the page again, but not while the reader has it replaced: that would break off the form that is being sent.
function startAgain() {
  if (!isBeingLeft()) location.reload();
}

async function renew() {
  if (isBeingLeft()) return; // with signing out the answer would be a refusal
  let text;
  const asking = new AbortController();
  const stop = () => asking.abort();
  const timer = setTimeout(stop, ANSWER_WITHIN_MS);
  addEventListener("beforeunload", stop);
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, signal: asking.signal });
    if (response.status === 401) return startAgain();
    if (!response.ok) throw new Error(String(response.status));
    text = await response.text();
  } catch {
    if (!isBeingLeft()) showGone();
    return;
  } finally {
    clearTimeout(timer);
    removeEventListener("beforeunload", stop);
  }
  if (source !== undefined) mergeSections(text);
  else if (text.trim() !== document.documentElement.dataset.version) return startAgain(); // after an upgrade
  if (goneSince) showBack();
}

function mergeSections(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const version = fresh.querySelector("[data-version]")?.dataset.version;
  // A service of another version answers: this script and the style sheet are of the one before.
  if (version && version !== document.documentElement.dataset.version) return startAgain();
  const sections = fresh.querySelectorAll("[data-live]");
  if (!sections.length) return startAgain(); // the session has ended: the form that asks for the token
  for (const section of sections) {
    const current = document.getElementById(section.id);
    if (current) merge(current, section);
  }
  const headline = document.getElementById("title");
  if (headline) document.title = `${headline.textContent} · Autotag`;
}

// ── the service has gone ─────────────────────────────────────────────────────────────────────────────────────────────

// Shown once and not on every attempt, because screen readers announce it.
function showGone() {
  document.title = "No answer · Autotag";
  if (goneSince) return;
  goneSince = new Date();
  const why = `Since ${goneSince.toISOString().slice(0, 19)}+00:00. What is shown is from before; the service may have ended.`;
  document.documentElement.classList.add("gone");
  const headline = document.getElementById("headline");
  if (headline) {
    headline.className = "headline bad";
    headline.querySelector("h1").lastChild.nodeValue = "No answer";
    headline.querySelector(".why").textContent = why;
    headline.querySelector(".advice")?.remove();
  } else {
    const banner = document.createElement("p");
    banner.id = "gone";
    banner.className = "notice bad";
    banner.setAttribute("role", "alert");
    banner.textContent = `No answer from Autotag. ${why}`;
    main.prepend(banner);
  }
}

function showBack() {
  goneSince = null;
  document.documentElement.classList.remove("gone");
  document.getElementById("gone")?.remove();
  if (source === undefined) document.title = title;
}

// Make `current` equal to `fresh`, and reuse every node that can be reused.
function merge(current, fresh) {
  if (current.isEqualNode(fresh)) return;
  mergeAttributes(current, fresh);
  const children = [...fresh.childNodes];
  children.forEach((child, index) => {
    const existing = current.childNodes[index];
    if (!existing) current.append(document.importNode(child, true));
    else if (existing.nodeType !== child.nodeType || existing.nodeName !== child.nodeName || existing.id !== child.id) {
      existing.replaceWith(document.importNode(child, true));
    } else if (child.nodeType === Node.ELEMENT_NODE) merge(existing, child);
    else if (existing.nodeValue !== child.nodeValue) existing.nodeValue = child.nodeValue;
  });
  while (current.childNodes.length > children.length) current.lastChild.remove();
}

function mergeAttributes(current, fresh) {
  for (const { name } of [...current.attributes]) {
    // `open` is set by the reader; the server does not render it.
    if (!fresh.hasAttribute(name) && name !== "open") current.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
}

function scheduleRenewal() {
  setTimeout(async () => {
    await renew();
    scheduleRenewal();
  }, document.hidden ? HIDDEN_RENEW_MS : RENEW_MS);
}

scheduleRenewal();
document.addEventListener("visibilitychange", () => document.hidden || renew());

// ── notices ──────────────────────────────────────────────────────────────────────────────────────────────────────────

let noticeTimer;

function notify(text, persistent = false) {
  clearTimeout(noticeTimer);
  notice.textContent = text;
  if (text && !persistent) noticeTimer = setTimeout(() => { notice.textContent = ""; }, NOTICE_MS);
}

// ── pause, resume, reset ─────────────────────────────────────────────────────────────────────────────────────────────

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-action]");
  if (!form) return;
  event.preventDefault();
  const action = form.dataset.action;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json", "X-Autotag-CSRF": form.elements.csrf_token.value },
    });
    notify(response.ok ? (await response.json()).said : await response.text());
  } catch {
    notify(`Not done: no answer to ${action}.`);
  }
  button.disabled = false;
  await renew();
  // Pause has become Resume in the same place: keep the keyboard focus there.
  if (document.activeElement === document.body) document.querySelector(".actions button")?.focus();
});

// ── trying an image ──────────────────────────────────────────────────────────────────────────────────────────────────

const form = document.getElementById("try-form");
const file = document.getElementById("file");
const tried = document.getElementById("tried");
let uploading = false;

async function upload(image) {
  if (!image || uploading) return;
  uploading = true;
  const pending = document.createElement("p");
  pending.className = "pending";
  pending.textContent = `Looking at ${image.name || "the image"}…`;
  tried.replaceChildren(pending);
  tried.setAttribute("aria-busy", "true");
  try {
    const instance = document.getElementById("instance").value;
    const response = await fetch(`try?instance=${encodeURIComponent(instance)}`, {
      method: "POST",
      headers: {
        Accept: "text/html",
        "Content-Type": "application/octet-stream",
        "X-Autotag-File": encodeURIComponent((image.name || "image").slice(0, 200)),
      },
      body: image,
    });
    const outcome = new DOMParser().parseFromString(await response.text(), "text/html");
    tried.replaceChildren(...outcome.body.childNodes);
  } catch {
    pending.textContent = "No answer. The image may be too large, or the service is gone.";
  }
  tried.removeAttribute("aria-busy");
  tried.scrollIntoView({ block: "nearest" });
  uploading = false;
}

if (form) {
  file.addEventListener("change", () => {
    upload(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  });
  // A file can be dropped anywhere on the page.
  let dragDepth = 0;
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (carriesFile(event) && ++dragDepth) document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (carriesFile(event) && --dragDepth <= 0) document.body.classList.remove("dragging");
  });
  document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    dragDepth = 0;
    document.body.classList.remove("dragging");
    document.getElementById("try").scrollIntoView({ block: "start" });
    upload(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => upload(event.clipboardData?.files[0]));
  file.disabled = false; // rendered disabled: images are accepted only from here on
}
