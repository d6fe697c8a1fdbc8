// What makes the status page move. Everything on it can be read without this: the server draws the page, and here its
// moving part is fetched again and fitted in, so that focus, selection and what was folded open stay as they are.

const EVERY_MS = 2000;
const said = document.getElementById("said");

// ── the moving part ──────────────────────────────────────────────────────────────────────────────────────────────────

let lost = false;

async function renew() {
  try {
    const answer = await fetch("/live", { headers: { Accept: "text/html" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    fitIn(await answer.text());
    if (lost) tell("");
    lost = false;
  } catch {
    // Said once, and not on every try: it is read aloud.
    if (!lost) tell(`No answer since ${new Date().toLocaleTimeString()}. What is shown is from before.`, true);
    lost = true;
  }
}

function fitIn(html) {
  const drawn = new DOMParser().parseFromString(html, "text/html");
  for (const section of drawn.querySelectorAll("[data-live]")) {
    const shown = document.getElementById(section.id);
    if (shown) fit(shown, section);
  }
  const title = document.getElementById("title");
  if (title) document.title = `${title.textContent} · Autotag`;
}

// Make `shown` like `drawn` while keeping every node that can be kept.
function fit(shown, drawn) {
  if (shown.isEqualNode(drawn)) return;
  fitAttributes(shown, drawn);
  const wanted = [...drawn.childNodes];
  wanted.forEach((child, place) => {
    const there = shown.childNodes[place];
    if (!there) shown.append(document.importNode(child, true));
    else if (there.nodeType !== child.nodeType || there.nodeName !== child.nodeName || there.id !== child.id) {
      there.replaceWith(document.importNode(child, true));
    } else if (child.nodeType === Node.ELEMENT_NODE) fit(there, child);
    else if (there.nodeValue !== child.nodeValue) there.nodeValue = child.nodeValue;
  });
  while (shown.childNodes.length > wanted.length) shown.lastChild.remove();
}

function fitAttributes(shown, drawn) {
  for (const { name } of [...shown.attributes]) {
    // The reader opened it, and the server knows nothing of that.
    if (!drawn.hasAttribute(name) && name !== "open") shown.removeAttribute(name);
  }
  for (const { name, value } of drawn.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
}

function everSoOften() {
  setTimeout(async () => {
    if (!document.hidden) await renew();
    everSoOften();
  }, EVERY_MS);
}

everSoOften();
document.addEventListener("visibilitychange", () => document.hidden || renew());

// ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────

let fading;

function tell(words, stays = false) {
  clearTimeout(fading);
  said.textContent = words;
  if (words && !stays) fading = setTimeout(() => { said.textContent = ""; }, 6000);
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
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json", "X-Autotag-Proof": form.elements.proof.value },
    });
    tell(answer.ok ? (await answer.json()).said : await answer.text());
  } catch {
    tell(`Not done: no answer to ${action}.`);
  }
  button.disabled = false;
  await renew();
  // Pause has become Resume in the same place: whoever works with the keyboard goes on there.
  if (document.activeElement === document.body) document.querySelector(".actions button")?.focus();
});

// ── trying an image ──────────────────────────────────────────────────────────────────────────────────────────────────

const form = document.getElementById("try-form");
const file = document.getElementById("file");
const tried = document.getElementById("tried");
let looking = false;

async function look(image) {
  if (!image || looking) return;
  looking = true;
  const waiting = document.createElement("p");
  waiting.className = "looking";
  waiting.textContent = `Looking at ${image.name || "the image"}…`;
  tried.replaceChildren(waiting);
  tried.setAttribute("aria-busy", "true");
  try {
    const instance = document.getElementById("instance").value;
    const answer = await fetch(`/try?instance=${encodeURIComponent(instance)}`, {
      method: "POST",
      headers: {
        Accept: "text/html",
        "Content-Type": "application/octet-stream",
        "X-Autotag-File": encodeURIComponent((image.name || "image").slice(0, 200)),
      },
      body: image,
    });
    const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
    tried.replaceChildren(...drawn.body.childNodes);
  } catch {
    waiting.textContent = "No answer. The image may be too large, or the service is gone.";
  }
  tried.removeAttribute("aria-busy");
  tried.scrollIntoView({ block: "nearest" });
  looking = false;
}

if (form) {
  file.addEventListener("change", () => {
    look(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  });
  // The whole page takes a file: nobody has to aim.
  let inside = 0;
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (carriesFile(event) && ++inside) document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (carriesFile(event) && --inside <= 0) document.body.classList.remove("dragging");
  });
  document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    inside = 0;
    document.body.classList.remove("dragging");
    document.getElementById("try").scrollIntoView({ block: "start" });
    look(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => look(event.clipboardData?.files[0]));
  file.disabled = false; // as it was drawn: only from here on is an image taken
}
